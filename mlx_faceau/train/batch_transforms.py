"""What training adds to a batch: auxiliary targets, and the image size of the epoch.

The targets of the auxiliary head come with new intensities for mirrored faces.
"""

import logging
from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.data.format.dataset import LabelledFaces
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.augment import Batch

from .config import IMAGE_SIZES
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)
_GROUPS = 4  # landmarks, shape parameters, AU scores and components weigh alike


def target_scale(columns: int) -> float:
    """Divisor of a group's standardised targets, ``columns`` of them: all groups weigh alike."""
    return float(np.sqrt(columns * _GROUPS))


@dataclass(frozen=True)
class FaceTargets:
    """What a data set's faces, or their mirror images, should be predicted as."""

    intensities: np.ndarray  # (N, 17) in [0, 5]
    shape: np.ndarray  # (N, 34) local parameters; NaN where they are unknown
    # (N, 17 + components) AU scores without limits and components of the gradients, standardised;
    # NaN where they are unknown.
    features: np.ndarray


@dataclass(frozen=True)
class AuxiliaryTargets:
    """Targets that the auxiliary head learns."""

    faces: FaceTargets  # of every face of the data set
    mirrored: FaceTargets | None  # of its mirror image; None if faces are not mirrored
    deviations: np.ndarray  # (17 + components,) by which each component is weighted
    statistics: TargetStatistics  # of the training side, which standardise the rest

    def add_to(self, batch: Batch) -> Batch:
        """The batch with ``auxiliary`` (B, 443) float32 and the intensities of its images.

        Unknown targets are NaN. Columns are scaled so that their mean square over the training
        faces sums to 1.
        """
        index = batch["index"]
        intensities, shape, features = (values[index] for values in vars(self.faces).values())
        if self.mirrored is not None:
            # Files have shape parameters of every face, so only mirrored ones are masked.
            is_mirrored = (batch["local_mask"] <= 0)[:, None]
            intensities, shape, features = (
                np.where(is_mirrored, other[index], own)
                for other, own in zip(
                    vars(self.mirrored).values(), (intensities, shape, features), strict=True
                )
            )
        scores, components = np.split(features, [NUM_AUS], axis=1)
        variance_shares = self.deviations[NUM_AUS:] / self.deviations[NUM_AUS:].sum()
        landmarks = self._standardised(batch["landmarks"], "landmarks").reshape(len(index), -1)
        shape = self._standardised(shape, "local_params")
        groups = [values / target_scale(values.shape[1]) for values in (landmarks, shape, scores)]
        groups.append(components * np.sqrt(variance_shares / _GROUPS))
        auxiliary = np.asarray(np.concatenate(groups, axis=1), np.float32)
        return {**batch, "au_intensities": intensities, "auxiliary": auxiliary}

    def _standardised(self, values: np.ndarray, name: str) -> np.ndarray:
        means, deviations = self.statistics.means[name], self.statistics.deviations[name]
        return np.asarray((values - means) / deviations)


def auxiliary_targets(
    models: OpenFaceAUModels,
    faces: LabelledFaces,
    rows: np.ndarray,
    statistics: TargetStatistics,
    mirror: float = 0.0,
    relabel: bool = False,
) -> AuxiliaryTargets:
    """Targets of the training side, (n,) rows of the faces, whose share ``mirror`` is mirrored.

    With ``relabel`` mirrored faces get the models' targets, intensities among them; else they keep
    their intensities and scores, and the rest is unknown.
    """
    count = len(faces.labels["landmarks"])
    intensities, shape = faces.labels["au_intensities"], faces.labels["local_params"]
    features = _in_rows(models.targets(faces, rows), rows, count)
    plain, mirrored = FaceTargets(intensities, shape, features), None
    if mirror and relabel:
        _LOG.info("computing targets of %d mirror images", len(rows))
        found = models.mirrored_targets(faces, rows)
        known = ~np.isnan(found.targets[:, :NUM_AUS])  # a face without pose keeps its intensities
        relabelled = intensities.copy()
        relabelled[rows] = np.where(known, models.intensities(found.targets), intensities[rows])
        mirrored = FaceTargets(
            relabelled,
            _in_rows(found.local_params, rows, count),
            _in_rows(found.targets, rows, count),
        )
    elif mirror:
        mirrored = keep_labels(plain)
    return AuxiliaryTargets(plain, mirrored, models.deviations, statistics)


def keep_labels(faces: FaceTargets) -> FaceTargets:
    """Targets of mirror images that keep intensities and scores; the rest has no mirror."""
    features = faces.features.copy()
    features[:, NUM_AUS:] = np.nan
    return FaceTargets(faces.intensities, np.full_like(faces.shape, np.nan), features)


def _in_rows(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(count, columns) with the values in their rows, NaN elsewhere."""
    placed = np.full((count, values.shape[1]), np.nan, np.float32)
    placed[rows] = values
    return placed


def image_size_of_epoch(epoch: int, epochs: int, initial: int) -> int:
    """Image size of an epoch, counted from 0: it grows by 16 px to 112, each size for as long.

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
