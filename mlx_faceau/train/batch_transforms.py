"""What training adds to a batch: auxiliary targets, and the image size of the epoch."""

from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.data.loading.augmentation_workers import Batch

from .auxiliary_targets import AuxiliaryTargets
from .config import IMAGE_SIZES


def image_size_of_epoch(epoch: int, epochs: int, initial: int) -> int:
    """Image size of an epoch: it grows from ``initial`` to 112 by 16 px, each size for as long.

    Args:
        epoch: counted from 0.
        epochs: of the whole training.
        initial: one of ``IMAGE_SIZES``.

    Reference:
        Touvron, Vedaldi, Douze, Jegou, Fixing the train-test resolution discrepancy, NeurIPS 2019;
        Tan and Le, EfficientNetV2, ICML 2021, section 4 (progressive learning).
    """
    sizes = IMAGE_SIZES[IMAGE_SIZES.index(initial) :]
    return sizes[min(epoch * len(sizes) // epochs, len(sizes) - 1)]


@dataclass(frozen=True)
class BatchTransform:
    """The last change of a training batch."""

    epochs: int  # of the whole training
    initial_size: int  # image size of the first epoch, px
    auxiliary: AuxiliaryTargets | None = None  # targets of the auxiliary head to add

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch of an epoch (counted from 0), its images (B, size, size, 3)."""
        if self.auxiliary is not None:
            batch = self.auxiliary.add_to(batch)
        size = image_size_of_epoch(epoch, self.epochs, self.initial_size)
        if size != IMAGE_SIZE:
            resized = [
                cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
                for image in batch["images"]
            ]
            batch["images"] = np.stack(resized)
        return batch
