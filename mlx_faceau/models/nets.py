"""The nets in MLX: a backbone built from its settings table, linear heads, and weights."""

import math
from collections.abc import Mapping
from typing import Self

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from mlx_faceau.core import architectures
from mlx_faceau.core.architectures import (
    IMAGE_SIZE,
    AUPredictionConfig,
    HOGHeadConfig,
    LandmarkPoseConfig,
    ModelConfig,
    initial_weights,
)
from mlx_faceau.core.checkpoint import check_weights
from mlx_faceau.core.hog import hog_constants, hog_features
from mlx_faceau.core.landmarks import NUM_LANDMARKS

from .layers import ConvNorm, InvertedResidual, Layer, LinearHead, Weighted


class Backbone(Layer):
    """Image to features: stem, inverted residual blocks, 1x1 convolution, average pool."""

    def __init__(self, table: architectures.Backbone, width_mult: float) -> None:
        super().__init__()
        activation = table.activation
        blocks = list(table.blocks(width_mult))
        self.stem = ConvNorm(3, blocks[0].in_channels, 3, activation, stride=2)
        self.blocks = [InvertedResidual(block, activation) for block in blocks]
        features = table.head_channels(width_mult)
        self.head = ConvNorm(blocks[-1].out_channels, features, 1, activation)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.stem(x)  # (N, 56, 56, stem)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean((1, 2)).astype(mx.float32)  # (N, features)


class HOGLayer(Layer):
    """The features of :func:`~mlx_faceau.core.hog.hog_features`."""

    def __init__(self) -> None:
        super().__init__()
        self.template = mx.zeros((NUM_LANDMARKS, 2))
        self.shift = Weighted((2, 2 * NUM_LANDMARKS))
        self._constants = {name: mx.array(array) for name, array in hog_constants().items()}

    def __call__(self, images: mx.array, points: mx.array) -> mx.array:
        weights = dict(tree_flatten(self.parameters()))
        grey = (images * self._constants["luminance"]).sum(3)
        return hog_features(grey, points, weights, self._constants)


class FaceNet(Layer):
    """A backbone and a configuration's linear heads, random by MLX's seed without weights."""

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__()
        self._config = config
        self.backbone = Backbone(config.backbone, config.width_mult)
        features = config.backbone.head_channels(config.width_mult)
        for head in config.heads:
            setattr(self, head.name, LinearHead(features, head))
        if isinstance(config, HOGHeadConfig):
            self.hog = HOGLayer()
        if weights is None:
            weights = initial_weights(config, seed=int(mx.random.randint(0, 2**31 - 1)))
        self.load_weights_dict(weights)

    @property
    def config(self) -> ModelConfig:
        """The settings it was built from."""
        return self._config

    def fold(self) -> Self:
        """Make it a net for inference: BatchNorm part of the convolutions, evaluating, frozen."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self.eval().freeze()

    def to_weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights and BatchNorm statistics, float32, in MLX names and layout."""
        parameters = tree_flatten(self.parameters())
        return {name: np.array(value, np.float32) for name, value in parameters}

    def load_weights_dict(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over all weights and statistics of ``weight_shapes``, checked, in MLX layout."""
        check_weights(self.config, weights, "weights")
        self.load_weights([(name, mx.array(value)) for name, value in weights.items()])


class UnifiedLandmarkPoseNet(FaceNet):
    """MobileNetV2 with three heads (in torch: ``mlx_faceau.torch_fallback``).

    Args:
        width_mult: factor on every channel count.
        num_landmarks: points of the landmark head.
        num_local_params: shape parameters of the point distribution model.
        image_size: side of the crop in pixels; landmarks lie in [0, image_size].
        dropout: probability in [0, 1) after the first hidden layer of each head.
    """

    landmark_head: LinearHead
    global_head: LinearHead
    local_head: LinearHead

    def __init__(
        self,
        width_mult: float = 1.0,
        num_landmarks: int = NUM_LANDMARKS,
        num_local_params: int = 34,
        image_size: int = IMAGE_SIZE,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            LandmarkPoseConfig(width_mult, num_landmarks, num_local_params, image_size, dropout)
        )

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        """Predict images (N, 112, 112, 3) RGB in [0, 1].

        Returns:
            ``landmarks`` (N, 68, 2) px in [0, 112]; ``global_params`` (N, 6) scale, rx, ry, rz
            (radians), tx, ty (px); ``local_params`` (N, 34).
        """
        features = self.backbone(images)
        landmarks = mx.sigmoid(self.landmark_head(features)) * self.config.image_size
        return {
            "landmarks": landmarks.reshape(len(images), -1, 2),
            "global_params": _global_params(self.global_head(features)),
            "local_params": self.local_head(features),
        }


def _global_params(x: mx.array) -> mx.array:
    scale, angles, shift = x[:, :1], x[:, 1:4], x[:, 4:]
    positive = mx.logaddexp(scale, 0.0)  # softplus that neither overflows nor loses small values
    return mx.concatenate([positive + 0.1, mx.tanh(angles) * (math.pi / 2), shift * 100.0], axis=1)


class AUPredictionNet(FaceNet):
    """EfficientNet-like backbone with one head (in torch: ``mlx_faceau.torch_fallback``).

    Args:
        width_mult: factor on every channel count.
        dropout: probability in [0, 1) after each hidden layer of the head.
    """

    au_head: LinearHead
    auxiliary_head: LinearHead  # see :mod:`mlx_faceau.core.auxiliary_head`

    def __init__(self, width_mult: float = 1.0, dropout: float = 0.3) -> None:
        super().__init__(AUPredictionConfig(width_mult, dropout))

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        """Predict images (N, 112, 112, 3) RGB in [0, 1].

        Returns:
            ``au_intensities`` (N, 17) >= 0, in the order of ``AU_NAMES``; not clamped to 5. A net
            with an auxiliary head also gives ``auxiliary`` (N, 443) in training.
        """
        features = self.backbone(images)
        outputs = {"au_intensities": nn.relu(self.au_head(features))}
        if self.training and "auxiliary_head" in self:
            outputs["auxiliary"] = self.auxiliary_head(features)
        return outputs


class HOGHeadNet(FaceNet):
    """The net of a :class:`~mlx_faceau.core.architectures.HOGHeadConfig`."""

    geometry_head: LinearHead
    hog_head: LinearHead
    hog: HOGLayer

    def __call__(self, images: mx.array) -> dict[str, mx.array]:
        """``au_intensities`` (N, 17) >= 0, as :class:`AUPredictionNet` gives them."""
        geometry = self.geometry_head(self.backbone(images))
        points, shape = geometry[:, : 2 * NUM_LANDMARKS], geometry[:, 2 * NUM_LANDMARKS :]
        features = self.hog(images, points.reshape(-1, NUM_LANDMARKS, 2))
        intensities = self.hog_head(mx.concatenate([features, shape], axis=1))
        return {"au_intensities": nn.relu(intensities)}
