"""The nets in MLX, and the one way to MLX: this package readies the machine, then imports it.

Files elsewhere write ``from mlx_faceau.models import mx, nn, optim``, so that a fast BLAS is in
place before MLX first loads (see ``blas.py``).
"""

# ruff: noqa: E402 - the order is the point
import atexit
import sys
from collections.abc import Mapping

import numpy as np

from mlx_faceau.core import blas
from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.errors import MissingDependency

blas.prepare()

try:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
except ModuleNotFoundError as error:
    if error.name not in ("mlx", "mlx.core"):
        raise
    extra = "mac" if sys.platform == "darwin" else "mlx-cpu"
    raise MissingDependency("mlx", extra=extra) from error

blas.limit_cache()
# MLX's worker drops the Python bodies of custom functions a little after their results are there;
# an interpreter that is already shutting down would abort.
atexit.register(mx.synchronize)

from mlx_faceau.core.losses import (
    AUPredictionLoss,
    ConcordanceCorrelationLoss,
    LandmarkPoseLoss,
    WingLoss,
)

from .nets import AUPredictionNet, FaceNet, UnifiedLandmarkPoseNet

__all__ = [
    "AUPredictionLoss",
    "AUPredictionNet",
    "ConcordanceCorrelationLoss",
    "FaceNet",
    "LandmarkPoseLoss",
    "UnifiedLandmarkPoseNet",
    "WingLoss",
    "build",
    "mx",
    "nn",
    "optim",
]


def build(config: ModelConfig, weights: Mapping[str, np.ndarray] | None = None) -> FaceNet:
    """The net of a configuration; without weights they are random by MLX's seed.

    Raises:
        CheckpointError: naming every missing, extra and misshapen weight.
    """
    is_landmark_pose = config.kind == "landmark_pose"
    net = UnifiedLandmarkPoseNet if is_landmark_pose else AUPredictionNet
    return net.from_config(config, weights)
