"""Sigmoid and SiLU, which MLX computes with a slow scalar exponential on CPUs.

There a rational function of the bounded argument is used instead. MLX's CPU compiler vectorises a
fused loop only if it does not branch: bounds are selections, in a loop of their own.
"""

from typing import cast

import mlx.core as mx

from .depthwise import device_name
from .mlx_thread import outside_tracing

# sigmoid(x) - 1/2 = x P(x^2) / Q(x^2) for |x| <= 17: own least-squares fit, error 1.1e-7, with
# float32 rounding 2.6e-7. Lowest power first.
_NUMERATOR = (
    0.2499997317790985,
    0.008042225614190102,
    4.515554246609099e-05,
    4.2171784286892944e-08,
)
_DENOMINATOR = (
    1.0,
    0.11550130695104599,
    0.0014726400841027498,
    3.5968971587863052e-06,
    8.837212073231626e-10,
)
_REACH = 17.0


def sigmoid(x: mx.array) -> mx.array:
    """The sigmoid; on CPUs with an absolute error of 3e-7."""
    return _rational_sigmoid(_bounded(x)) if device_name() == "cpu" else mx.sigmoid(x)


def activate(kind: str | None, x: mx.array) -> mx.array:
    """ReLU6 (``"relu6"``), SiLU (``"silu"``) or nothing (None), element by element."""
    if kind == "relu6":
        return mx.clip(x, 0.0, 6.0)
    if kind == "silu":
        return cast(mx.array, _rational_silu(x)) if device_name() == "cpu" else x * mx.sigmoid(x)
    return x


@mx.custom_function
@outside_tracing
def _rational_silu(x: mx.array) -> mx.array:
    # A fused loop must not overwrite an argument that it reads.
    bounded = _bounded(x)
    return mx.depends(_fused_silu(bounded, x), (bounded, x))


@_rational_silu.vjp
@outside_tracing
def _rational_silu_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    bounded = _bounded(x)
    return mx.depends(_fused_silu_vjp(bounded, cotangent), (bounded, cotangent))


@mx.compile
def _fused_silu(bounded: mx.array, x: mx.array) -> mx.array:
    # What lies beyond the bounds meets the gate twice: at the lower bound the gate is off by 3e-7,
    # which of x = -400 would leave 1e-4.
    gate = _rational(bounded)
    return (gate * (bounded + (x - bounded) * gate)).astype(x.dtype)


@mx.compile
def _fused_silu_vjp(bounded: mx.array, cotangent: mx.array) -> mx.array:
    gate = _rational(bounded)
    return (cotangent * (gate + bounded * gate * (1.0 - gate))).astype(cotangent.dtype)


@mx.compile
def _bounded(x: mx.array) -> mx.array:
    return mx.where(x > _REACH, _REACH, mx.where(x < -_REACH, -_REACH, x)).astype(mx.float32)


@mx.compile
def _rational_sigmoid(bounded: mx.array) -> mx.array:
    return _rational(bounded)


def _rational(bounded: mx.array) -> mx.array:
    """The sigmoid of |x| <= 17; summed in pairs, as MLX splits expressions deeper than 11."""
    p, q, square = _NUMERATOR, _DENOMINATOR, bounded * bounded
    fourth = square * square
    above = (p[0] + p[1] * square) + fourth * (p[2] + p[3] * square)
    below = (q[0] + q[1] * square) + fourth * ((q[2] + q[3] * square) + q[4] * fourth)
    return 0.5 + bounded * above / below
