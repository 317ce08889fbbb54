"""A net against labelled faces, with a predictor that knows only the training means beside it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.metrics import au_metrics, landmark_pose_metrics

from .jitter import jitter_images, jitter_labels, jitter_matrices
from .targets import TargetStatistics

_LOG = logging.getLogger(__name__)
_BATCH = 32
_JITTER_SEED = 7

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """One line of the accuracy the nets are meant to reach on people they never saw."""

    metric: str
    label: str
    must: float
    aim: float
    higher: bool  # whether more is better

    def grade(self, value: float) -> str:
        """``"aim"``, ``"must"`` or ``"missed"``."""
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if value > bound if self.higher else value < bound:
                return name
        return "missed"


TARGETS = {
    "landmark_pose": (
        Target("correlation", "landmark correlation", 0.95, 0.99, True),
        Target("correlation_without_mean", "  without the mean face", 0.90, 0.95, True),
        Target("mae", "landmark MAE (px)", 2.0, 1.0, False),
    ),
    "au_prediction": (
        Target("correlation", "AU correlation", 0.90, 0.95, True),
        Target("mae", "AU MAE", 0.5, 0.2, False),
    ),
}


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation.

    Attributes:
        kind: of net.
        faces: how many were evaluated.
        means_from: ``"training"``, or ``"evaluation"`` where the net does not record its means.
        net: its metrics.
        jittered: its metrics on crops moved as an imperfect face finder would.
        constant: metrics of the means.
    """

    kind: str
    faces: int
    means_from: str
    net: dict[str, Any]
    jittered: dict[str, Any]
    constant: dict[str, Any]

    def grades(self) -> dict[str, str]:
        """Grade of each target, by metric; the landmarks' MAE counts under jitter too."""
        grades = {t.metric: t.grade(self.net[t.metric]) for t in TARGETS[self.kind]}
        if self.kind == "landmark_pose":
            mae = next(t for t in TARGETS[self.kind] if t.metric == "mae")
            grades["mae_jittered"] = mae.grade(self.jittered["mae"])
        return grades

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {**vars(self), "grades": self.grades()}


def evaluate(
    predict: Callable[[np.ndarray], Arrays],
    dataset: FaceDataset,
    kind: str,
    statistics: TargetStatistics | None,
) -> Report:
    """Evaluate a net on all faces of a file.

    Args:
        predict: from (N, 112, 112, 3) uint8 RGB to arrays by output name.
        dataset: the faces.
        kind: of net.
        statistics: of the net's training targets; without them the means of these very faces
            stand in, which flatters the constant predictor a little.
    """
    source = "evaluation" if statistics is None else "training"
    means = (statistics or TargetStatistics.of(dataset.labels, dataset.masks)).means
    constant = {
        name: np.broadcast_to(mean, (len(dataset), *mean.shape)) for name, mean in means.items()
    }
    matrices = jitter_matrices(len(dataset), _JITTER_SEED)
    plain, moved = _predict_all(predict, dataset, matrices)
    measure, truth = _MEASURES[kind], {**dataset.labels, **dataset.masks}
    return Report(
        kind=kind,
        faces=len(dataset),
        means_from=source,
        net=measure(truth, plain, means),
        jittered=measure(jitter_labels(matrices, truth), moved, means),
        constant=measure(truth, constant, means),
    )


def _predict_all(
    predict: Callable[[np.ndarray], Arrays], dataset: FaceDataset, matrices: np.ndarray
) -> tuple[Arrays, Arrays]:
    """Predictions on all crops, and on all crops moved by the matrices."""
    plain, moved = [], []
    for start in range(0, len(dataset), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(dataset)))
        images = dataset.read_images(rows)
        plain.append(predict(images))
        moved.append(predict(jitter_images(matrices[rows], images)))
    return _joined(plain), _joined(moved)


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measure_aus(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, Any]:
    return au_metrics(truth["au_intensities"], prediction["au_intensities"])


_MEASURES: dict[str, Callable[[Arrays, Arrays, Arrays], dict[str, Any]]] = {
    "landmark_pose": landmark_pose_metrics,
    "au_prediction": _measure_aus,
}
