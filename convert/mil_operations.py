"""The Core ML operations that our exports consist of, in torch, under their MIL names.

Each function takes the operation's inputs by MIL's parameter names and computes in float32; the
caller rounds to the declared type. What an operation does not accept raises ``ValueError``.

Reference:
    Apple, coremltools, MIL ops of iOS 15 (apple.github.io/coremltools).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

Tensor = torch.Tensor
# Floats are tensors; whole numbers, truth values and texts are Python's, alone or in lists.
Value = Tensor | int | bool | str | list[int] | list[bool] | list[str]


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad_type: str,
    pad: list[int],
    strides: list[int],
    dilations: list[int],
    groups: int,
) -> Tensor:
    """2-d convolution; ``pad`` is (top, bottom, left, right)."""
    kernel = weight.shape[2:]
    if pad_type not in ("custom", "valid") or (pad_type == "valid" and any(pad)):
        raise ValueError(f"pad_type {pad_type!r} with pad {pad}")
    top, bottom, left, right = pad
    if (top, left) != (bottom, right) or not (0 <= top <= kernel[0] and 0 <= left <= kernel[1]):
        raise ValueError(f"pad {pad} of a {tuple(kernel)} kernel")
    return F.conv2d(x, weight, bias, strides, (top, left), dilations, groups)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def reduce_mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.mean(axes, keepdim=keep_dims)


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape(shape)


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
) -> Tensor:
    """A slice of every axis; a mask's True means from the start, or to the end."""
    open_begin, open_end = begin_mask or [False] * x.ndim, end_mask or [False] * x.ndim
    if {len(part) for part in (begin, end, open_begin, open_end)} != {x.ndim}:
        raise ValueError(f"begin {begin} and end {end} of {x.ndim} axes")
    return x[
        tuple(
            slice(None if no_begin else first, None if no_end else last)
            for first, last, no_begin, no_end in zip(begin, end, open_begin, open_end, strict=True)
        )
    ]


def concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    if interleave:
        raise ValueError("interleaved")
    return torch.cat(values, axis)


def log(x: Tensor, epsilon: Tensor) -> Tensor:
    return torch.log(x + epsilon)


def cast(x: Tensor, dtype: str) -> Tensor:
    """The caller rounds; here the type is only checked."""
    if dtype not in CAST_DTYPES:
        raise ValueError(f"to {dtype!r}")
    return x


def dequantise(data: Tensor, scale: Tensor, zero: Tensor, axis: int, output: Any) -> Tensor:
    """``constexpr_affine_dequantize``: (data - zero) * scale along one axis, as declared.

    Raises:
        ValueError: if the parts do not fit each other or the declared result.
    """
    if (data.dtype, zero.dtype) != (torch.int8, torch.int8) or not scale.dtype.is_floating_point:
        raise ValueError(f"{data.dtype} data, {zero.dtype} zero point, {scale.dtype} scale")
    if tuple(data.shape) != output.shape or str(scale.dtype) != f"torch.{output.dtype}":
        raise ValueError(f"{tuple(data.shape)} {scale.dtype}, declared {output.shape}")
    along = [1] * data.ndim
    along[axis] = -1
    steps, middle = scale.float(), zero.float()
    if steps.ndim:
        steps = steps.reshape(along)
    if middle.ndim:
        middle = middle.reshape(along)
    values = (data.float() - middle) * steps
    if values.shape != data.shape:
        raise ValueError(f"scales of shape {tuple(scale.shape)} on axis {axis}")
    return values.to(scale.dtype)


CAST_DTYPES = {"fp16": "float16", "fp32": "float32"}

OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "linear": linear,
    "reduce_mean": reduce_mean,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "concat": concat,
    "cast": cast,
    "log": log,
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "abs": lambda x: x.abs(),
    "exp": lambda x: x.exp(),
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "relu": lambda x: F.relu(x),
    "relu6": lambda x: F.relu6(x),
    "silu": lambda x: F.silu(x),
}
