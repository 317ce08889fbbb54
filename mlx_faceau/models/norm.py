"""BatchNorm with its activation, in training: batch moments, normalisation and their gradients.

Two forms with the same result. :func:`norm_activate` follows any convolution.
:func:`pointwise_norm_activate` contains a 1x1 convolution that widens: the moments of ``W x``
follow from the mean and covariance of the narrow ``x``, and its gradient needs the wide array
once instead of five times:

    with x centred, C = x'x / M:   var(W x) = diag(W C W')
    with S = du' x:   d gamma = diag(S W') / sigma,   dW = gamma / sigma (S - d gamma / sigma W C)

Reference:
    Ioffe and Szegedy, Batch Normalization, ICML 2015.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import mlx.core as mx

from mlx_faceau.core.architectures import BN_EPS

from .activations import activate_with_slope, backward, fused
from .depthwise import batch_parts, channel_sum
from .untraced import untraced

Normalised = tuple[mx.array, mx.array, mx.array]  # output, mean and population variance


def norm_activate(kind: str | None, z: mx.array, gamma: mx.array, beta: mx.array) -> Normalised:
    """``activation(BatchNorm(z))`` by the batch's own moments.

    Args:
        kind: the activation, see :func:`activations.activate`.
        z: (N, H, W, C).
        gamma: (C,) scale.
        beta: (C,) shift.

    Returns:
        (N, H, W, C) output, and the batch's mean and population variance, (C,) each.
    """
    output, mean, var = _norm_activate(kind)(z, gamma, beta)[:3]
    return output, mean, var


def pointwise_norm_activate(
    kind: str | None, x: mx.array, weight: mx.array, gamma: mx.array, beta: mx.array
) -> Normalised:
    """``activation(BatchNorm(x @ weight.T))``; cheap where the weight widens.

    Args:
        kind: the activation, see :func:`activations.activate`.
        x: (N, H, W, I).
        weight: (O, I).
        gamma: (O,) scale.
        beta: (O,) shift.

    Returns:
        (N, H, W, O) output, and mean and population variance before BatchNorm, (O,) each.
    """
    output, mean, var = _pointwise_norm_activate(kind)(x, weight, gamma, beta)[:3]
    return output, mean, var


@cache
def _norm_activate(kind: str | None) -> Callable[..., tuple[mx.array, ...]]:
    @mx.custom_function
    @untraced
    def forward(z: mx.array, gamma: mx.array, beta: mx.array) -> tuple[mx.array, ...]:
        count = z.size // z.shape[-1]
        mean = channel_sum(z) / count
        var = channel_sum(_squares(mean, *batch_parts(z))) / count
        scale = gamma * mx.rsqrt(var + BN_EPS)
        output, slope = activate_with_slope(kind, z, scale, beta - mean * scale)
        return (output, mean, var) if slope is None else (output, mean, var, slope)

    @forward.vjp
    @untraced
    def gradients(
        primals: tuple[mx.array, ...],
        cotangents: tuple[mx.array, ...],
        outputs: tuple[mx.array, ...],
    ) -> tuple[mx.array, ...]:
        z, gamma, _ = primals
        output, mean, var, *slope = outputs
        count = z.size // z.shape[-1]
        du = backward(kind, cotangents[0], output, slope[0] if slope else None)
        inverse = mx.rsqrt(var + BN_EPS)
        parts = (*batch_parts(z, 4), *batch_parts(du, 4))
        d_gamma = channel_sum(_centred_products(mean, *parts)) * inverse
        d_beta = channel_sum(du)
        scale = gamma * inverse
        tilt, lift = scale * inverse * d_gamma / count, scale * d_beta / count
        return fused(_input_gradient, du, z, mean, scale, tilt, lift), d_gamma, d_beta

    return cast(Callable[..., tuple[mx.array, ...]], forward)


@mx.compile
def _squares(mean: mx.array, *parts: mx.array) -> mx.array:
    total = mx.square(parts[0] - mean)
    for part in parts[1:]:
        total = total + mx.square(part - mean)
    return total


@mx.compile
def _centred_products(mean: mx.array, *parts: mx.array) -> mx.array:
    half = len(parts) // 2
    total = (parts[0] - mean) * parts[half]
    for z, du in zip(parts[1:half], parts[half + 1 :], strict=True):
        total = total + (z - mean) * du
    return total


@mx.compile
def _input_gradient(
    du: mx.array, z: mx.array, mean: mx.array, scale: mx.array, tilt: mx.array, lift: mx.array
) -> mx.array:
    return (du * scale - (z - mean) * tilt - lift).astype(z.dtype)


@cache
def _pointwise_norm_activate(kind: str | None) -> Callable[..., tuple[mx.array, ...]]:
    @mx.custom_function
    @untraced
    def forward(
        x: mx.array, weight: mx.array, gamma: mx.array, beta: mx.array
    ) -> tuple[mx.array, ...]:
        count = x.size // x.shape[-1]
        mean = channel_sum(x) / count
        centred = (x - mean).reshape(count, -1)
        covariance = centred.T @ centred / count
        var = mx.maximum(((weight @ covariance) * weight).sum(1), 0.0)
        scaled = weight * (gamma * mx.rsqrt(var + BN_EPS))[:, None]
        u = (centred @ scaled.T).reshape(*x.shape[:-1], -1)
        output, slope = activate_with_slope(kind, u, beta)
        results = (output, weight @ mean, var, covariance, centred)
        return results if slope is None else (*results, slope)

    @forward.vjp
    @untraced
    def gradients(
        primals: tuple[mx.array, ...],
        cotangents: tuple[mx.array, ...],
        outputs: tuple[mx.array, ...],
    ) -> tuple[mx.array, ...]:
        x, weight, gamma, _ = primals
        output, _, var, covariance, centred, *slope = outputs
        count = x.size // x.shape[-1]
        du4 = backward(kind, cotangents[0], output, slope[0] if slope else None)
        du, d_beta = du4.reshape(count, -1), channel_sum(du4)
        inverse = mx.rsqrt(var + BN_EPS)
        scale = gamma * inverse
        moments = du.T @ centred  # (O, I)
        d_gamma = (moments * weight).sum(1) * inverse
        tilt = (inverse * d_gamma)[:, None] * weight
        d_weight = scale[:, None] * (moments - tilt @ covariance)
        scaled = scale[:, None] * weight
        dx = du @ scaled - centred @ (tilt.T @ scaled / count) - d_beta @ scaled / count
        return dx.reshape(x.shape), d_weight, d_gamma, d_beta

    return cast(Callable[..., tuple[mx.array, ...]], forward)
