"""The torch twins of the MLX nets and losses, for training and prediction where MLX is not."""

from typing import TYPE_CHECKING

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


def build(config: ModelConfig) -> "FaceNet":
    """The untrained net of a configuration: its kind picks the class."""
    is_landmark_pose = config.kind == "landmark_pose"
    return (UnifiedLandmarkPoseNet if is_landmark_pose else AUPredictionNet).from_config(config)
