"""``AUPredictionNet`` and its auxiliary head in torch, and their loss.

See :mod:`mlx_faceau.core.auxiliary_head`.
"""

import torch
from torch.nn import functional as F

from mlx_faceau.core.auxiliary_head import TaughtAUConfig

from .au_prediction import AUPredictionNet
from .backbone import FaceNet
from .layers import LinearHead
from .losses import AUPredictionLoss, Tensors


class TaughtAUNet(AUPredictionNet):
    """Answers the auxiliary questions too while it trains.

    Args:
        width_mult: factor on every channel count.
        dropout: probability in [0, 1) after each hidden layer of the main head.
    """

    auxiliary_head: LinearHead

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        FaceNet.__init__(self, TaughtAUConfig(width_mult, dropout))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """``au_intensities`` (N, 17) and, in training, ``auxiliary`` (N, 443)."""
        features = self.backbone(images)
        outputs = {"au_intensities": F.relu(self.au_head(features))}
        if self.training:
            outputs["auxiliary"] = self.auxiliary_head(features)
        return outputs


class TaughtAULoss(AUPredictionLoss):
    """The action units' loss plus the weighted squared error of the auxiliary answers.

    Args:
        auxiliary_weight: of the squared error, summed over the answers of a face; answers are so
            scaled that the mean of the training faces costs 1 where these are not varied.
        smooth_l1_weight, ccc_weight, au_weights: as :class:`AUPredictionLoss` takes them.
    """

    def __init__(self, auxiliary_weight: float, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.auxiliary_weight = auxiliary_weight

    def forward(self, predictions: Tensors, targets: Tensors) -> dict[str, torch.Tensor]:
        """Terms ``smooth_l1``, ``ccc`` and, where there are answers, ``auxiliary``; ``loss``.

        A target that is NaN is unknown and costs nothing.
        """
        terms = super().forward(predictions, targets)
        if "auxiliary" not in predictions:
            return terms
        target = targets["auxiliary"]
        answer = predictions["auxiliary"].to(target.dtype)
        error = torch.where(target.isnan(), 0.0, answer - target)
        auxiliary = error.square().sum(1).mean()
        loss = terms["loss"] + self.auxiliary_weight * auxiliary
        return {**terms, "auxiliary": auxiliary, "loss": loss}
