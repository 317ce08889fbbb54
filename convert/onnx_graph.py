"""Changes to a traced ONNX graph: crops as uint8, computation or storage in float16.

They work on names that torch gives nodes after the modules they come from: ``/net/backbone/...``,
with the kind of net instead of ``net`` where a graph holds both.
"""

import re
from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.errors import ExportError

INPUT_NAME = "image"
_PIXELS = "rgb_pixels"  # what the first convolution reads once the input has another meaning
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_LINEAR_LAYER = re.compile(r"/(\w+_head)/layers\.(\d+)/Gemm$")


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
