"""A net against labelled faces, with a predictor that knows only the training means beside it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import OUTER_EYE_CORNERS
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics, nme
from mlx_faceau.data.format.check import check_intensities
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.dataset_fingerprint import shares_faces
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.train.target_statistics import TargetStatistics

from .bootstrap import au_intervals, landmark_pose_intervals
from .breakdown import breakdown
from .ced import CURVE_END, ced, ced_summary
from .crops import jitter_matrices, move_images, move_labels
from .detector_boxes import box_crops
from .subjects import people_of
from .targets import JITTERED_MAE, MISSED, TARGETS, UNMEASURED

_BATCH = 32
JITTER_SEED = 7
_WORST = 10
# True intensities nearest to 0, 1, ... 5.
RESPONSE_EDGES = (0.5, 1.5, 2.5, 3.5, 4.5)
_CROPS = {"net": "standard crops", "jittered": "jittered crops", "boxes": "crops from boxes"}

Arrays = dict[str, np.ndarray]
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Report:
    """All figures of an evaluation.

    Attributes:
        kind: of net.
        faces: how many were evaluated.
        left_out: how many more the file holds.
        people: how many are on them.
        people_by: what tells them apart: ``"subject"``, ``"video"`` or ``"face"``.
        means_from: ``"training"``, or ``"evaluation"`` where the net does not record its means.
        trained_on: whether the net was trained on faces of this file.
        net: its metrics.
        jittered: its metrics on crops moved as an imperfect face finder would.
        boxes: ``name``, ``about`` and ``metrics`` on crops cut from a detector's boxes, or None.
        constant: metrics of the means.
        constant_moved: the same on the moved crops: ``jittered`` and, where there are, ``boxes``.
        intervals: 95 % confidence intervals of ``net``, people resampled; empty for one person.
        breakdown: metrics of parts of the faces.
        curves: for landmarks ``nme`` and the share of faces under it (``net``, ``jittered``,
            ``boxes``, ``constant``); for action units by name ``count`` and ``mean`` prediction
            of the faces whose true intensity is nearest to 0, 1, ... 5.
        worst: ``row`` in the file and error of the faces that the net gets most wrong.
    """

    kind: str
    faces: int
    left_out: int
    people: int
    people_by: str
    means_from: str
    trained_on: bool
    net: dict[str, Any]
    jittered: dict[str, Any]
    boxes: dict[str, Any] | None
    constant: dict[str, Any]
    constant_moved: dict[str, dict[str, Any]]
    intervals: dict[str, Any]
    breakdown: list[dict[str, Any]]
    curves: dict[str, Any]
    worst: list[dict[str, float]]

    def grades(self) -> dict[str, str]:
        """Grade of each target, by metric; the landmarks' MAE counts under jitter too."""
        grades = {t.metric: t.grade(self.net[t.metric]) for t in TARGETS[self.kind]}
        if self.kind == "landmark_pose":
            grades[JITTERED_MAE.metric] = JITTERED_MAE.grade(self.jittered["mae"])
        return grades

    @property
    def passed(self) -> bool:
        """Whether every target is reached, on faces that the net was not trained on."""
        failed = {MISSED, UNMEASURED} & set(self.grades().values())
        return not failed and not self.trained_on

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {**vars(self), "grades": self.grades(), "passed": self.passed}


def evaluate(
    predict: Predict,
    dataset: FaceDataset,
    kind: str,
    statistics: TargetStatistics | None,
    *,
    boxes: str = "auto",
    trained_on: Collection[str] = (),
) -> Report:
    """Evaluate a net on all faces of a file.

    Args:
        predict: from (N, 112, 112, 3) uint8 RGB to arrays by output name.
        dataset: the faces.
        kind: of net.
        statistics: of the net's training targets; without them the means of these very faces
            stand in, which flatters the constant predictor a little.
        boxes: whose face boxes crops are cut from, see :func:`.boxes.box_crops`.
        trained_on: hashes of the files that the net was trained on, with or without the faces that
            lie outside the crop, and of some of its faces, where they are known.

    Raises:
        CheckpointError: if the net answers NaN or infinity, on whatever crops.
        DatasetError: if the file holds fewer than two faces, or one without an extent, or not the
            boxes asked for; for an action unit net, if intensities leave [0, 5].
    """
    _check_faces(dataset, kind)
    means = (statistics or TargetStatistics.of(dataset.labels, dataset.masks)).means
    found = box_crops(dataset, boxes)
    moves = {"net": None, "jittered": jitter_matrices(len(dataset), JITTER_SEED)}
    moves |= {} if found is None else {"boxes": found.matrices}
    labels = {**dataset.labels, **dataset.masks}
    truths = {k: labels if m is None else move_labels(m, labels) for k, m in moves.items()}
    answers = _predict_all(predict, dataset, moves)
    constant = _constant(means, len(dataset))
    metrics = {name: _MEASURES[kind](truths[name], answers[name], means) for name in moves}
    known = {name: _MEASURES[kind](truths[name], constant, means) for name in moves}
    constant_metrics = known.pop("net")
    truths["constant"], answers["constant"] = labels, constant
    people_by, people = people_of(dataset)
    in_boxes = None if found is None else {"name": found.name, "about": found.about}
    return Report(
        kind=kind,
        faces=len(dataset),
        left_out=dataset.left_out,
        people=len(set(people.tolist())),
        people_by=people_by,
        means_from="evaluation" if statistics is None else "training",
        trained_on=not dataset.hashes().isdisjoint(trained_on) or shares_faces(dataset, trained_on),
        net=metrics["net"],
        jittered=metrics["jittered"],
        boxes=in_boxes and {**in_boxes, "metrics": metrics["boxes"]},
        constant=constant_metrics,
        constant_moved=known,
        intervals=_INTERVALS[kind](labels, answers["net"], means, people),
        breakdown=breakdown(kind, labels, answers["net"], means, people, dataset.groups),
        curves=_CURVES[kind](truths, answers),
        worst=_worst(_ERRORS[kind](labels, answers["net"]), dataset.rows),
    )


def _check_faces(dataset: FaceDataset, kind: str) -> None:
    if len(dataset) < 2:
        raise DatasetError(f"{dataset.path}: holds one face; an evaluation needs two or more")
    if kind == "au_prediction":
        check_intensities(dataset.labels["au_intensities"], dataset.path)
    right, left = (dataset.labels["landmarks"][:, corner] for corner in OUTER_EYE_CORNERS)
    flat = np.flatnonzero((right == left).all(1))
    if len(flat):
        raise DatasetError(
            f"{dataset.path}: both eyes are in one place in {len(flat)} of {len(dataset)} faces "
            f"(first in row {dataset.rows[flat[0]]}); drop those rows"
        )


def _predict_all(
    predict: Predict, dataset: FaceDataset, moves: Mapping[str, np.ndarray | None]
) -> dict[str, Arrays]:
    """Predictions on all crops under each condition; images are read once."""
    parts: dict[str, list[Mapping[str, np.ndarray]]] = {name: [] for name in moves}
    for start in range(0, len(dataset), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(dataset)))
        images = dataset.read_images(rows)
        for name, matrices in moves.items():
            moved = images if matrices is None else move_images(matrices[rows], images)
            parts[name].append(predict(moved))
    answers = {name: _joined(answer) for name, answer in parts.items()}
    for name, answer in answers.items():
        _check_finite(answer, _CROPS[name], dataset)
    return answers


def _check_finite(answer: Arrays, crops: str, dataset: FaceDataset) -> None:
    for values in answer.values():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        if len(bad):
            raise CheckpointError(
                f"the net answers NaN or infinity for {len(bad)} of {len(values)} {crops} (first "
                f"in row {dataset.rows[bad[0]]} of {dataset.path}); train it again"
            )


def _joined(parts: list[Mapping[str, np.ndarray]]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _constant(means: Mapping[str, np.ndarray], count: int) -> Arrays:
    return {name: np.broadcast_to(mean, (count, *mean.shape)) for name, mean in means.items()}


def _measure_landmarks(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, Any]:
    errors = nme(truth["landmarks"], prediction["landmarks"])
    return {**landmark_pose_metrics(truth, prediction, means), **ced_summary(errors)}


def _measure_aus(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, Any]:
    return au_metrics(truth["au_intensities"], prediction["au_intensities"])


def _landmark_intervals(
    truth: Arrays, prediction: Arrays, means: Arrays, people: np.ndarray
) -> dict[str, Any]:
    return landmark_pose_intervals(truth, prediction, means["landmarks"], people)


def _au_intervals(
    truth: Arrays, prediction: Arrays, means: Arrays, people: np.ndarray
) -> dict[str, Any]:
    return au_intervals(truth["au_intensities"], prediction["au_intensities"], people)


def _ced_curves(truths: dict[str, Arrays], answers: dict[str, Arrays]) -> dict[str, Any]:
    bounds = np.linspace(0, CURVE_END, 101)
    shares = {
        name: ced(nme(truths[name]["landmarks"], answer["landmarks"]), bounds).tolist()
        for name, answer in answers.items()
    }
    return {"nme": bounds.tolist(), **shares}


def _responses(truths: dict[str, Arrays], answers: dict[str, Arrays]) -> dict[str, Any]:
    truth, prediction = (side["net"]["au_intensities"] for side in (truths, answers))
    level = np.digitize(truth, RESPONSE_EDGES)
    curves = {}
    for i, name in enumerate(AU_NAMES):
        size = len(RESPONSE_EDGES) + 1
        count = np.bincount(level[:, i], minlength=size)
        total = np.bincount(level[:, i], np.float64(prediction[:, i]), minlength=size)
        means = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
        curves[name] = {"count": count.tolist(), "mean": means.tolist()}
    return curves


def _worst(errors: np.ndarray, rows: np.ndarray) -> list[dict[str, float]]:
    order = np.argsort(-errors, kind="stable")[:_WORST]
    return [{"row": int(rows[i]), "error": float(errors[i])} for i in order.tolist()]


_MEASURES = {"landmark_pose": _measure_landmarks, "au_prediction": _measure_aus}
_INTERVALS = {"landmark_pose": _landmark_intervals, "au_prediction": _au_intervals}
_CURVES = {"landmark_pose": _ced_curves, "au_prediction": _responses}
# What ranks the faces that a net gets most wrong: NME; mean error over the action units.
_ERRORS: dict[str, Callable[[Arrays, Arrays], np.ndarray]] = {
    "landmark_pose": lambda truth, answer: nme(truth["landmarks"], answer["landmarks"]),
    "au_prediction": lambda truth, answer: np.abs(
        np.float64(truth["au_intensities"]) - answer["au_intensities"]
    ).mean(1),
}
