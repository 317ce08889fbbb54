"""``UnifiedLandmarkPoseNet`` in torch: 68 landmarks, 6 pose and 34 shape parameters of one crop."""

import math

import torch
from torch.nn import functional as F

from mlx_faceau.core.architectures import IMAGE_SIZE, LandmarkPoseConfig
from mlx_faceau.core.landmarks import NUM_LANDMARKS

from .backbone import FaceNet
from .layers import LinearHead


class UnifiedLandmarkPoseNet(FaceNet):
    """MobileNetV2 with three heads (the torch twin of ``mlx_faceau.UnifiedLandmarkPoseNet``).

    Args:
        width_mult: factor on every channel count.
        num_landmarks: points of the landmark head.
        num_local_params: shape parameters of the point distribution model.
        image_size: side of the crop in pixels; landmarks lie in [0, image_size].
        dropout: probability in [0, 1) after the first hidden layer of each head.
    """

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
        """Landmarks and pose.

        Args:
            features: (N, channels) of the backbone.

        Returns:
            ``landmarks`` (N, 68, 2) px in [0, 112]; ``global_params`` (N, 6) scale, rx, ry, rz
            (radians), tx, ty (px); ``local_params`` (N, 34).
        """
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
