"""What a graph's tensors are on faces: the ranges that bytes must span, and means.

References:
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
    section 4.2 (rounding shifts a layer's mean; its bias takes the shift back).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.errors import ExportError, MissingDependency
from mlx_faceau.preprocess import fill_batch

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
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    outputs = [f"{name}/{kind}" for name in tensors for kind in ("ReduceMin", "ReduceMax")]
    for out in outputs:
        name, kind = out.rsplit("/", 1)
        watched.graph.node.append(helper.make_node(kind, [name], [out], out, keepdims=0))
    # One face at a time, or a fixed batch of them: the last is filled up with its own.
    seen = np.array([np.stack(values) for values, _ in _runs(watched, outputs, images)])
    seen = seen.reshape(len(seen), len(tensors), 2)
    if not np.isfinite(seen).all():
        raise ExportError("a calibration face gives NaN or inf; is the checkpoint sound?")
    return {
        name: (-_reach(-seen[:, index, 0]), _reach(seen[:, index, 1]))
        for index, name in enumerate(tensors)
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
    means = [_means(one, outputs, images) for one in (exact, model)]
    arrays = initializer_arrays(graph)
    for node, true, rounded in zip(last, *means, strict=True):
        bias = (arrays[node.input[2]] + true - rounded).astype(np.float32)
        # Under a name of its own: torch lets layers share arrays that are equal.
        node.input[2] = f"{node.name}/bias_corrected"
        graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _means(model: onnx.ModelProto, tensors: list[str], images: np.ndarray) -> list[np.ndarray]:
    """Mean of each tensor, (batch, K) in one run, over all images: (K,) float64."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    rows: list[list[np.ndarray]] = [[] for _ in tensors]
    for values, count in _runs(watched, tensors, images):
        for kept, value in zip(rows, values, strict=True):
            kept.append(value[:count])
    return [np.concatenate(kept).mean(axis=0, dtype=np.float64) for kept in rows]


def _runs(
    model: onnx.ModelProto, outputs: list[str], images: np.ndarray
) -> Iterator[tuple[list[np.ndarray], int]]:
    """The named tensors on batch after batch, and how many images of it are not filling."""
    session = _watching(model, outputs)
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield session.run(None, {INPUT_NAME: fill_batch(batch, size)}), len(batch)


def _watching(model: onnx.ModelProto, outputs: list[str]) -> Any:
    """A session of the graph, changed to give these tensors."""
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
