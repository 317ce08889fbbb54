"""What a batch's faces are asked beside their labels, and mirrored faces' own intensities."""

import logging
from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.data.labels.mirror import LabelledFaces
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.augmentation_workers import Batch

from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)
_GROUPS = 4  # landmarks, shape parameters, scores and components count alike


@dataclass(frozen=True)
class Known:
    """What is known of every face of a data set, one way round.

    Attributes:
        intensities: (N, 17) in [0, 5].
        shape: (N, 34) local parameters; NaN where they are unknown.
        answers: (N, 17 + components) of the teacher, standardised; NaN where it was not asked.
    """

    intensities: np.ndarray
    shape: np.ndarray
    answers: np.ndarray

    @classmethod
    def of_faces(cls, teacher: OpenFaceAUModels, faces: LabelledFaces, rows: np.ndarray) -> "Known":
        """Their labels, and what the teacher says of those in ``rows`` (n,)."""
        labels = faces.labels
        answers = _placed(teacher.targets(faces, rows), rows, len(labels["landmarks"]))
        return cls(labels["au_intensities"], labels["local_params"], answers)

    def kept_by_mirrored(self) -> "Known":
        """Of the mirror images, if they keep intensities and scores; the rest has no mirror."""
        answers = self.answers.copy()
        answers[:, NUM_AUS:] = np.nan
        return Known(self.intensities, np.full_like(self.shape, np.nan), answers)

    def of_mirrored(
        self, teacher: OpenFaceAUModels, faces: LabelledFaces, rows: np.ndarray
    ) -> "Known":
        """Of the mirror images, by the teacher; a face without pose keeps its intensities."""
        _LOG.info("asking the teacher about %d mirror images", len(rows))
        found = teacher.mirrored_targets(faces, rows)
        intensities, count = self.intensities.copy(), len(self.intensities)
        intensities[rows] = np.where(
            np.isnan(found.targets[:, :NUM_AUS]),
            intensities[rows],
            teacher.intensities(found.targets),
        )
        shape, answers = (
            _placed(values, rows, count) for values in (found.local_params, found.targets)
        )
        return Known(intensities, shape, answers)


@dataclass(frozen=True)
class Auxiliary:
    """The answers that the auxiliary head learns.

    Attributes:
        plain: of every face of the data set.
        mirrored: of its mirror image; None if faces are not mirrored.
        deviations: (17 + components,) which say how much each component counts.
        statistics: of the training side, which standardise the rest.
    """

    plain: Known
    mirrored: Known | None
    deviations: np.ndarray
    statistics: TargetStatistics

    def added_to(self, batch: Batch) -> Batch:
        """The batch with ``auxiliary`` (B, 443) float32 and its faces' intensities as they stand.

        Answers are NaN where they are unknown. Columns are scaled so that their mean square over
        the training faces sums to 1.
        """
        count = len(batch["index"])
        known = self._known(batch)
        scores, components = np.split(known.answers, [NUM_AUS], axis=1)
        shares = self.deviations[NUM_AUS:]
        parts = [
            _even(self._standardised(batch["landmarks"], "landmarks").reshape(count, -1)),
            _even(self._standardised(known.shape, "local_params")),
            _even(scores),
            components * np.sqrt(shares / shares.sum()),
        ]
        answers = np.asarray(np.concatenate(parts, axis=1) / np.sqrt(_GROUPS), np.float32)
        return {**batch, "au_intensities": known.intensities, "auxiliary": answers}

    def _known(self, batch: Batch) -> Known:
        """Of the batch's faces, each the way round that it is shown."""
        index = batch["index"]
        if self.mirrored is None:
            return Known(*(values[index] for values in _columns(self.plain)))
        turned = (batch["local_mask"] <= 0)[:, None]  # files have shape parameters of every face
        both = zip(_columns(self.plain), _columns(self.mirrored), strict=True)
        return Known(*(np.where(turned, other[index], own[index]) for own, other in both))

    def _standardised(self, values: np.ndarray, name: str) -> np.ndarray:
        means, deviations = self.statistics.means[name], self.statistics.deviations[name]
        return np.asarray((values - means) / deviations)


def auxiliary_of(
    teacher: OpenFaceAUModels,
    faces: LabelledFaces,
    rows: np.ndarray,
    statistics: TargetStatistics,
    mirror: float = 0.0,
    relabel: bool = False,
) -> Auxiliary:
    """The teacher's answers about the training side.

    Args:
        teacher: who answers.
        faces: the data set.
        rows: (n,) its training side.
        statistics: of the same.
        mirror: share of faces that will be mirrored.
        relabel: ask about the mirror images too, intensities among the rest; else mirrored faces
            keep theirs.

    Returns:
        What finishes a batch of those faces.
    """
    plain = Known.of_faces(teacher, faces, rows)
    mirrored = None
    if mirror:
        mirrored = plain.of_mirrored(teacher, faces, rows) if relabel else plain.kept_by_mirrored()
    return Auxiliary(plain, mirrored, teacher.deviations, statistics)


def _columns(known: Known) -> tuple[np.ndarray, ...]:
    return known.intensities, known.shape, known.answers


def _placed(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(count, columns) with the values in their rows, NaN elsewhere."""
    placed = np.full((count, values.shape[1]), np.nan, np.float32)
    placed[rows] = values
    return placed


def _even(values: np.ndarray) -> np.ndarray:
    """Columns scaled so that all of them together count as one."""
    return np.asarray(values / np.sqrt(values.shape[1]))
