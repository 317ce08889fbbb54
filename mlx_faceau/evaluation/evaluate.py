"""A net measured on labelled faces, beside a predictor that outputs the training means."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import OUTER_EYE_CORNERS
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics, nme
from mlx_faceau.data.format.check import check_intensities
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import shares_faces
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.train.target_statistics import TargetStatistics

from .bootstrap import au_intervals, landmark_pose_intervals, subjects_of
from .breakdown import breakdown
from .ced import CURVE_END, ced, ced_summary
from .crop_jitter import jitter_matrices, warp_images, warp_labels
from .detector_boxes import box_crops
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
class Evaluation:
    """All figures of an evaluation."""

    kind: str  # of net
    faces: int  # that were evaluated
    left_out: int  # how many more the file holds
    subjects: int  # how many the faces are of
    subjects_by: str  # what names them: "subject", "video" or "face"
    means_from: str  # "training", or "evaluation" where the net does not record its means
    trained_on: bool  # whether the net was trained on faces of this file
    net: dict[str, Any]  # its metrics on standard crops
    jittered: dict[str, Any]  # its metrics on jittered crops
    # ``name``, ``about`` and ``metrics`` on crops cut from a detector's boxes, or None
    boxes: dict[str, Any] | None
    constant: dict[str, Any]  # metrics of the constant predictor, which outputs the training means
    # 95 % bootstrap confidence intervals of ``net``, subjects resampled; empty for one subject
    intervals: dict[str, Any]
    breakdown: list[dict[str, Any]]  # metrics of parts of the faces
    # For landmarks ``nme`` and the share of faces under it (``net``, ``jittered``, ``boxes``,
    # ``constant``); for action units by name ``count`` and ``mean`` prediction of the faces whose
    # true intensity is nearest to 0, 1, ... 5.
    curves: dict[str, Any]
    # ``row`` in the file and ``error`` of the faces with the largest errors (NME; mean absolute
    # error over the action units)
    worst: list[dict[str, float]]

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Metrics by the name of the column that shows them; the net's on standard crops first."""
        boxes = {} if self.boxes is None else {self.boxes["name"]: self.boxes["metrics"]}
        return {"net": self.net, "jittered": self.jittered, **boxes, "constant": self.constant}

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
) -> Evaluation:
    """Evaluate a net on all faces of a file.

    Args:
        predict: from (N, 112, 112, 3) uint8 RGB to arrays by output name.
        dataset: the faces.
        kind: of net.
        statistics: of the net's training targets; without them the means of these very faces
            are used, which flatters the constant predictor a little.
        boxes: whose face boxes crops are cut from, see :func:`.detector_boxes.box_crops`.
        trained_on: hashes of the files that the net was trained on, with or without the faces that
            lie outside the crop, and of some of its faces, where they are known.

    Raises:
        CheckpointError: if the net's output is NaN or infinite on any crop.
        DatasetError: if the file holds fewer than two faces, or one without an extent, or not the
            boxes asked for; for an action unit net, if intensities leave [0, 5].
    """
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
    means = (statistics or TargetStatistics.of(dataset.labels, dataset.masks)).means
    detector = box_crops(dataset, boxes)
    warps = {"net": None, "jittered": jitter_matrices(len(dataset), JITTER_SEED)}
    if detector is not None:
        warps["boxes"] = detector.matrices
    labels = {**dataset.labels, **dataset.masks}
    truths = {k: labels if m is None else warp_labels(m, labels) for k, m in warps.items()}
    truths["constant"] = labels
    predictions = _predict_all(predict, dataset, warps)
    predictions["constant"] = {
        name: np.broadcast_to(mean, (len(dataset), *mean.shape)) for name, mean in means.items()
    }

    def measure(truth: Arrays, prediction: Arrays) -> dict[str, Any]:
        if kind == "au_prediction":
            return au_metrics(truth["au_intensities"], prediction["au_intensities"])
        errors = nme(truth["landmarks"], prediction["landmarks"])
        return {**landmark_pose_metrics(truth, prediction, means), **ced_summary(errors)}

    metrics = {name: measure(truths[name], predictions[name]) for name in predictions}
    subjects_by, subjects = subjects_of(dataset)
    net = predictions["net"]
    if kind == "au_prediction":
        intensities = labels["au_intensities"], net["au_intensities"]
        intervals, curves = au_intervals(*intensities, subjects), _responses(*intensities)
        errors = np.abs(np.float64(intensities[0]) - intensities[1]).mean(1)
    else:
        intervals = landmark_pose_intervals(labels, net, means["landmarks"], subjects)
        curves = _ced_curves(truths, predictions)
        errors = nme(labels["landmarks"], net["landmarks"])
    worst = np.argsort(-errors, kind="stable")[:_WORST].tolist()
    return Evaluation(
        kind=kind,
        faces=len(dataset),
        left_out=dataset.left_out,
        subjects=len(np.unique(subjects)),
        subjects_by=subjects_by,
        means_from="evaluation" if statistics is None else "training",
        trained_on=not dataset.hashes().isdisjoint(trained_on) or shares_faces(dataset, trained_on),
        net=metrics["net"],
        jittered=metrics["jittered"],
        boxes=detector
        and {"name": detector.name, "about": detector.about, "metrics": metrics["boxes"]},
        constant=metrics["constant"],
        intervals=intervals,
        breakdown=breakdown(
            kind, labels, net, predictions["constant"], measure, subjects, dataset.groups
        ),
        curves=curves,
        worst=[{"row": int(dataset.rows[i]), "error": float(errors[i])} for i in worst],
    )


def _predict_all(
    predict: Predict, dataset: FaceDataset, warps: Mapping[str, np.ndarray | None]
) -> dict[str, Arrays]:
    """Predictions on all crops under each condition; images are read once."""
    parts: dict[str, list[Mapping[str, np.ndarray]]] = {name: [] for name in warps}
    for start in range(0, len(dataset), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(dataset)))
        images = dataset.read_images(rows)
        for name, matrices in warps.items():
            crops = images if matrices is None else warp_images(matrices[rows], images)
            parts[name].append(predict(crops))
    predictions = {}
    for name, batches in parts.items():
        predictions[name] = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
        for values in predictions[name].values():
            bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
            if len(bad):
                raise CheckpointError(
                    f"the net's output is NaN or infinite for {len(bad)} of {len(values)} "
                    f"{_CROPS[name]} (first in row {dataset.rows[bad[0]]} of {dataset.path}); "
                    "train it again"
                )
    return predictions


def _ced_curves(truths: dict[str, Arrays], predictions: dict[str, Arrays]) -> dict[str, Any]:
    bounds = np.linspace(0, CURVE_END, 101)
    shares = {
        name: ced(nme(truths[name]["landmarks"], prediction["landmarks"]), bounds).tolist()
        for name, prediction in predictions.items()
    }
    return {"nme": bounds.tolist(), **shares}


def _responses(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Mean prediction by true intensity, of each action unit."""
    levels = np.digitize(truth, RESPONSE_EDGES)
    size = len(RESPONSE_EDGES) + 1
    curves = {}
    for i, name in enumerate(AU_NAMES):
        count = np.bincount(levels[:, i], minlength=size)
        total = np.bincount(levels[:, i], np.float64(prediction[:, i]), minlength=size)
        means = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
        curves[name] = {"count": count.tolist(), "mean": means.tolist()}
    return curves
