"""Weights stored in half precision and computed with in float32: half the size, full speed on CPUs.

Matrices and kernels are rounded; biases and BatchNorm, a hundredth of the size, keep float32.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlx_faceau.core.checkpoint import save_checkpoint
from mlx_faceau.errors import ExportError

from .export_source import Pair, Source
from .onnx_rewrite import replace_nodes
from .variants import HALF_WEIGHTS


def half_arrays(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A net's weights as they are stored: float16 where they have two or more dimensions.

    Raises:
        ExportError: if a weight is beyond float16's range.
    """
    stored = {}
    for name, array in weights.items():
        with np.errstate(over="ignore"):
            stored[name] = array.astype(np.float16) if array.ndim > 1 else array
        if not np.isfinite(stored[name]).all():
            raise ExportError(f"{name} is beyond float16's range; export float32")
    return stored


def rounded(source: Source | Pair) -> Source | Pair:
    """The net or nets that compute with the stored weights, in float32.

    Raises:
        ExportError: if a weight is beyond float16's range.
    """
    if isinstance(source, Pair):
        return replace(source, landmarks=_rounded(source.landmarks), aus=_rounded(source.aus))
    return _rounded(source)


def _rounded(source: Source) -> Source:
    stored = half_arrays(source.weights)
    return replace(source, weights={k: v.astype(np.float32) for k, v in stored.items()})


def store_half(model: onnx.ModelProto) -> None:
    """Store the weights of a graph that float16 holds exactly as such; runtimes widen them at load.

    Args:
        model: traced from a :func:`rounded` net with its BatchNorm apart: folded into the
            convolutions the weights would be other numbers, rounded a second time.
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


def save_weights(source: Source, path: Path | str, precision: str = "float32") -> None:
    """Write a net's weights alone as a checkpoint; stored in half precision where that is asked.

    Raises:
        ExportError: if a weight is beyond float16's range.
        OSError: if it cannot be written.
    """
    weights = half_arrays(source.weights) if precision == HALF_WEIGHTS else source.weights
    arrays = {f"model.{name}": value for name, value in weights.items()}
    save_checkpoint(path, arrays, {**source.metadata, "precision": precision})
