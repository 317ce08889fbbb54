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
from mlx_faceau.core.architectures import HOGHeadConfig, ModelConfig
from mlx_faceau.core.libraries import import_library

blas.prepare()

import_library("mlx.core", "mac" if sys.platform == "darwin" else "mlx-cpu")
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

CACHE_BYTES = 4 << 30
if mx.default_device() == mx.Device(mx.cpu):
    # By default MLX keeps 32 MB of freed memory: fresh pages then cost more than the work on them.
    mx.set_cache_limit(CACHE_BYTES)
# MLX's worker drops the Python bodies of custom functions a little after their results are there;
# an interpreter that is already shutting down would abort.
atexit.register(mx.synchronize)

from mlx_faceau.core.losses import (
    AUPredictionLoss,
    ConcordanceCorrelationLoss,
    LandmarkPoseLoss,
    WingLoss,
)

from .nets import AUPredictionNet, FaceNet, HOGHeadNet, UnifiedLandmarkPoseNet

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
    """The net of a configuration; without weights they are random by MLX's seed."""
    kind: type[FaceNet] = AUPredictionNet
    if isinstance(config, HOGHeadConfig):
        kind = HOGHeadNet
    elif config.kind == "landmark_pose":
        kind = UnifiedLandmarkPoseNet
    net = kind.__new__(kind)
    FaceNet.__init__(net, config, weights)
    return net
