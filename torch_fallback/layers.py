"""The pieces both torch nets are made of: convolution + BatchNorm, residual block, linear head.

Attribute names are those of ``architectures.weight_shapes``; tensors are NCHW.

References:
    Sandler et al., MobileNetV2, CVPR 2018 (inverted residual). Hu et al., Squeeze-and-Excitation
    Networks, CVPR 2018.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from mlx_faceau.core import architectures
from mlx_faceau.core.architectures import BN_EPS, BN_MOMENTUM

from .device import MEMORY_FORMAT

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {"relu6": F.relu6, "silu": F.silu}


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm and, unless None, an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        activation: Activation | None,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self._convolve(x))
        return x if self.activation is None else self.activation(x)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution, on a CPU in bfloat16 by the way whose gradient is fast there.

        oneDNN's bfloat16 gradient of a depthwise convolution of stride 2 takes 6 times as long as
        all pixels' at stride 1, of which every second one is the same result.
        """
        conv = self.conv
        slow = conv.stride == (2, 2) and conv.groups > 1 and x.dtype == torch.bfloat16
        if not (slow and self.training and x.device.type == "cpu"):
            return conv(x)
        every = F.conv2d(x, conv.weight, padding=conv.padding, groups=conv.groups)
        return every[:, :, ::2, ::2].contiguous(memory_format=MEMORY_FORMAT)


class SqueezeExcite(nn.Module):
    """Gates each channel by a function of all channels' means."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.excite = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = x.mean((2, 3), keepdim=True)  # (N, channels, 1, 1)
        gate = self.excite(F.relu(self.reduce(gate)))
        return x * torch.sigmoid(gate)


class InvertedResidual(nn.Module):
    """[expand 1x1] -> depthwise 3x3 -> [squeeze and excite] -> project 1x1 [+ input]."""

    def __init__(self, block: architectures.Block, activation: Activation) -> None:
        super().__init__()
        hidden = block.hidden
        self.expand = ConvNorm(block.in_channels, hidden, 1, activation) if block.expand else None
        self.depthwise = ConvNorm(hidden, hidden, 3, activation, block.stride, groups=hidden)
        self.squeeze = SqueezeExcite(hidden, block.squeeze) if block.squeeze else None
        self.project = ConvNorm(hidden, block.out_channels, 1, None)
        self.residual = block.residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x if self.expand is None else self.expand(x)
        hidden = self.depthwise(hidden)
        if self.squeeze is not None:
            hidden = self.squeeze(hidden)
        out = self.project(hidden)
        return x + out if self.residual else out


class LinearHead(nn.Module):
    """Linear layers with ReLU, then dropout, between; the last one's output is left as it is."""

    def __init__(self, features: int, head: architectures.Head) -> None:
        super().__init__()
        widths = (head.inputs or features, *head.hidden, head.outputs)
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.dropouts = head.dropouts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, dropout in zip(self.layers, self.dropouts, strict=False):
            x = F.dropout(F.relu(layer(x)), dropout, self.training)
        return self.layers[-1](x)  # (N, outputs)
