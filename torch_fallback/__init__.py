"""The torch twins of the MLX nets and losses, for training and prediction where MLX is not."""

from collections.abc import Mapping

import numpy as np

from mlx_faceau.core.architectures import HOGHeadConfig, ModelConfig
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.losses import (
    AUPredictionLoss,
    ConcordanceCorrelationLoss,
    LandmarkPoseLoss,
    WingLoss,
)

import_library("torch", "torch")
from .nets import AUPredictionNet, FaceNet, HOGHeadNet, UnifiedLandmarkPoseNet  # noqa: E402

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
    kind: type[FaceNet] = AUPredictionNet
    if isinstance(config, HOGHeadConfig):
        kind = HOGHeadNet
    elif config.kind == "landmark_pose":
        kind = UnifiedLandmarkPoseNet
    net = kind.__new__(kind)
    FaceNet.__init__(net, config, weights)
    return net
