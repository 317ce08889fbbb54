"""Activations after a bias or a BatchNorm, in one pass over memory, with slopes for the gradient.

On CPUs MLX's sigmoid calls the exponential of one number after the other; here it is a rational
function that the compiler vectorises. An array that nobody reads later would be overwritten in
place by a fused loop, which the compiler then cannot vectorise: hence :func:`fused`.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx

from .depthwise import device_name

# sigmoid(x) - 1/2 = x P(x^2) / Q(x^2) for |x| <= 17: own least-squares fit, error 5e-9, with
# float32 rounding 2e-7. Lowest power first.
_NUMERATOR = (0.249999986, 0.00837887898, 5.50909304e-05, 8.25061411e-08, 1.37687915e-11)
_DENOMINATOR = (1.0, 0.116848794, 0.00162444605, 5.21201662e-06, 3.15375746e-09)
_REACH = 17.0


def fused(kernel: Callable[..., mx.array], *arrays: mx.array) -> mx.array:
    """Run a compiled function without letting it overwrite its arguments."""
    result: mx.array = mx.depends(kernel(*arrays), arrays)
    return result


def logistic(x: mx.array) -> mx.array:
    """The sigmoid: rational on CPUs (absolute error 3e-7), MLX's own elsewhere."""
    if device_name() != "cpu":
        return mx.sigmoid(x)
    bounded = mx.minimum(mx.maximum(x, -_REACH), _REACH)
    square = bounded * bounded
    return 0.5 + bounded * _horner(_NUMERATOR, square) / _horner(_DENOMINATOR, square)


def activate(kind: str | None, x: mx.array, *affine: mx.array) -> mx.array:
    """``activation(x * scale + shift)``.

    Args:
        kind: ``"relu6"``, ``"silu"`` or None.
        x: (..., C).
        affine: scale and shift (C,), or shift alone.
    """
    return fused(_ACTIVATE[kind], x, *affine)


def activate_with_slope(
    kind: str | None, x: mx.array, *affine: mx.array
) -> tuple[mx.array, mx.array | None]:
    """:func:`activate` and what :func:`backward` wants to know of it."""
    if kind != "silu":
        return activate(kind, x, *affine), None
    output, slope = mx.depends(_silu_with_slope(x, *affine), (x, *affine))
    return output, slope


def backward(
    kind: str | None, cotangent: mx.array, output: mx.array, slope: mx.array | None
) -> mx.array:
    """The cotangent before an activation, from the one after it and the activation's results."""
    if kind == "relu6":
        return fused(_relu6_backward, cotangent, output)
    return cotangent if slope is None else cotangent * slope


def _horner(coefficients: Sequence[float], x: mx.array) -> mx.array:
    total = mx.array(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def _affine(x: mx.array, *terms: mx.array) -> mx.array:
    *scale, shift = terms
    return x * scale[0] + shift if scale else x + shift


@mx.compile
def _relu6(x: mx.array, *affine: mx.array) -> mx.array:
    return mx.minimum(mx.maximum(_affine(x, *affine), 0.0), 6.0)


@mx.compile
def _relu6_backward(cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * ((output > 0.0) & (output < 6.0))


@mx.compile
def _silu(x: mx.array, *affine: mx.array) -> mx.array:
    x = _affine(x, *affine)
    return x * logistic(x)


@mx.compile
def _silu_with_slope(x: mx.array, *affine: mx.array) -> tuple[mx.array, mx.array]:
    x = _affine(x, *affine)
    gate = logistic(x)
    output = x * gate
    return output, gate + output * (1.0 - gate)


@mx.compile
def _identity(x: mx.array, *affine: mx.array) -> mx.array:
    return _affine(x, *affine)


_ACTIVATE = {"relu6": _relu6, "silu": _silu, None: _identity}
