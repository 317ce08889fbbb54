"""What both torch nets share: a backbone built from its settings table, heads, and weights."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import nn

from mlx_faceau.core import architectures
from mlx_faceau.core.architectures import ModelConfig, initial_weights
from mlx_faceau.core.checkpoint import check_weights

from .layers import ACTIVATIONS, ConvNorm, InvertedResidual, LinearHead
from .weight_layout import state_dict_from_weights, weights_from_state_dict


class Backbone(nn.Module):
    """Image to features: stem, inverted residual blocks, 1x1 convolution, average pool."""

    def __init__(self, table: architectures.Backbone, width_mult: float) -> None:
        super().__init__()
        activation = ACTIVATIONS[table.activation]
        blocks = list(table.blocks(width_mult))
        self.stem = ConvNorm(3, blocks[0].in_channels, 3, activation, stride=2)
        self.blocks = nn.ModuleList(InvertedResidual(block, activation) for block in blocks)
        features = table.head_channels(width_mult)
        self.head = ConvNorm(blocks[-1].out_channels, features, 1, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)  # (N, stem, 56, 56)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean((2, 3))  # (N, features)


class FaceNet(nn.Module):
    """A backbone and the linear heads of a configuration, with weights drawn from torch's seed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.width_mult)
        features = config.backbone.head_channels(config.width_mult)
        for head in config.heads:
            self.add_module(head.name, LinearHead(features, head))
        seed = int(torch.randint(2**31 - 1, ()))
        self.load_weights_dict(initial_weights(config, seed))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name of images (N, 3, 112, 112), RGB in [0, 1]; see :meth:`heads`."""
        return self.heads(self.backbone(images))

    def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name of the backbone's features (N, channels)."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """A new net of these settings, which must be of this class's kind."""
        net = cls.__new__(cls)
        FaceNet.__init__(net, config)
        return net

    def to_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights and BatchNorm statistics, float32, in MLX names and layout."""
        weights = weights_from_state_dict(self.state_dict())
        return {name: value.astype(np.float32, copy=False) for name, value in weights.items()}

    def load_weights_dict(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over all weights and BatchNorm statistics.

        Args:
            weights: arrays in MLX names and layout, exactly those of ``weight_shapes``.

        Raises:
            CheckpointError: naming every missing, extra and misshapen array.
        """
        check_weights(self.config, weights, "weights")
        # Not strict: BatchNorm's batch counters are no weights; all else has just been checked.
        self.load_state_dict(state_dict_from_weights(weights), strict=False)
