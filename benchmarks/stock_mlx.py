"""Both networks as one would write them in MLX at first: nn.Conv2d, nn.BatchNorm, nn.silu.

The yardstick of the MLX benchmarks: same tables, same attribute names, same weights, none of the
package's own kernels, and (in a worker with MLX_FACEAU_BLAS=off) the BLAS that MLX ships with.
"""

import math
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_faceau.core.architectures import BN_EPS, BN_MOMENTUM, Block, ModelConfig, initial_weights


class ConvNorm(nn.Module):
    def __init__(
        self,
        fan_in: int,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(
            fan_in, out, kernel, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm(out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self._activation = {"relu6": nn.relu6, "silu": nn.silu, None: lambda x: x}[activation]

    def __call__(self, x: mx.array) -> mx.array:
        return self._activation(self.norm(self.conv(x)))


class Squeeze(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        pooled = x.mean(axis=(1, 2), keepdims=True)
        return x * mx.sigmoid(self.excite(nn.relu(self.reduce(pooled))))


class InvertedResidual(nn.Module):
    def __init__(self, block: Block, activation: str) -> None:
        super().__init__()
        hidden = block.hidden
        if block.expand:
            self.expand = ConvNorm(block.in_channels, hidden, 1, activation=activation)
        self.depthwise = ConvNorm(
            hidden, hidden, 3, block.stride, groups=hidden, activation=activation
        )
        if block.squeeze:
            self.squeeze = Squeeze(hidden, block.squeeze)
        self.project = ConvNorm(hidden, block.out_channels, 1)
        self._block = block

    def __call__(self, x: mx.array) -> mx.array:
        y = self.expand(x) if self._block.expand else x
        y = self.depthwise(y)
        y = self.squeeze(y) if self._block.squeeze else y
        y = self.project(y)
        return x + y if self._block.residual else y


class Backbone(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, table = config.width_mult, config.backbone
        blocks = list(table.blocks(width))
        self.stem = ConvNorm(3, table.stem_channels(width), 3, 2, activation=table.activation)
        self.blocks = [InvertedResidual(block, table.activation) for block in blocks]
        out = blocks[-1].out_channels
        self.head = ConvNorm(out, table.head_channels(width), 1, activation=table.activation)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(axis=(1, 2))


class Head(nn.Module):
    def __init__(self, widths: tuple[int, ...], dropouts: tuple[float, ...]) -> None:
        super().__init__()
        self.layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self._dropouts = [nn.Dropout(rate) for rate in dropouts]

    def __call__(self, x: mx.array) -> mx.array:
        for layer, dropout in zip(self.layers, self._dropouts, strict=False):
            x = dropout(nn.relu(layer(x)))
        return self.layers[-1](x)


class StockNet(nn.Module):
    """Either network; predictions as a dict, like the package's own."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        features = config.backbone.head_channels(config.width_mult)
        for head in config.heads:
            widths = (features, *head.hidden, head.outputs)
            setattr(self, head.name, Head(widths, head.dropouts))
        self._config = config
        self.load_weights_dict(initial_weights(config, seed))

    def load_weights_dict(self, weights: dict[str, np.ndarray]) -> None:
        self.load_weights([(name, mx.array(array)) for name, array in weights.items()])

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        features = self.backbone(images)
        return {
            head.output: self._activate(head.output, self[head.name](features))
            for head in self._config.heads
        }

    def _activate(self, output: str, x: mx.array) -> mx.array:
        if output == "landmarks":
            return mx.sigmoid(x).reshape(len(x), -1, 2) * self._config.image_size
        if output == "global_params":
            scale = nn.softplus(x[:, :1]) + 0.1
            return mx.concatenate([scale, mx.tanh(x[:, 1:4]) * (math.pi / 2), x[:, 4:] * 100], 1)
        return nn.relu(x) if output == "au_intensities" else x
