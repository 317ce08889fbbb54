"""What training adds to a batch at the end: auxiliary answers, and the size of its images."""

from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.architectures import IMAGE_SIZE
from mlx_faceau.facs import NUM_AUS

from .config import SIDES
from .targets import TargetStatistics

_GROUPS = 4  # landmarks, shape parameters, scores and components count alike

Batch = dict[str, np.ndarray]


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
class Auxiliary:
    """The answers that the auxiliary head learns.

    Attributes:
        answers: (N, 17 + components) of the teacher, standardised, for every face of the data set;
            NaN where there is none.
        deviations: (17 + components,) which say how much each component counts.
        statistics: of the training side, which standardise the rest.
    """

    answers: np.ndarray
    deviations: np.ndarray
    statistics: TargetStatistics

    def of(self, batch: Batch) -> np.ndarray:
        """(B, 443) float32 answers of a batch; NaN where they are unknown.

        Columns are scaled so that their mean square over the training faces sums to 1. A mirrored
        face keeps its scores, but its shape parameters and components are not known.
        """
        count = len(batch["index"])
        landmarks = self._standardised(batch, "landmarks").reshape(count, -1)
        shape = self._standardised(batch, "local_params")
        answers = self.answers[batch["index"]]
        scores, components = np.split(answers, [NUM_AUS], axis=1)
        mirrored = batch["local_mask"] <= 0
        shares = self.deviations[NUM_AUS:]
        parts = [
            _even(landmarks),
            _even(np.where(mirrored[:, None], np.nan, shape)),
            _even(scores),
            np.where(mirrored[:, None], np.nan, components) * np.sqrt(shares / shares.sum()),
        ]
        return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(_GROUPS), np.float32)

    def _standardised(self, batch: Batch, name: str) -> np.ndarray:
        means, deviations = self.statistics.means[name], self.statistics.deviations[name]
        return np.asarray((batch[name] - means) / deviations)


def _even(values: np.ndarray) -> np.ndarray:
    """Columns scaled so that all of them together count as one."""
    return np.asarray(values / np.sqrt(values.shape[1]))


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
            batch["auxiliary"] = self.auxiliary.of(batch)
        side = side_of_epoch(epoch, self.epochs, self.first_side)
        if side != IMAGE_SIZE:
            batch["images"] = np.stack([_shrunk(image, side) for image in batch["images"]])
        return batch


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
