"""``AUPredictionNet`` in torch: the intensities of 17 facial action units of one crop."""

import torch
from torch.nn import functional as F

from mlx_faceau.core.architectures import AUPredictionConfig

from .backbone import FaceNet
from .layers import LinearHead


class AUPredictionNet(FaceNet):
    """EfficientNet-like backbone with one head (the torch twin of ``mlx_faceau.AUPredictionNet``).

    Args:
        width_mult: factor on every channel count.
        dropout: probability in [0, 1) after each hidden layer of the head.
    """

    au_head: LinearHead
    auxiliary_head: LinearHead  # see :mod:`mlx_faceau.core.auxiliary_head`

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        super().__init__(AUPredictionConfig(width_mult, dropout))

    def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Action units.

        Args:
            features: (N, channels) of the backbone.

        Returns:
            ``au_intensities`` (N, 17) >= 0, in the order of ``AU_NAMES``; not clamped to 5. A net
            with an auxiliary head also gives ``auxiliary`` (N, 443) in training.
        """
        outputs = {"au_intensities": F.relu(self.au_head(features))}
        if self.training and hasattr(self, "auxiliary_head"):
            outputs["auxiliary"] = self.auxiliary_head(features)
        return outputs
