"""Static 8-bit quantisation of a traced ONNX graph, calibrated on faces.

Activations are uint8 with one scale a tensor, weights int8 with one scale an output channel,
written as QuantizeLinear and DequantizeLinear pairs that a runtime fuses into integer kernels.
What stays float32 is what costs accuracy or gains nothing: the first layers (large maps, few
channels), each head's last layer and the outputs' activations.

Reference:
    Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
    Only Inference, CVPR 2018. Wu et al., Integer Quantization for Deep Learning Inference,
    arXiv:2004.09602.
"""

import re
from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.errors import ExportError

from .activation_ranges import Scale, correct_biases, ranges_of
from .export_source import Pair, Source
from .onnx_rewrite import drop_unread, initializer_arrays, last_layers, replace_nodes

# 7 bits: processors without VNNI add two products in 16 bits, which 8 bits overflow silently.
_WEIGHT_LEVELS = 64
_CLAMPS = ("Clip", "Relu")
_QUANTISED = (*_CLAMPS, "Conv", "Gemm", "Sigmoid", "Mul", "Add", "GlobalAveragePool")
_PLACE = re.compile(
    r"^(?:/(?P<kind>landmark_pose|au_prediction))?/net/"
    r"(?:backbone/(?:blocks\.(?P<block>\d+)/|(?P<end>head/|ReduceMean))|(?P<head>\w+_head)/)"
)


_GATE = Scale(np.float32(1 / 256), 0)  # of a sigmoid, whatever faces it sees


def quantise(model: onnx.ModelProto, source: Source | Pair, images: np.ndarray) -> None:
    """Quantise a float32 graph in place.

    Args:
        model: traced from ``source``, opset 13 or later, with the input ``image``.
        source: the net or nets in it.
        images: (N, 3, 112, 112) float32 RGB in [0, 1]: what the scales are calibrated on.

    Raises:
        ExportError: if a calibration face gives NaN or inf, or the graph holds what this does
            not know.
    """
    graph = model.graph
    pool_globally(graph)
    last = last_layers(graph)
    chosen = {node.name for node in graph.node if _is_int8(node.name, last, source)}
    nodes = [node for node in graph.node if node.name in chosen and node.op_type != "Constant"]
    unknown = sorted({node.op_type for node in nodes} - {*_QUANTISED, "Flatten"})
    if unknown:
        raise ExportError(f"cannot quantise {', '.join(unknown)}; export float32 or float16")
    scales = _calibrate(model, nodes, images)
    exact = deepcopy(model)
    _drop_clamps(graph, chosen)
    _Rewriter(graph, chosen, scales).rewrite()
    del graph.value_info[:]
    correct_biases(model, exact, images)
    drop_unread(graph)


def float_blocks(config: ModelConfig) -> int:
    """How many blocks at the start stay float32.

    One in the landmark net. In the action unit net all before the first squeeze-and-excitation:
    SiLU on their large maps costs more in bytes than their convolutions save.
    """
    blocks = config.backbone.blocks(config.width_mult)
    return next((index for index, block in enumerate(blocks) if block.squeeze), 1)


def _is_int8(name: str, last: set[str], source: Source | Pair) -> bool:
    place = _PLACE.match(name)
    if place is None or name in last:
        return False
    if place["block"] is None:
        return True
    (part,) = (p for p in source.parts if place["kind"] in (p.kind, None))
    return int(place["block"]) >= float_blocks(part.config)


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
            nodes.append(
                helper.make_node("Flatten", [out], [node.output[0]], f"{node.name}/Flatten")
            )
    replace_nodes(graph, nodes)


def _calibrate(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], images: np.ndarray
) -> dict[str, Scale]:
    """The scale of every tensor that the nodes read or write, from its range over all images."""
    constants = initializer_arrays(model.graph)
    tensors = dict.fromkeys(
        name for node in nodes for name in (*node.input, *node.output) if name not in constants
    )
    ranges = ranges_of(model, [*tensors], images)
    gates = {node.output[0] for node in nodes if node.op_type == "Sigmoid"}
    return {name: _GATE if name in gates else Scale.spanning(*ranges[name]) for name in tensors}


def _drop_clamps(graph: onnx.GraphProto, chosen: set[str]) -> None:
    """Leave out ReLU and ReLU6 before bytes: their scales start at 0 and end below 6 already."""
    writers = {node.output[0]: node for node in graph.node}
    kept = []
    for node in graph.node:
        if node.name in chosen and node.op_type in _CLAMPS:
            writers[node.input[0]].output[0] = node.output[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)


class _Rewriter:
    """Inserts the pairs around the chosen nodes of one graph."""

    def __init__(self, graph: onnx.GraphProto, chosen: set[str], scales: dict[str, Scale]) -> None:
        self.graph = graph
        self.chosen = chosen
        self.scales = scales
        self.constants = initializer_arrays(graph)
        self.made: dict[str, np.ndarray] = {}
        self.pairs: set[str] = set()  # tensors that have their pair
        self.bytes_only: set[str] = set()  # those of them that everybody reads rounded

    def rewrite(self) -> None:
        nodes = [node for old in self.graph.node for node in self._around(old)]
        used = {name for node in nodes for name in node.input}
        replace_nodes(
            self.graph, (n for n in nodes if n.op_type != "Identity" or n.output[0] in used)
        )
        self.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.made.items()
        )

    def _around(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.name not in self.chosen or node.op_type == "Constant":
            node.input[:] = [_rounded(x) if x in self.bytes_only else x for x in node.input]
            yield node
            return
        scale = self.scales[node.input[0]]
        for index, name in enumerate(node.input):
            if name in self.scales:
                yield from self._pair(name)
                node.input[index] = _rounded(name)
        if node.op_type in ("Conv", "Gemm"):
            yield from self._weights(node, scale)
        yield node
        self.bytes_only.add(node.output[0])
        if node.op_type == "Flatten":  # moves bytes: the scale is its input's
            self.scales[node.output[0]] = scale
        yield from self._pair(node.output[0])

    def _pair(self, name: str) -> Iterator[onnx.NodeProto]:
        if name in self.pairs:
            return
        self.pairs.add(name)
        scale, zero = f"{name}_scale", f"{name}_zero"
        self.made[scale] = np.array(self.scales[name].scale, np.float32)
        self.made[zero] = np.array(self.scales[name].zero, np.uint8)
        coded = f"{name}_bytes"
        yield helper.make_node("QuantizeLinear", [name, scale, zero], [coded], f"{name}/Quantize")
        yield helper.make_node(
            "DequantizeLinear", [coded, scale, zero], [_rounded(name)], f"{name}/Dequantize"
        )

    def _weights(self, node: onnx.NodeProto, scale: Scale) -> Iterator[onnx.NodeProto]:
        """Weights as int8 and the bias as int32, both with one scale an output channel."""
        weight, bias = (self.constants[name] for name in node.input[1:3])
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scales = np.where(largest > 0, largest / _WEIGHT_LEVELS, 1).astype(np.float32)
        columns = scales.reshape(-1, *[1] * (weight.ndim - 1))
        coded = np.clip(np.rint(weight / columns), -_WEIGHT_LEVELS, _WEIGHT_LEVELS)
        both = scales * scale.scale
        coded_bias = np.rint(bias.astype(np.float64) / both).clip(-(2**31) + 1, 2**31 - 1)
        parts: tuple[tuple[np.ndarray, np.ndarray], ...] = (
            (coded.astype(np.int8), scales),
            (coded_bias.astype(np.int32), both),
        )
        for index, (values, steps) in enumerate(parts, start=1):
            # Named after the node: torch lets nodes share arrays that are equal.
            name = f"{node.name}/{('weight', 'bias')[index - 1]}"
            names = [f"{name}_bytes", f"{name}_scale", f"{name}_zero"]
            zeros = np.zeros(steps.shape, values.dtype)
            self.made |= dict(zip(names, (values, steps, zeros), strict=True))
            node.input[index] = _rounded(name)
            yield helper.make_node(
                "DequantizeLinear", names, [_rounded(name)], f"{name}/Dequantize", axis=0
            )


def _rounded(name: str) -> str:
    return f"{name}_rounded"
