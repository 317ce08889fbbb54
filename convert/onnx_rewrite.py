"""Changes to a traced ONNX graph: crops as uint8, computation in float16.

They work on names that torch gives nodes after the modules they come from: ``/net/backbone/...``,
with the kind of net before it where a graph holds both.
"""

import re
from collections.abc import Iterable
from copy import deepcopy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.errors import ExportError

INPUT_NAME = "image"
_PIXELS = "rgb_pixels"  # what the first convolution reads once the input has another meaning
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_LAST_LAYER = re.compile(r"/\w+_head/layers\.(\d+)/Gemm$")


def take_uint8(model: onnx.ModelProto) -> None:
    """Let a graph read crops as cv2 gives them: (batch, 112, 112, 3) uint8 BGR.

    Colours are swapped and pixels divided by 255 in the graph, to the bits of ``preprocess``.
    """
    graph = model.graph
    shape = graph.input[0].type.tensor_type.shape
    (batch,) = (d.dim_param or d.dim_value for d in shape.dim[:1])
    _rename_reads(graph.node, INPUT_NAME, _PIXELS)
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
    """Compute in float16 up to each head's last layer; input, last activations, outputs float32.

    Raises:
        ExportError: if a weight is beyond float16's range.
    """
    graph = model.graph
    last, tail = last_layers(graph), tail_names(graph)
    narrow = [node for node in graph.node if node.name not in tail and node.op_type != "Constant"]
    _narrow_constants(graph, {name for node in narrow for name in node.input})
    _rename_reads(graph.node, INPUT_NAME, "image_half")
    nodes = [
        helper.make_node(
            "Cast", [INPUT_NAME], ["image_half"], "/input/Half", to=TensorProto.FLOAT16
        )
    ]
    for node in graph.node:
        nodes.append(node)
        if node.name in last:
            wide, half = node.output[0], f"{node.output[0]}_half"
            node.output[0] = half
            nodes.append(
                helper.make_node("Cast", [half], [wide], f"{node.name}/Wide", to=TensorProto.FLOAT)
            )
    replace_nodes(graph, nodes)
    del graph.value_info[:]


def last_layers(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that are the last linear layer of a head."""
    heads: dict[str, list[str]] = {}
    for node in graph.node:
        if _LAST_LAYER.search(node.name):
            heads.setdefault(node.name.rsplit("/layers.", 1)[0], []).append(node.name)
    return {max(names, key=_layer_number) for names in heads.values()}


def _layer_number(name: str) -> int:
    found = _LAST_LAYER.search(name)
    return int(found.group(1)) if found else -1


def tail_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes behind the heads: the outputs' activations and their constants."""
    last = last_layers(graph)
    reached = {name for node in graph.node if node.name in last for name in node.output}
    tail: set[str] = set()
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            tail.add(node.name)
    return tail


def initializer_arrays(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Every weight of a graph, and every constant, by name."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in arrays:  # an array that two share
            arrays[node.output[0]] = arrays[node.input[0]]
    return arrays


def _narrow_constants(graph: onnx.GraphProto, names: set[str]) -> None:
    for tensor in graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(_narrowed(tensor, tensor.name))
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in names:
            held = node.attribute[0].t
            held.CopyFrom(_narrowed(held, node.output[0]))


def _narrowed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.FLOAT:
        return tensor
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _FLOAT16_MAX:
        raise ExportError(f"{name} holds {largest:.3g}, beyond float16; export float32")
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _rename_reads(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the arrays that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [deepcopy(tensor) for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph other nodes; its own may be among them, so all are copied first."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
