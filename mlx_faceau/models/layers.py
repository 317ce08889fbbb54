"""The pieces both MLX nets are made of: convolution + BatchNorm, residual block, linear head.

Attribute names are those of ``architectures.weight_shapes``; arrays are NHWC. Weights are float32;
feature maps have the precision of the image, in which convolutions are computed. In a folded net a
convolution has a bias and no norm.

On CPUs, where MLX computes sigmoid and SiLU with a slow scalar exponential, a rational function of
the bounded argument is used instead. MLX's CPU compiler vectorises a fused loop only if it does not
branch: bounds are selections, in a loop of their own.

References:
    Sandler et al., MobileNetV2, CVPR 2018 (inverted residual). Hu et al., Squeeze-and-Excitation
    Networks, CVPR 2018. Ioffe and Szegedy, Batch Normalization, ICML 2015.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self, cast

import mlx.core as mx
from mlx import nn

from mlx_faceau.core import architectures
from mlx_faceau.core.architectures import BN_EPS, BN_MOMENTUM

from .depthwise import depthwise3x3, device_name
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
STATISTICS = ["running_mean", "running_var"]


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


class Layer(nn.Module):
    """A module whose BatchNorm statistics stay untrained, whatever is unfrozen."""

    def unfreeze(self, **options: Any) -> Self:
        """As MLX's, the statistics left out."""
        super().unfreeze(**options)
        self.apply_to_modules(lambda _, module: module.freeze(recurse=False, keys=STATISTICS))
        return self


class Weighted(Layer):
    """The weight and, unless left out, bias of a convolution or a linear layer."""

    def __init__(self, shape: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.weight = mx.zeros(shape)
        if bias:
            self.bias = mx.zeros(shape[:1])

    def project(self, x: mx.array) -> mx.array:
        """``x @ weight.T + bias``, the weight taken as (O, I)."""
        return mx.addmm(self.bias, x, _matrix(self.weight).T)


class Norm(Layer):
    """BatchNorm's scale and shift, and the running statistics that are never trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = mx.ones(channels)
        self.bias = mx.zeros(channels)
        self.running_mean = mx.zeros(channels)
        self.running_var = mx.ones(channels)
        self.freeze(keys=STATISTICS)

    def by_batch(self, z: mx.array) -> mx.array:
        """(N, H, W, C) normalised by its own moments, which move the running statistics."""
        wide = z.astype(mx.float32)
        mean = wide.mean((1, 2)).mean(0)  # image by image: short float32 sums lose less
        var = mx.square(wide - mean).mean((1, 2)).mean(0)
        count = z.size // z.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for name, value in zip(STATISTICS, (mean, unbiased), strict=True):
            moved = (1 - BN_MOMENTUM) * self[name] + BN_MOMENTUM * value
            self[name] = mx.stop_gradient(moved)
        scale = self.weight * mx.rsqrt(var + BN_EPS)
        return (wide * scale + (self.bias - mean * scale)).astype(z.dtype)


class ConvNorm(Layer):
    """Convolution of kernel 1, or 3 with padding 1; BatchNorm and, unless None, an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        activation: str | None,
        stride: int = 1,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        fan_in = 1 if depthwise else in_channels
        self.conv = Weighted((out_channels, kernel, kernel, fan_in), bias=False)
        self.norm = Norm(out_channels)
        self._activation = activation
        self._stride = stride
        self._depthwise = depthwise

    def __call__(self, x: mx.array) -> mx.array:
        if "norm" in self and self.norm.training:
            return activate(
                self._activation, self.norm.by_batch(self._convolve(x, self.conv.weight))
            )
        weight, bias = self.folded()
        return activate(self._activation, self._convolve(x, weight) + bias.astype(x.dtype))

    def fold(self) -> None:
        """Make an evaluating BatchNorm part of the convolution, for good."""
        self.conv.weight, self.conv.bias = self.folded()
        del self.norm

    def folded(self) -> tuple[mx.array, mx.array]:
        """Weight and bias of the convolution that includes an evaluating BatchNorm."""
        if "norm" not in self:
            return self.conv.weight, self.conv.bias
        norm = self.norm
        scale = norm.weight * mx.rsqrt(norm.running_var + BN_EPS)
        weight = self.conv.weight * scale.reshape(-1, 1, 1, 1)
        return weight, norm.bias - norm.running_mean * scale

    def _convolve(self, x: mx.array, weight: mx.array) -> mx.array:
        if self._depthwise:
            return depthwise3x3(x, weight, self._stride)
        patches = x if weight.shape[1] == 1 else _patches3x3(x, self._stride)
        return patches @ _matrix(weight.astype(x.dtype)).T


class SqueezeExcite(Layer):
    """Gates each channel by a function of all channels' means."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.reduce = Weighted((squeeze, 1, 1, channels))
        self.excite = Weighted((channels, 1, 1, squeeze))

    def __call__(self, x: mx.array) -> mx.array:
        means = x.mean((1, 2)).astype(mx.float32)  # (N, channels)
        gate = sigmoid(self.excite.project(nn.relu(self.reduce.project(means))))
        return x * gate.astype(x.dtype)[:, None, None, :]


class InvertedResidual(Layer):
    """[expand 1x1] -> depthwise 3x3 -> [squeeze and excite] -> project 1x1 [+ input]."""

    def __init__(self, block: architectures.Block, activation: str) -> None:
        super().__init__()
        hidden = block.hidden
        if block.expand:
            self.expand = ConvNorm(block.in_channels, hidden, 1, activation)
        self.depthwise = ConvNorm(hidden, hidden, 3, activation, block.stride, depthwise=True)
        if block.squeeze:
            self.squeeze = SqueezeExcite(hidden, block.squeeze)
        self.project = ConvNorm(hidden, block.out_channels, 1, None)
        self._residual = block.residual

    def __call__(self, x: mx.array) -> mx.array:
        hidden = self.expand(x) if "expand" in self else x
        hidden = self.depthwise(hidden)
        if "squeeze" in self:
            hidden = self.squeeze(hidden)
        output = self.project(hidden)
        return x + output if self._residual else output


class LinearHead(Layer):
    """Linear layers with ReLU, then dropout, between; the last one's output is left as it is."""

    def __init__(self, features: int, head: architectures.Head) -> None:
        super().__init__()
        widths = (head.inputs or features, *head.hidden, head.outputs)
        self.layers = [Weighted((o, i)) for i, o in pairwise(widths)]
        self.dropouts = [nn.Dropout(p) for p in head.dropouts]

    def __call__(self, x: mx.array) -> mx.array:
        for layer, dropout in zip(self.layers, self.dropouts, strict=False):
            x = dropout(nn.relu(layer.project(x)))
        return self.layers[-1].project(x)  # (N, outputs)


def _matrix(weight: mx.array) -> mx.array:
    """(O, kh, kw, I) -> (O, kh * kw * I)."""
    return weight.reshape(len(weight), -1)


def _patches3x3(x: mx.array, stride: int) -> mx.array:
    """The 3x3 neighbourhoods of a 3x3 convolution with padding 1, (N, H', W', 9 C)."""
    n, height, width, c = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padded = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    line = (width + 2) * c
    shape = (n, rows, columns, 3, 3 * c)  # three pixels side by side are contiguous
    strides = ((height + 2) * line, stride * line, stride * c, line, 1)
    return mx.as_strided(padded, shape, strides).reshape(n, rows, columns, 9 * c)
