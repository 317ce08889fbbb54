"""``AUPredictionNet`` in MLX: the intensities of 17 facial action units of one crop."""

import mlx.core as mx
from mlx import nn

from mlx_faceau.core.architectures import AUPredictionConfig

from .backbone import FaceNet
from .layers import LinearHead


class AUPredictionNet(FaceNet):
    """EfficientNet-like backbone with one head (the twin of ``mlx_faceau.torch_fallback``'s).

    Args:
        width_mult: factor on every channel count.
        dropout: probability in [0, 1) after each hidden layer of the head.
    """

    au_head: LinearHead
    auxiliary_head: LinearHead  # see :mod:`mlx_faceau.core.auxiliary_head`

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        super().__init__(AUPredictionConfig(width_mult, dropout))

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        """Predict action units.

        Args:
            images: (N, 112, 112, 3) RGB in [0, 1].

        Returns:
            ``au_intensities`` (N, 17) >= 0, in the order of ``AU_NAMES``; not clamped to 5. A net
            with an auxiliary head also gives ``auxiliary`` (N, 443) in training.
        """
        features = self.backbone(images)
        outputs = {"au_intensities": nn.relu(self.au_head(features))}
        if self.training and "auxiliary_head" in self:
            outputs["auxiliary"] = self.auxiliary_head(features)
        return outputs
