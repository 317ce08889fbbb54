"""``AUPredictionNet`` and its auxiliary head in MLX, and their loss.

See :mod:`mlx_faceau.core.auxiliary_head`.
"""

import mlx.core as mx
from mlx import nn

from mlx_faceau.core.auxiliary_head import TaughtAUConfig

from .au_prediction import AUPredictionNet
from .backbone import FaceNet
from .layers import LinearHead
from .losses import Arrays, AUPredictionLoss


class TaughtAUNet(AUPredictionNet):
    """Answers the auxiliary questions too while it trains.

    Args:
        width_mult: factor on every channel count.
        dropout: probability in [0, 1) after each hidden layer of the main head.
    """

    auxiliary_head: LinearHead

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        FaceNet.__init__(self, TaughtAUConfig(width_mult, dropout))

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        """``au_intensities`` (N, 17) and, in training, ``auxiliary`` (N, 443)."""
        features = self.backbone(images)
        outputs = {"au_intensities": nn.relu(self.au_head(features))}
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

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, mx.array]:
        """Terms ``smooth_l1``, ``ccc`` and, where there are answers, ``auxiliary``; ``loss``.

        A target that is NaN is unknown and costs nothing.
        """
        terms = super().__call__(predictions, targets)
        if "auxiliary" not in predictions:
            return terms
        target = targets["auxiliary"]
        answer = predictions["auxiliary"].astype(target.dtype)
        error = mx.where(mx.isnan(target), 0.0, answer - target)
        auxiliary = error.square().sum(1).mean()
        loss = terms["loss"] + self.auxiliary_weight * auxiliary
        return {**terms, "auxiliary": auxiliary, "loss": loss}
