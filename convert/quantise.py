"""Static 8-bit quantisation of a traced ONNX graph, calibrated on faces.

ONNX Runtime's quantiser writes the QuantizeLinear and DequantizeLinear pairs: uint8 activations
with one scale a tensor, int8 weights with one scale an output channel, in 7 bits, because
processors without VNNI add two products in 16 bits. Ours are: which layers stay float32 (the
first ones with their large maps, each head's last layer and what follows), the ranges of the
activations, and the correction of the last biases. With the library's own min-max or percentile
ranges the built-in AU net's error against labels rises from 0.606 to 0.888 or 0.771; with these it
is 0.596 (512 faces labelled by OpenFace, 256 others to calibrate on).

References:
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
    Only Inference, CVPR 2018. Nagel et al., Data-Free Quantization Through Weight Equalization and
    Bias Correction, ICCV 2019, section 4.2.
"""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.preprocess import fill_batch
from mlx_faceau.errors import ExportError

from .onnx_graph import INPUT_NAME, initializer_arrays, last_layers, replace_nodes
from .source_model import CombinedModel, SourceModel

# A face whose activations reach further than twice what 95 of 100 faces reach saturates: one
# outlier would otherwise coarsen the steps for all.
_QUANTILE, _BEYOND_QUANTILE = 0.95, 2.0
_OPERATIONS = (
    *("Conv", "Gemm", "Clip", "Relu", "Sigmoid", "Mul", "Add", "GlobalAveragePool"),
    "Flatten",
)


def quantise(
    model: onnx.ModelProto, source: SourceModel | CombinedModel, images: np.ndarray
) -> onnx.ModelProto:
    """Quantise a float32 graph that was traced from the source for int8, of opset 13 or later.

    The scales are calibrated on images (N, 3, 112, 112) float32 RGB in [0, 1].
    """
    tools = import_library("onnxruntime.quantization", "export")
    calibrate = import_library("onnxruntime.quantization.calibrate", "export")
    _unshare_arrays(model.graph)
    nodes = _quantised_nodes(model.graph, source)
    if unknown := sorted({node.op_type for node in nodes} - {*_OPERATIONS}):
        raise ExportError(f"cannot quantise {', '.join(unknown)}; export float32 or float16")
    ranges = {
        name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in activation_ranges(model, nodes, images).items()
    }
    quantizer = tools.QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=True,
        weight_qType=tools.QuantType.QInt8,
        activation_qType=tools.QuantType.QUInt8,
        tensors_range=calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=[*_OPERATIONS],
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.clean_initializers()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    del quantised.graph.value_info[:]
    correct_biases(quantised, model, images)
    return quantised


def float_blocks(config: ModelConfig) -> int:
    """How many blocks at the start stay float32.

    One in the landmark net. In the action unit net all before the first squeeze-and-excitation:
    SiLU on their large maps costs more in bytes than their convolutions save.
    """
    blocks = config.backbone.blocks(config.width_mult)
    return next((index for index, block in enumerate(blocks) if block.squeeze), 1)


def _quantised_nodes(
    graph: onnx.GraphProto, source: SourceModel | CombinedModel
) -> list[onnx.NodeProto]:
    """Nodes of the backbones and heads but for the first layers and each head's last."""
    first = [
        f"/{'net' if len(source.parts) == 1 else part.kind}/backbone/{name}/"
        for part in source.parts
        for name in ("stem", *(f"blocks.{i}" for i in range(float_blocks(part.config))))
    ]
    last = last_layers(graph)
    return [
        node
        for node in graph.node
        if re.search(r"/(backbone|\w+_head)/", node.name)
        and not node.name.startswith(tuple(first))
        and node.name not in last
        and node.op_type != "Constant"
    ]


def pool_globally(graph: onnx.GraphProto) -> None:
    """Means over a map as GlobalAveragePool, which has an integer kernel; ReduceMean has none."""
    nodes = []
    for node in graph.node:
        if node.op_type != "ReduceMean":
            nodes.append(node)
            continue
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        out = node.output[0] if keep else f"{node.output[0]}_map"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [out], node.name))
        if not keep:
            flatten = f"{node.name}/Flatten"
            nodes.append(helper.make_node("Flatten", [out], [node.output[0]], flatten))
    replace_nodes(graph, nodes)


def _unshare_arrays(graph: onnx.GraphProto) -> None:
    """Give each layer its own weight and bias: torch lets layers share arrays that are equal."""
    arrays = initializer_arrays(graph)
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            for index, part in ((1, "weight"), (2, "bias")):
                name = f"{node.name}/{part}"
                graph.initializer.append(numpy_helper.from_array(arrays[node.input[index]], name))
                node.input[index] = name
    read = {name for node in graph.node for name in node.input}
    replace_nodes(graph, [n for n in graph.node if n.op_type != "Identity" or n.output[0] in read])
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def activation_ranges(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], images: np.ndarray
) -> dict[str, tuple[float, float]]:
    """How far below and above zero each tensor that nodes read or write reaches over all images.

    Outliers are cut off; a sigmoid spans [0, 1] whatever the faces.
    """
    constants = initializer_arrays(model.graph)
    names = [*dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))]
    names = [name for name in names if name not in constants]
    extremes: list[list[np.ndarray]] = [[] for _ in names]  # each (N, 2): of every face
    for values in _intermediate_values(model, names, images):
        for found, value in zip(extremes, values, strict=True):
            flat = value.reshape(len(value), -1)
            found.append(np.stack([-flat.min(axis=1), flat.max(axis=1)], axis=1))
    gates = {node.output[0] for node in nodes if node.op_type == "Sigmoid"}
    ranges = {}
    for name, found in zip(names, extremes, strict=True):
        reach = np.concatenate(found)[: len(images)]
        if not np.isfinite(reach).all():
            raise ExportError("a calibration face gives NaN or inf; is the checkpoint sound?")
        reach = np.maximum(reach, 0)
        cut = _BEYOND_QUANTILE * np.quantile(reach, _QUANTILE, axis=0)
        below, above = np.minimum(reach.max(axis=0), cut)
        ranges[name] = (0.0, 1.0) if name in gates else (-float(below), float(above))
    return ranges


def correct_biases(model: onnx.ModelProto, exact: onnx.ModelProto, images: np.ndarray) -> None:
    """Give each head's last layer, in place, the mean that it has in the exact graph.

    Rounding shifts what that layer, itself float32, reads in the same direction on all faces:
    action units are off by up to a tenth of an intensity. The layer's bias takes the shift back.
    """
    names = last_layers(model.graph)
    last = [node for node in model.graph.node if node.name in names]
    arrays = initializer_arrays(model.graph)
    # A HOG head reads what another head's corrected bias gives: it is measured after that.
    for later in (False, True):
        nodes = [node for node in last if ("/hog_head/" in node.name) == later]
        if not nodes:
            continue
        outputs = [node.output[0] for node in nodes]
        exact_means, means = (
            [
                np.concatenate(values)[: len(images)].mean(axis=0, dtype=np.float64)
                for values in zip(*_intermediate_values(graph, outputs, images), strict=True)
            ]
            for graph in (exact, model)
        )
        for node, exact_mean, mean in zip(nodes, exact_means, means, strict=True):
            bias = (arrays[node.input[2]] + exact_mean - mean).astype(np.float32)
            node.input[2] = f"{node.name}/bias_corrected"
            model.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))


def _intermediate_values(
    model: onnx.ModelProto, names: Sequence[str], images: np.ndarray
) -> Iterator[list[np.ndarray]]:
    """The named tensors, batch after batch; a fixed batch is filled up with its last image."""
    import onnxruntime

    watched = deepcopy(model)
    del watched.graph.output[:]
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same bytes whatever the machine's cores
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    for start in range(0, len(images), size):
        yield session.run([*names], {INPUT_NAME: fill_batch(images[start : start + size], size)})
