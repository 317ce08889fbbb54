"""Depthwise 3x3 convolution with padding 1, differentiable, by the fastest way of each device.

MLX's own depthwise convolution is a scalar loop on CPUs, forward and backward, and takes slow
routes on Metal for the input gradient at stride 2 and for the weight gradient. Each of the three
pieces therefore exists in several forms, and :data:`PIECES` says which device takes which:

    slices     nine shifted slices of the padded input times nine per-channel taps; the input
               gradient is the same with the kernel turned round, at stride 2 split into the four
               phases of the output's grid (no zeros are inserted); the weight gradient is a sum of
               products of slices and cotangent
    builtin    ``mx.conv2d`` and its derivatives
    metal      one thread a channel and strip of rows, nine sums in registers (weight gradient)

The CPU compiler of MLX vectorises a fused loop only if it reads at most ten arrays and writes to
none of them, hence the groups of five taps and the plain additions between groups.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import mlx.core as mx

from mlx_faceau.errors import UsageError

from .untraced import untraced

MOST_PAIRS = 5  # products of two arrays that one fused loop may sum

# forward(x, w, stride); input_grad(cotangent, w, stride, shape of x); weight_grad(cotangent, x,
# stride). x is (N, H, W, C), w (C, 3, 3, 1), cotangent (N, ceil(H / stride), ceil(W / stride), C).
Forward = Callable[[mx.array, mx.array, int], mx.array]
InputGrad = Callable[[mx.array, mx.array, int, tuple[int, ...]], mx.array]
WeightGrad = Callable[[mx.array, mx.array, int], mx.array]


@dataclass(frozen=True)
class Pieces:
    """The three parts of a differentiable convolution."""

    forward: Forward
    input_grad: InputGrad
    weight_grad: WeightGrad


def depthwise3x3(
    x: mx.array, w: mx.array, stride: int = 1, pieces: Pieces | None = None
) -> mx.array:
    """Convolve every channel with its own 3x3 kernel, padding 1.

    Args:
        x: (N, H, W, C).
        w: (C, 3, 3, 1), in any precision; it is rounded to that of x.
        stride: 1 or 2.
        pieces: how; None takes what suits MLX's default device.

    Returns:
        (N, ceil(H / stride), ceil(W / stride), C).

    Raises:
        ValueError: for another stride.
    """
    if stride not in (1, 2):
        raise UsageError(f"stride is {stride}, expected 1 or 2")
    return _differentiable(stride, pieces or PIECES[device_name()])(x, w)


def device_name() -> str:
    """``"cpu"``, ``"metal"`` or ``"cuda"``: where MLX computes by default."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


@cache
def _differentiable(stride: int, pieces: Pieces) -> Callable[[mx.array, mx.array], mx.array]:
    @mx.custom_function
    @untraced
    def convolve(x: mx.array, w: mx.array) -> mx.array:
        return pieces.forward(x, w.astype(x.dtype), stride)

    @convolve.vjp
    @untraced
    def gradients(
        primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array]:
        x, w = primals
        return (
            pieces.input_grad(cotangent, w.astype(x.dtype), stride, x.shape),
            pieces.weight_grad(cotangent, x, stride).astype(w.dtype),
        )

    return cast(Callable[[mx.array, mx.array], mx.array], convolve)


# Slices ------------------------------------------------------------------------------------------


def forward_slices(x: mx.array, w: mx.array, stride: int) -> mx.array:
    """The convolution as nine shifted slices of the input times nine taps."""
    return sum_of_products(_shifted(x, stride), _taps(w))


def input_grad_slices(
    cotangent: mx.array, w: mx.array, stride: int, shape: tuple[int, ...]
) -> mx.array:
    """The same with the kernel turned round; by phases of the output's grid at stride 2."""
    if stride == 1:
        return sum_of_products(_shifted(cotangent, 1), _taps(w)[::-1])
    return _input_grad_phases(cotangent, _taps(w))[:, : shape[1], : shape[2]]


def weight_grad_slices(cotangent: mx.array, x: mx.array, stride: int) -> mx.array:
    """Sums of products of the input's slices and the cotangent."""
    taps = [channel_dot(piece, cotangent) for piece in _shifted(x, stride)]
    return mx.stack(taps, axis=1).reshape(-1, 3, 3, 1)


def _shifted(x: mx.array, stride: int) -> list[mx.array]:
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


def _input_grad_phases(cotangent: mx.array, taps: Sequence[mx.array]) -> mx.array:
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
        return sum_of_products(views, [taps[3 * i + j] for i, _, j, _ in pairs])

    rows = [mx.concatenate([phase(row, 0), phase(row, 1)], axis=-1) for row in range(2)]
    both = [row.reshape(n, h, 1, 2 * w * c) for row in rows]
    return mx.concatenate(both, axis=2).reshape(n, 2 * h, 2 * w, c)


def sum_of_products(left: Sequence[mx.array], right: Sequence[mx.array]) -> mx.array:
    """``left[0] * right[0] + left[1] * right[1] + ...`` in few passes over memory."""
    groups = [
        _fused_sum(*left[start : start + MOST_PAIRS], *right[start : start + MOST_PAIRS])
        for start in range(0, len(left), MOST_PAIRS)
    ]
    total: mx.array = groups[0]
    for group in groups[1:]:
        total = total + group
    return total.astype(left[0].dtype)


def channel_dot(a: mx.array, b: mx.array) -> mx.array:
    """Sum of ``a * b`` over all but the last axis: (N, H, W, C) twice -> (C,) float32.

    Several images are multiplied and added in one fused loop, then summed image by image, which
    is faster and more accurate than one long sum.
    """
    return channel_sum(_fused_sum(*batch_parts(a), *batch_parts(b)))


def channel_sum(x: mx.array) -> mx.array:
    """Sum over all but the last axis, image by image: (N, H, W, C) -> (C,) float32."""
    if x.dtype != mx.float32:  # sums of whole feature maps would be rounded to its precision
        x = _fused_total(*batch_parts(x, 8))
    return x.sum((1, 2)).sum(0)


def batch_parts(x: mx.array, most: int = MOST_PAIRS) -> Iterator[mx.array]:
    """At most ``most`` equal parts of a batch."""
    count = next(k for k in range(most, 0, -1) if len(x) % k == 0)
    size = len(x) // count
    return (x[start : start + size] for start in range(0, len(x), size))


@mx.compile
def _fused_sum(*factors: mx.array) -> mx.array:
    """The sum of products, float32 whatever the factors' precision."""
    half, wide = len(factors) // 2, [factor.astype(mx.float32) for factor in factors]
    total = wide[0] * wide[half]
    for left, right in zip(wide[1:half], wide[half + 1 :], strict=True):
        total = total + left * right
    return total


@mx.compile
def _fused_total(*parts: mx.array) -> mx.array:
    total = parts[0].astype(mx.float32)
    for part in parts[1:]:
        total = total + part.astype(mx.float32)
    return total


# MLX's own ---------------------------------------------------------------------------------------


def forward_builtin(x: mx.array, w: mx.array, stride: int) -> mx.array:
    """MLX's convolution."""
    return mx.conv2d(x, w, stride=stride, padding=1, groups=x.shape[-1])


def input_grad_builtin(
    cotangent: mx.array, w: mx.array, stride: int, shape: tuple[int, ...]
) -> mx.array:
    """Its derivative; at stride 1 a convolution with the kernel turned round."""
    if stride == 1:  # the forward kernel is the fast one
        return forward_builtin(cotangent, w[:, ::-1, ::-1], 1)
    zeros = mx.zeros(shape, cotangent.dtype)
    return mx.vjp(lambda x: forward_builtin(x, w, stride), [zeros], [cotangent])[1][0]


def weight_grad_builtin(cotangent: mx.array, x: mx.array, stride: int) -> mx.array:
    """Its derivative."""
    zeros = mx.zeros((x.shape[-1], 3, 3, 1), x.dtype)
    return mx.vjp(lambda w: forward_builtin(x, w, stride), [zeros], [cotangent])[1][0]


def input_grad_mixed(
    cotangent: mx.array, w: mx.array, stride: int, shape: tuple[int, ...]
) -> mx.array:
    """The built-in convolution at stride 1, the four phases at stride 2."""
    piece = input_grad_builtin if stride == 1 else input_grad_slices
    return piece(cotangent, w, stride, shape)


# Metal -------------------------------------------------------------------------------------------

STRIP_ROWS = 8  # output rows of one thread

# In the subset that Metal and C++ share: the test suite compiles this very text on the host.
WEIGHT_GRAD_BODY = """
    const int channel = thread_position_in_grid.x;
    const int strip = thread_position_in_grid.y;
    const int image = thread_position_in_grid.z;
    const int height = x_shape[1], width = x_shape[2], channels = x_shape[3];
    const int rows = cotangent_shape[1], columns = cotangent_shape[2];
    const int strips = (rows + STRIP_ROWS - 1) / STRIP_ROWS;
    float sum[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    const int last = (strip + 1) * STRIP_ROWS < rows ? (strip + 1) * STRIP_ROWS : rows;
    for (int row = strip * STRIP_ROWS; row < last; ++row) {
        for (int column = 0; column < columns; ++column) {
            const int pixel = (image * rows + row) * columns + column;
            const float g = cotangent[pixel * channels + channel];
            for (int i = 0; i < 3; ++i) {
                const int y = row * STRIDE + i - 1;
                for (int j = 0; j < 3; ++j) {
                    const int z = column * STRIDE + j - 1;
                    const bool inside = y >= 0 && y < height && z >= 0 && z < width;
                    const int place = ((image * height + y) * width + z) * channels + channel;
                    sum[3 * i + j] += inside ? x[inside ? place : 0] * g : 0.0f;
                }
            }
        }
    }
    for (int tap = 0; tap < 9; ++tap) {
        partial[((image * strips + strip) * 9 + tap) * channels + channel] = sum[tap];
    }
"""


def weight_grad_metal(cotangent: mx.array, x: mx.array, stride: int) -> mx.array:
    """One thread a channel and strip of rows, then sums over strips and images."""
    n, rows, _, channels = cotangent.shape
    strips = -(-rows // STRIP_ROWS)
    (partial,) = _metal_kernel()(
        inputs=[x, cotangent],
        template=[("STRIDE", stride), ("STRIP_ROWS", STRIP_ROWS)],
        grid=(channels, strips, n),
        threadgroup=(min(channels, 256), 1, 1),
        output_shapes=[(n, strips * 9, channels)],
        output_dtypes=[mx.float32],
    )
    taps = partial.reshape(n, strips, 9, channels).sum(1).sum(0)
    return taps.T.reshape(channels, 3, 3, 1)


@cache
def _metal_kernel() -> Callable[..., list[mx.array]]:
    kernel = mx.fast.metal_kernel(
        name="depthwise3x3_weight_grad",
        input_names=["x", "cotangent"],
        output_names=["partial"],
        source=WEIGHT_GRAD_BODY,
    )
    return cast(Callable[..., list[mx.array]], kernel)


PIECES = {
    "cpu": Pieces(forward_slices, input_grad_slices, weight_grad_slices),
    "metal": Pieces(forward_builtin, input_grad_mixed, weight_grad_slices),
    "cuda": Pieces(forward_builtin, input_grad_builtin, weight_grad_builtin),
}
