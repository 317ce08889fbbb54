"""Depthwise 3x3 convolution with padding 1.

On GPUs this is ``mx.conv2d``. On CPUs MLX's depthwise convolution and its derivatives are scalar
loops, four to seven times slower than sums of nine shifted slices of the padded input times nine
per-channel taps, which are used there. The input gradient is the same sum with the kernel rotated;
at stride 2 it is split into the four phases of the output's grid, without inserted zeros.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import mlx.core as mx

from .mlx_thread import outside_tracing

# MLX's CPU compiler vectorises a fused loop only if it reads at most ten arrays.
_MOST_PAIRS = 5


def depthwise3x3(x: mx.array, w: mx.array, stride: int = 1) -> mx.array:
    """Convolve every channel of (N, H, W, C) with its own kernel of w (C, 3, 3, 1).

    The stride is 1 or 2: the result is (N, ceil(H / stride), ceil(W / stride), C), in the precision
    of x, to which w is rounded.
    """
    if device_name() == "cpu":
        return by_slices(stride)(x, w)
    return mx.conv2d(x, w.astype(x.dtype), stride=stride, padding=1, groups=x.shape[-1])


def device_name() -> str:
    """``"cpu"``, ``"metal"`` or ``"cuda"``: where MLX computes by default."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


@cache
def by_slices(stride: int) -> Callable[[mx.array, mx.array], mx.array]:
    """The convolution of a stride as a sum of slices, with its derivatives."""

    @mx.custom_function
    @outside_tracing
    def convolve(x: mx.array, w: mx.array) -> mx.array:
        return _sum_of_products(_slices(x, stride), _taps(w.astype(x.dtype)))

    @convolve.vjp
    @outside_tracing
    def gradients(
        primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array]:
        x, w = primals
        taps = _taps(w.astype(x.dtype))
        if stride == 1:
            dx = _sum_of_products(_slices(cotangent, 1), taps[::-1])
        else:
            dx = _input_gradient_phases(cotangent, taps)[:, : x.shape[1], : x.shape[2]]
        dw = [_channel_dot(piece, cotangent) for piece in _slices(x, stride)]
        return dx, mx.stack(dw, axis=1).reshape(-1, 3, 3, 1).astype(w.dtype)

    return cast(Callable[[mx.array, mx.array], mx.array], convolve)


def _slices(x: mx.array, stride: int) -> list[mx.array]:
    """The nine views of the padded input that the kernel's taps see, row by row."""
    height, width = x.shape[1:3]
    padded = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return [
        padded[:, i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]


def _taps(w: mx.array) -> list[mx.array]:
    """The nine kernel entries, each (1, C)."""
    return list(mx.split(mx.contiguous(w.reshape(-1, 9).T), 9))


def _input_gradient_phases(cotangent: mx.array, taps: Sequence[mx.array]) -> mx.array:
    """Input gradient at stride 2, (N, 2h, 2w, C), from a cotangent (N, h, w, C).

    Padded row 2r + i meets tap row i of output row r: even input rows see the middle tap row
    only, odd ones the last of output row r and the first of output row r + 1.
    """
    n, h, w, c = cotangent.shape
    padded = mx.pad(cotangent, [(0, 0), (0, 1), (0, 1), (0, 0)])
    reach = (((1, 0),), ((2, 0), (0, 1)))  # by parity: (tap row or column, shift of the output)

    def phase(row: int, column: int) -> mx.array:
        pairs = [(i, di, j, dj) for i, di in reach[row] for j, dj in reach[column]]
        views = [padded[:, di : di + h, dj : dj + w] for _, di, _, dj in pairs]
        return _sum_of_products(views, [taps[3 * i + j] for i, _, j, _ in pairs])

    rows = [mx.concatenate([phase(row, 0), phase(row, 1)], axis=-1) for row in range(2)]
    both = [row.reshape(n, h, 1, 2 * w * c) for row in rows]
    return mx.concatenate(both, axis=2).reshape(n, 2 * h, 2 * w, c)


def _sum_of_products(left: Sequence[mx.array], right: Sequence[mx.array]) -> mx.array:
    """``left[0] * right[0] + left[1] * right[1] + ...`` in few passes over memory."""
    groups = [
        _fused_sum(*left[start : start + _MOST_PAIRS], *right[start : start + _MOST_PAIRS])
        for start in range(0, len(left), _MOST_PAIRS)
    ]
    total: mx.array = groups[0]
    for group in groups[1:]:
        total = total + group
    return total.astype(left[0].dtype)


def _channel_dot(a: mx.array, b: mx.array) -> mx.array:
    """Sum of ``a * b`` over all but the last axis: (N, H, W, C) twice -> (C,) float32.

    Several images are multiplied and added in one fused loop, then summed image by image, which
    is faster and more accurate than one long sum.
    """
    parts = next(k for k in range(_MOST_PAIRS, 0, -1) if len(a) % k == 0)
    return _fused_sum(*mx.split(a, parts), *mx.split(b, parts)).sum((1, 2)).sum(0)


@mx.compile
def _fused_sum(*factors: mx.array) -> mx.array:
    """The sum of products, float32 whatever the factors' precision."""
    half, wide = len(factors) // 2, [factor.astype(mx.float32) for factor in factors]
    total = wide[0] * wide[half]
    for left, right in zip(wide[1:half], wide[half + 1 :], strict=True):
        total = total + left * right
    return total
