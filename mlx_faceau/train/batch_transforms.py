"""What training adds to a batch at the end: auxiliary answers, and the size of its images."""

from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.data.loading.augmentation_workers import Batch

from .auxiliary_targets import Auxiliary
from .config import SIDES


def side_of_epoch(epoch: int, epochs: int, first: int) -> int:
    """Side of an epoch's images: it grows from ``first`` to 112 by 16 px, each for as long.

    Args:
        epoch: counted from 0.
        epochs: of the whole training.
        first: one of ``SIDES``.

    Reference:
        Touvron, Vedaldi, Douze, Jegou, Fixing the train-test resolution discrepancy, NeurIPS 2019;
        Tan and Le, EfficientNetV2, ICML 2021, section 4 (progressive learning).
    """
    sides = SIDES[SIDES.index(first) :]
    return sides[min(epoch * len(sides) // epochs, len(sides) - 1)]


@dataclass(frozen=True)
class Finishing:
    """Finishes the batches of a training.

    Attributes:
        epochs: of the whole training.
        first_side: of the first epoch's images, px.
        auxiliary: answers to add; None adds none.
    """

    epochs: int
    first_side: int
    auxiliary: Auxiliary | None = None

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch of an epoch (counted from 0), its images (B, side, side, 3)."""
        if self.auxiliary is not None:
            batch = self.auxiliary.added_to(batch)
        side = side_of_epoch(epoch, self.epochs, self.first_side)
        if side != IMAGE_SIZE:
            batch["images"] = np.stack([_shrunk(image, side) for image in batch["images"]])
        return batch


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
