"""Training losses in torch; see :mod:`mlx_faceau.core.losses`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from mlx_faceau.core import losses


class _Torch(losses.Loss):
    xp: ClassVar[Any] = torch

    @staticmethod
    def cast(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return x.to(like.dtype)

    @staticmethod
    def constant(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)


class WingLoss(_Torch, losses.WingLoss):
    __doc__ = losses.WingLoss.__doc__


class LandmarkPoseLoss(_Torch, losses.LandmarkPoseLoss):
    __doc__ = losses.LandmarkPoseLoss.__doc__


class ConcordanceCorrelationLoss(_Torch, losses.ConcordanceCorrelationLoss):
    __doc__ = losses.ConcordanceCorrelationLoss.__doc__


class AUPredictionLoss(_Torch, losses.AUPredictionLoss):
    __doc__ = losses.AUPredictionLoss.__doc__


class AuxiliaryAULoss(_Torch, losses.AuxiliaryAULoss):
    __doc__ = losses.AuxiliaryAULoss.__doc__
