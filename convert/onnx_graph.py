"""Changes to a traced ONNX graph: crops as uint8, float16, static 8-bit quantisation on faces.

They work on names that torch gives nodes after the modules they come from: ``/net/backbone/...``,
with the kind of net instead of ``net`` where a graph holds both.

References:
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
    Only Inference, CVPR 2018. Nagel et al., Data-Free Quantization Through Weight Equalization and
    Bias Correction, ICCV 2019, section 4.2.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.architectures import IMAGE_SIZE, ModelConfig
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.preprocess import PIXEL_MAX, fill_batch
from mlx_faceau.errors import ExportError

from .source_model import CombinedModel, SourceModel

INPUT_NAME = "image"
_PIXELS = "rgb_pixels"  # what the first convolution reads once the input has another meaning
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_LINEAR_LAYER = re.compile(r"/(\w+_head)/layers\.(\d+)/Gemm$")
# A face whose activations reach further than twice what 95 of 100 faces reach saturates: one
# outlier would otherwise coarsen the steps for all.
_QUANTILE, _BEYOND_QUANTILE = 0.95, 2.0
_OPERATIONS = (
    *("Conv", "Gemm", "Clip", "Relu", "Sigmoid", "Mul", "Add", "GlobalAveragePool"),
    "Flatten",
)


def take_uint8(model: onnx.ModelProto) -> None:
    """Let a graph read crops as cv2 gives them: (batch, 112, 112, 3) uint8 BGR.

    Colours are swapped and pixels divided by 255 in the graph, to the bits of ``preprocess``.
    """
    graph = model.graph
    shape = graph.input[0].type.tensor_type.shape
    (batch,) = (d.dim_param or d.dim_value for d in shape.dim[:1])
    _rename_input(graph, _PIXELS)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([2, 1, 0], np.int64), "bgr_to_rgb"),
            numpy_helper.from_array(np.array(PIXEL_MAX, np.float32), "pixel_max"),
        ]
    )
    nodes = [
        helper.make_node("Transpose", [INPUT_NAME], ["bgr"], "/input/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["bgr", "bgr_to_rgb"], ["rgb"], "/input/Gather", axis=1),
        helper.make_node("Cast", ["rgb"], ["rgb_float"], "/input/Cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["rgb_float", "pixel_max"], [_PIXELS], "/input/Div"),
    ]
    replace_nodes(graph, [*nodes, *graph.node])
    crops = helper.make_tensor_value_info(
        INPUT_NAME, TensorProto.UINT8, [batch, IMAGE_SIZE, IMAGE_SIZE, 3]
    )
    graph.input[0].CopyFrom(crops)


def to_float16(model: onnx.ModelProto) -> None:
    """Compute in float16 up to each head's last layer; input, outputs and what is between float32.

    A HOG head's gradients keep float32 as well.
    """
    graph = model.graph
    last = last_layers(graph)
    behind = {name for node in graph.node if node.name in last for name in node.output}
    narrow: set[str] = set()  # tensors that a float16 node reads
    wide: set[str] = set()  # nodes that stay as they are
    for node in graph.node:
        if "/hog/" in node.name or behind & {*node.input}:
            behind |= {*node.output}
            wide.add(node.name)
        else:
            narrow |= {*node.input}
    constants = [(n.output[0], n.attribute[0].t) for n in graph.node if n.op_type == "Constant"]
    for name, tensor in [*((t.name, t) for t in graph.initializer), *constants]:
        if name not in narrow or tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if (largest := float(np.abs(values).max(initial=0.0))) > _FLOAT16_MAX:
            raise ExportError(f"{name} holds {largest:.3g}, beyond float16; export float32")
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    _rename_input(graph, "image_half", wide)
    half = TensorProto.FLOAT16
    nodes = [helper.make_node("Cast", [INPUT_NAME], ["image_half"], "/input/Half", to=half)]
    for node in graph.node:
        nodes.append(node)
        if node.name in last - wide:
            (output,) = node.output
            node.output[0] = f"{output}_half"
            cast = f"{node.name}/Wide"
            nodes.append(
                helper.make_node("Cast", [*node.output], [output], cast, to=TensorProto.FLOAT)
            )
    replace_nodes(graph, nodes)
    del graph.value_info[:]


def store_half(model: onnx.ModelProto) -> None:
    """Store the weights of a graph that float16 holds exactly as such; runtimes widen them at load.

    The model is traced from a net rounded to half precision, its BatchNorm not folded: folded into
    the convolutions the weights would be other numbers, which is an ExportError.
    """
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            raise ExportError(f"{tensor.name} is not what float16 holds; export float32")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], f"{name}/Wide", to=TensorProto.FLOAT)
        )
    replace_nodes(graph, [*casts, *graph.node])


def last_layers(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that are the last linear layer of a head."""
    heads: dict[str, tuple[int, str]] = {}
    for node in graph.node:
        if found := _LINEAR_LAYER.search(node.name):
            head, layer = node.name[: found.start()] + found[1], (int(found[2]), node.name)
            heads[head] = max(heads.get(head, layer), layer)
    return {name for _, name in heads.values()}


def initializer_arrays(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Every weight of a graph, and every constant, by name."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in arrays:  # an array that two share
            arrays[node.output[0]] = arrays[node.input[0]]
    return arrays


def _rename_input(graph: onnx.GraphProto, new: str, but: Collection[str] = ()) -> None:
    for node in graph.node:
        if node.name in but:
            continue
        node.input[:] = [new if name == INPUT_NAME else name for name in node.input]


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph other nodes; its own may be among them, so all are copied first."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def quantise(
    model: onnx.ModelProto, source: SourceModel | CombinedModel, images: np.ndarray
) -> onnx.ModelProto:
    """Quantise a float32 graph that was traced from the source for int8, of opset 13 or later.

    The scales are calibrated on images (N, 3, 112, 112) float32 RGB in [0, 1]. ONNX Runtime's
    quantiser writes the QuantizeLinear and DequantizeLinear pairs: uint8 activations with one scale
    a tensor, int8 weights with one scale an output channel, in 7 bits, because processors without
    VNNI add two products in 16 bits. Ours are: which layers stay float32 (the first ones with their
    large maps, each head's last layer and what follows), the ranges of the activations, and the
    correction of the last biases. With the library's own min-max or percentile ranges the built-in
    AU net's error against labels rises from 0.606 to 0.888 or 0.771; with these it is 0.596 (512
    faces labelled by OpenFace, 256 others to calibrate on).
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
