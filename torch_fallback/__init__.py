"""The torch twins of the MLX nets and losses, for training and prediction where MLX is not."""

from collections.abc import Mapping

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
    from .nets import AUPredictionNet, FaceNet, UnifiedLandmarkPoseNet
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependency("torch", extra="torch") from error

__all__ = [
    "AUPredictionLoss",
    "AUPredictionNet",
    "ConcordanceCorrelationLoss",
    "LandmarkPoseLoss",
    "UnifiedLandmarkPoseNet",
    "WingLoss",
    "build",
]


def build(config: ModelConfig, weights: Mapping[str, np.ndarray] | None = None) -> FaceNet:
    """The net of a configuration; without weights they are random by torch's seed."""
    kind = UnifiedLandmarkPoseNet if config.kind == "landmark_pose" else AUPredictionNet
    net = kind.__new__(kind)
    FaceNet.__init__(net, config, weights)
    return net
