"""What a graph's tensors are on faces: the ranges that bytes must span, and means.

References:
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
    section 4.2 (rounding shifts a layer's mean; its bias takes the shift back).
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.preprocess import fill_batch
from mlx_faceau.errors import ExportError, MissingDependency

from .onnx_rewrite import INPUT_NAME, initializer_arrays, last_layers

_LEVELS = 255  # of uint8 above its lowest
# A face whose activations reach further than twice what 95 of 100 faces reach is left to
# saturate: one odd picture would otherwise coarsen the steps for everybody.
_USUAL, _BEYOND_USUAL = 0.95, 2.0


@dataclass(frozen=True)
class Scale:
    """How a tensor's numbers become bytes: value = scale * (byte - zero)."""

    scale: np.float32
    zero: int

    @classmethod
    def spanning(cls, low: float, high: float) -> "Scale":
        """Bytes 0 to 255 over [low, high], zero itself among them."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / _LEVELS) if high > low else np.float32(1 / _LEVELS)
        return cls(scale, int(np.clip(round(-low / float(scale)), 0, _LEVELS)))


def ranges_of(
    model: onnx.ModelProto, tensors: list[str], images: np.ndarray
) -> dict[str, tuple[float, float]]:
    """How far below and above zero each tensor reaches over all images.

    Args:
        model: with the input ``image``.
        tensors: names in its graph.
        images: (N, 3, 112, 112) float32.

    Raises:
        ExportError: if one is NaN or inf.
    """
    watched = deepcopy(model)
    outputs = [out for name in tensors for out in _watch_extremes(watched, name)]
    seen = _each_face(watched, outputs, images)
    if not all(np.isfinite(values).all() for values in seen):
        raise ExportError("a calibration face gives NaN or inf; is the checkpoint sound?")
    return {
        name: (-_reach(-low), _reach(high))
        for name, low, high in zip(tensors, seen[::2], seen[1::2], strict=True)
    }


def correct_biases(model: onnx.ModelProto, exact: onnx.ModelProto, images: np.ndarray) -> None:
    """Give each head's last layer, in place, the mean that it has in the exact graph.

    Rounding moves what that layer reads a little to one side on all faces alike; action units are
    off by up to a tenth of an intensity for it. The layer's bias takes it back.

    Args:
        model: the rounded graph; its last layers are float32.
        exact: the graph that it was rounded from.
        images: (N, 3, 112, 112) float32 faces.
    """
    graph = model.graph
    last = [node for node in graph.node if node.name in last_layers(graph)]
    outputs = [node.output[0] for node in last]
    means = [
        [values.mean(axis=0, dtype=np.float64) for values in _each_face(one, outputs, images)]
        for one in (deepcopy(exact), deepcopy(model))
    ]
    arrays = initializer_arrays(graph)
    for node, true, rounded in zip(last, *means, strict=True):
        bias = (arrays[node.input[2]] + true - rounded).astype(np.float32)
        # Under a name of its own: torch lets layers share arrays that are equal.
        node.input[2] = f"{node.name}/bias_corrected"
        graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))


def _watch_extremes(model: onnx.ModelProto, name: str) -> list[str]:
    """Add each face's least and greatest number of a tensor to a graph; what they are called."""
    graph = model.graph
    flat, axis = f"{name}/faces", "numbers_of_a_face"
    graph.node.append(helper.make_node("Flatten", [name], [flat], flat, axis=1))
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    if opset >= 18 and axis not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), axis))
    outputs = [f"{name}/{kind}" for kind in ("ReduceMin", "ReduceMax")]
    for out in outputs:
        kind = out.rsplit("/", 1)[1]
        reads, axes = ([flat, axis], {}) if opset >= 18 else ([flat], {"axes": [1]})
        graph.node.append(helper.make_node(kind, reads, [out], out, keepdims=0, **axes))
    return outputs


def _each_face(model: onnx.ModelProto, outputs: list[str], images: np.ndarray) -> list[np.ndarray]:
    """The named tensors, (N, ...) over all images, in place of the graph's own outputs.

    A fixed batch is filled up and cut off again.
    """
    session = _watching(model, outputs)
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    runs = [
        session.run(None, {INPUT_NAME: fill_batch(images[start : start + size], size)})
        for start in range(0, len(images), size)
    ]
    return [np.concatenate(values)[: len(images)] for values in zip(*runs, strict=True)]


def _watching(model: onnx.ModelProto, outputs: list[str]) -> Any:
    """A session of the graph, which is changed to give these tensors."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependency("onnxruntime", extra="cpu") from error
    del model.graph.output[:]
    for name in outputs:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        model.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same bytes whatever the machine's cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _reach(extremes: np.ndarray) -> float:
    """How far bytes reach on one side, from each face's extreme there."""
    extremes = np.maximum(extremes, 0)
    return float(min(extremes.max(), _BEYOND_USUAL * np.quantile(extremes, _USUAL)))
