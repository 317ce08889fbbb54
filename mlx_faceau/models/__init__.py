"""The nets in MLX, and the one way to MLX: this package readies the machine, then imports it.

Files elsewhere write ``from mlx_faceau.models import mx, nn, optim``, so that a fast BLAS is in
place before MLX first loads (see ``blas.py``).
"""

# ruff: noqa: E402 - the order is the point
import atexit
import sys

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
    "net_class",
    "nn",
    "optim",
]


def net_class(config: ModelConfig) -> type[FaceNet]:
    """The class of net that a configuration describes."""
    return UnifiedLandmarkPoseNet if config.kind == "landmark_pose" else AUPredictionNet


def build(config: ModelConfig) -> FaceNet:
    """An untrained net of a configuration, with random weights by MLX's seed."""
    return net_class(config).from_config(config)
