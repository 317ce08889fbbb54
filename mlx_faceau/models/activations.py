"""Activations after a bias or a BatchNorm in few passes over memory, with slopes for the gradient.

What the CPU compiler of MLX makes of a fused loop decides its speed by a factor of five, and it
gives up vectorising where a loop branches. Three rules follow, and shape this file:

* MLX's exponential is scalar, so the sigmoid is a rational function of the bounded argument;
* bounds are selections between values that are there already, in a loop of their own;
* a loop must not write to what it reads, see :func:`fused`.

Scales and shifts are float32; results have the precision of what is activated, rounded at the end.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from .depthwise import device_name

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


def fused(kernel: Callable[..., Any], *arrays: mx.array) -> Any:
    """Run a compiled function without letting it overwrite arguments that nobody reads later."""
    return mx.depends(kernel(*arrays), arrays)


def logistic(x: mx.array) -> mx.array:
    """The sigmoid: rational on CPUs (absolute error 3e-7), MLX's own elsewhere."""
    return _rational(_bounded(x)) if device_name() == "cpu" else mx.sigmoid(x)


def activate(kind: str | None, x: mx.array, *affine: mx.array) -> mx.array:
    """``activation(x * scale + shift)``.

    Args:
        kind: ``"relu6"``, ``"silu"`` or None.
        x: (..., C).
        affine: scale and shift (C,), or shift alone.
    """
    if kind == "relu6":
        return fused(_relu6, x, *affine)
    if kind is None:
        return _affine(x, *affine).astype(x.dtype)
    if device_name() == "cpu":
        return fused(_rational_silu, _bounded(x, *affine), x, *affine)
    return _silu(x, *affine)


def activate_with_slope(
    kind: str | None, x: mx.array, *affine: mx.array
) -> tuple[mx.array, mx.array | None]:
    """:func:`activate` and what :func:`backward` wants to know of it."""
    if kind != "silu":
        return activate(kind, x, *affine), None
    if device_name() == "cpu":
        output, slope = fused(_rational_silu_slope, _bounded(x, *affine), x, *affine)
    else:
        output, slope = _silu_slope(x, *affine)
    return output, slope


def backward(
    kind: str | None, cotangent: mx.array, output: mx.array, slope: mx.array | None
) -> mx.array:
    """The cotangent before an activation, from the one after it and the activation's results."""
    if kind == "relu6":
        return fused(_relu6_backward, cotangent, output)
    return cotangent if slope is None else cotangent * slope


def _affine(x: mx.array, *terms: mx.array) -> mx.array:
    if not terms:
        return x
    *scale, shift = terms
    return x * scale[0] + shift if scale else x + shift


def _sigmoid(bounded: mx.array) -> mx.array:
    """The rational function; summed in pairs, as MLX splits expressions deeper than 11."""
    p, q, square = _NUMERATOR, _DENOMINATOR, bounded * bounded
    fourth = square * square
    above = (p[0] + p[1] * square) + fourth * (p[2] + p[3] * square)
    below = (q[0] + q[1] * square) + fourth * ((q[2] + q[3] * square) + q[4] * fourth)
    return 0.5 + bounded * above / below


@mx.compile
def _relu6(x: mx.array, *affine: mx.array) -> mx.array:
    u = _affine(x, *affine)
    return mx.where(u > 6.0, 6.0, mx.where(u < 0.0, 0.0, u)).astype(x.dtype)


@mx.compile
def _relu6_backward(cotangent: mx.array, output: mx.array) -> mx.array:
    return mx.where((output > 0.0) & (output < 6.0), cotangent, 0.0)


@mx.compile
def _bounded(x: mx.array, *affine: mx.array) -> mx.array:
    x = _affine(x, *affine)
    return mx.where(x > _REACH, _REACH, mx.where(x < -_REACH, -_REACH, x))


@mx.compile
def _rational(bounded: mx.array) -> mx.array:
    return _sigmoid(bounded)


def _gated(bounded: mx.array, u: mx.array, gate: mx.array) -> mx.array:
    """``u * gate``, but what lies beyond the bounds meets the gate twice.

    At the lower bound the gate is nearly 0, off by 3e-7: of u = -400 it would leave 1e-4.
    """
    return gate * (bounded + (u - bounded) * gate)


@mx.compile
def _rational_silu(bounded: mx.array, x: mx.array, *affine: mx.array) -> mx.array:
    return _gated(bounded, _affine(x, *affine), _sigmoid(bounded)).astype(x.dtype)


@mx.compile
def _rational_silu_slope(
    bounded: mx.array, x: mx.array, *affine: mx.array
) -> tuple[mx.array, mx.array]:
    gate = _sigmoid(bounded)
    output = _gated(bounded, _affine(x, *affine), gate)
    return output.astype(x.dtype), (gate + (bounded * gate) * (1.0 - gate)).astype(x.dtype)


@mx.compile
def _silu(x: mx.array, *affine: mx.array) -> mx.array:
    u = _affine(x, *affine)
    return (u * mx.sigmoid(u)).astype(x.dtype)


@mx.compile
def _silu_slope(x: mx.array, *affine: mx.array) -> tuple[mx.array, mx.array]:
    u = _affine(x, *affine)
    gate = mx.sigmoid(u)
    output = u * gate
    return output.astype(x.dtype), (gate + output * (1.0 - gate)).astype(x.dtype)
