"""The nets in torch: a backbone built from its settings table, linear heads, and weights.

MLX's names are ours too: convolutions alone differ, which have their input axis last there.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mlx_faceau.core import architectures
from mlx_faceau.core.architectures import (
    IMAGE_SIZE,
    AUPredictionConfig,
    HOGHeadConfig,
    LandmarkPoseConfig,
    ModelConfig,
    initial_weights,
)
from mlx_faceau.core.checkpoint import check_weights
from mlx_faceau.core.hog import hog_constants, hog_features
from mlx_faceau.core.landmarks import NUM_LANDMARKS

from .layers import ACTIVATIONS, ConvNorm, InvertedResidual, LinearHead

TO_TORCH = (0, 3, 1, 2)
TO_MLX = (0, 2, 3, 1)
COUNTER = ".num_batches_tracked"  # of torch's BatchNorm; unused at a fixed momentum


def state_dict_from_weights(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors, in memory of their own, from arrays in MLX names and layout."""
    return {name: torch.from_numpy(moved(value, TO_TORCH)) for name, value in weights.items()}


def weights_from_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Weights in MLX names and layout, in memory of their own, without BatchNorm's counters."""
    return {
        name: moved(value.detach().cpu().numpy(), TO_MLX)
        for name, value in state.items()
        if not name.endswith(COUNTER)
    }


def moved(value: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A copy of a weight, its axes in another order if it is a convolution's."""
    # A copy always: a 1x1 kernel would otherwise stay a view of memory that training overwrites.
    return np.array(value.transpose(axes) if value.ndim == 4 else value, order="C", copy=True)


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


class HOGLayer(nn.Module):
    """The features of :func:`~mlx_faceau.core.hog.hog_features`."""

    def __init__(self) -> None:
        super().__init__()
        self.template = nn.Parameter(torch.zeros(NUM_LANDMARKS, 2))
        self.shift = nn.Linear(2 * NUM_LANDMARKS, 2)
        for name, array in hog_constants().items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        weights, constants = dict(self.named_parameters()), dict(self.named_buffers())
        grey = (images * constants["luminance"][:, None, None]).sum(1)
        features: torch.Tensor = hog_features(grey, points, weights, constants, sample)
        return features


def sample(image: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Bilinear sampling for core/hog.py."""
    grid = torch.stack([x, y], dim=3)
    return F.grid_sample(image[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]


class FaceNet(nn.Module):
    """A backbone and a configuration's linear heads, random by torch's seed without weights."""

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.width_mult)
        features = config.backbone.head_channels(config.width_mult)
        for head in config.heads:
            self.add_module(head.name, LinearHead(features, head))
        if isinstance(config, HOGHeadConfig):
            self.hog = HOGLayer()
        if weights is None:
            weights = initial_weights(config, seed=int(torch.randint(2**31 - 1, ())))
        self.load_weights_dict(weights)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs of the MLX net by name, of images (N, 3, 112, 112) RGB in [0, 1]."""
        return self.heads(self.backbone(images))

    def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name, of the backbone's features (N, channels)."""
        raise NotImplementedError

    def to_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights and BatchNorm statistics, float32, in MLX names and layout."""
        weights = weights_from_state_dict(self.state_dict())
        return {name: value.astype(np.float32, copy=False) for name, value in weights.items()}

    def load_weights_dict(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over all weights and statistics of ``weight_shapes``, checked, in MLX layout."""
        check_weights(self.config, weights, "weights")
        # Not strict: BatchNorm's batch counters are no weights; all else has just been checked.
        self.load_state_dict(state_dict_from_weights(weights), strict=False)


class UnifiedLandmarkPoseNet(FaceNet):
    """MobileNetV2 with three heads; as ``mlx_faceau.UnifiedLandmarkPoseNet``."""

    landmark_head: LinearHead
    global_head: LinearHead
    local_head: LinearHead
    config: LandmarkPoseConfig

    def __init__(
        self,
        width_mult: float = 1.0,
        num_landmarks: int = NUM_LANDMARKS,
        num_local_params: int = 34,
        image_size: int = IMAGE_SIZE,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            LandmarkPoseConfig(width_mult, num_landmarks, num_local_params, image_size, dropout)
        )

    def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        landmarks = torch.sigmoid(self.landmark_head(features)) * self.config.image_size
        return {
            "landmarks": landmarks.reshape(-1, self.config.num_landmarks, 2),
            "global_params": _global_params(self.global_head(features)),
            "local_params": self.local_head(features),
        }


def _global_params(x: torch.Tensor) -> torch.Tensor:
    scale, angles, shift = x[:, :1], x[:, 1:4], x[:, 4:]
    # softplus, written so that it stays exact where float16 hardware overflows it.
    positive = F.relu(scale) + torch.log1p(torch.exp(-scale.abs()))
    return torch.cat([positive + 0.1, torch.tanh(angles) * (math.pi / 2), shift * 100.0], dim=1)


class AUPredictionNet(FaceNet):
    """EfficientNet-like backbone with one head; as ``mlx_faceau.AUPredictionNet``."""

    au_head: LinearHead
    auxiliary_head: LinearHead  # see :mod:`mlx_faceau.core.auxiliary_head`

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        super().__init__(AUPredictionConfig(width_mult, dropout))

    def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = {"au_intensities": F.relu(self.au_head(features))}
        if self.training and hasattr(self, "auxiliary_head"):
            outputs["auxiliary"] = self.auxiliary_head(features)
        return outputs


class HOGHeadNet(FaceNet):
    """The net of a :class:`~mlx_faceau.core.architectures.HOGHeadConfig`."""

    geometry_head: LinearHead
    hog_head: LinearHead
    hog: HOGLayer

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        geometry = self.geometry_head(self.backbone(images))
        points, shape = geometry[:, : 2 * NUM_LANDMARKS], geometry[:, 2 * NUM_LANDMARKS :]
        features = self.hog(images, points.reshape(-1, NUM_LANDMARKS, 2))
        return {"au_intensities": F.relu(self.hog_head(torch.cat([features, shape], dim=1)))}
