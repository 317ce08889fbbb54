"""The auxiliary head of an action unit net in training.

A second, linear head on the same features predicts 443 values: the landmarks, the face's shape, its
action units without limits, and main components of its gradients. They carry far more information
about a face than 17 numbers, half of which are 0. Exports leave the head out, or make a HOG head of
it (see train/hog_head.py).

Reference:
    Caruana, Multitask learning, Machine Learning 1997.
    Vapnik and Vashist, A new learning paradigm: learning using privileged information, Neural
    Networks 2009.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .architectures import AUPredictionConfig, Head

NUM_AUXILIARY = 443  # 136 landmark coordinates, 34 shape parameters, 17 scores, 256 components
HEAD_NAME = "auxiliary_head"
_PREFIX = "auxiliary."  # of the head's arrays in a checkpoint


@dataclass(frozen=True)
class AuxiliaryAUConfig(AUPredictionConfig):
    """Settings of ``AUPredictionNet`` with its auxiliary head."""

    @property
    def heads(self) -> tuple[Head, ...]:
        return (*super().heads, Head(HEAD_NAME, "auxiliary", (), NUM_AUXILIARY, ()))

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output of one face in training."""
        return {**super().output_shapes, "auxiliary": (NUM_AUXILIARY,)}


def with_auxiliary_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A training's arrays as a checkpoint names them: the head's get a prefix of their own."""
    return {_PREFIX + name if HEAD_NAME in name else name: array for name, array in arrays.items()}


def without_auxiliary_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they were before :func:`with_auxiliary_prefix`."""
    return {name.removeprefix(_PREFIX): array for name, array in arrays.items()}


def auxiliary_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The auxiliary head of a checkpoint, averaged where it can be; nothing where it has none."""
    whole = without_auxiliary_prefix(arrays)
    return {
        name.removeprefix(prefix): array
        for prefix in ("model.", "ema.")
        for name, array in whole.items()
        if name.startswith(prefix + HEAD_NAME)
    }
