"""Training losses in MLX; see :mod:`mlx_faceau.core.losses`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import mlx.core as mx

from mlx_faceau.core import losses


class _MLX(losses.Loss):
    xp: ClassVar[Any] = mx

    @staticmethod
    def cast(x: mx.array, like: mx.array) -> mx.array:
        return x.astype(like.dtype)

    @staticmethod
    def constant(values: Sequence[float], like: mx.array) -> mx.array:
        return mx.array(list(values), like.dtype)


class WingLoss(_MLX, losses.WingLoss):
    __doc__ = losses.WingLoss.__doc__


class LandmarkPoseLoss(_MLX, losses.LandmarkPoseLoss):
    __doc__ = losses.LandmarkPoseLoss.__doc__


class ConcordanceCorrelationLoss(_MLX, losses.ConcordanceCorrelationLoss):
    __doc__ = losses.ConcordanceCorrelationLoss.__doc__


class AUPredictionLoss(_MLX, losses.AUPredictionLoss):
    __doc__ = losses.AUPredictionLoss.__doc__


class AuxiliaryAULoss(_MLX, losses.AuxiliaryAULoss):
    __doc__ = losses.AuxiliaryAULoss.__doc__
