"""The Core ML operations that our exports consist of, in torch, under their MIL names.

Each function takes the operation's inputs by MIL's parameter names and computes in float32; the
caller rounds to the declared type. coremltools has checked shapes and types before.

Reference:
    Apple, coremltools, MIL ops of iOS 15 (apple.github.io/coremltools).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from mlx_faceau.errors import UsageError

Tensor = torch.Tensor


def conv(
    x: Tensor,
    weight: Tensor,
    pad_type: str,
    pad: list[int],
    strides: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    """2-d convolution; ``pad`` is (top, bottom, left, right), symmetric in all our exports."""
    top, bottom, left, right = pad
    if pad_type not in ("custom", "valid") or (top, left) != (bottom, right):
        raise UsageError(f"conv of pad_type {pad_type!r} with pad {pad} is not supported")
    padding = (top, left) if pad_type == "custom" else 0
    return F.conv2d(x, weight, bias, strides, padding, dilations, groups)


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    **defaults: Any,
) -> Tensor:
    """A slice of every axis; a mask's True means from the start, or to the end."""
    none = [False] * x.ndim
    bounds = zip(begin, end, begin_mask or none, end_mask or none, strict=True)
    return x[tuple(slice(None if s else b, None if t else e) for b, e, s, t in bounds)]


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keepdim=keep_dims),
    "reshape": lambda x, shape: x.reshape(shape),
    "slice_by_index": slice_by_index,
    "concat": lambda values, axis, interleave: torch.cat(values, axis),
    "cast": lambda x, dtype: x,  # the caller rounds
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "abs": lambda x: torch.abs(x),
    "exp": lambda x: torch.exp(x),
    "tanh": lambda x: torch.tanh(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "relu": lambda x: torch.relu(x),
    "relu6": lambda x: F.relu6(x),
    "silu": lambda x: F.silu(x),
}
