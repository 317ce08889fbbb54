"""The torch twins of the MLX nets and losses, for training and prediction where MLX is not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.losses import (
    AUPredictionLoss,
    ConcordanceCorrelationLoss,
    LandmarkPoseLoss,
    WingLoss,
)
from mlx_faceau.errors import MissingDependency

try:
    from .nets import AUPredictionNet, UnifiedLandmarkPoseNet
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependency("torch", extra="torch") from error

if TYPE_CHECKING:
    from .nets import FaceNet

__all__ = [
    "AUPredictionLoss",
    "AUPredictionNet",
    "ConcordanceCorrelationLoss",
    "LandmarkPoseLoss",
    "UnifiedLandmarkPoseNet",
    "WingLoss",
    "build",
]


def build(config: ModelConfig, weights: Mapping[str, np.ndarray] | None = None) -> "FaceNet":
    """The net of a configuration; without weights they are random by torch's seed.

    Raises:
        CheckpointError: naming every missing, extra and misshapen weight.
    """
    is_landmark_pose = config.kind == "landmark_pose"
    net = UnifiedLandmarkPoseNet if is_landmark_pose else AUPredictionNet
    return net.from_config(config, weights)
