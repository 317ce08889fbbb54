"""A net measured on labelled faces, beside a predictor that outputs the training means."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.landmarks import OUTER_EYE_CORNERS
from mlx_faceau.core.metrics import au_metrics, counted_aus, landmark_pose_metrics, nme
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.data.format.check import check_intensities
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import shares_faces
from mlx_faceau.data.format.label_provenance import labellers
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.train.target_statistics import TargetStatistics

from .bootstrap import au_intervals, landmark_pose_intervals, subjects_of
from .crops import box_crops, jitter_matrices, warp_images, warp_labels

JITTER_SEED = 7
CURVE_END = 0.20  # largest NME of the cumulative error distributions
# NME over the inter-ocular distance from which a face counts as a failure: of the 300-W (Sagonas et
# al., 300 Faces In-The-Wild Challenge, IVC 2016) and the WFLW benchmark (Wu et al., CVPR 2018).
BOUNDS = (0.08, 0.10)
YAW_EDGES = (0, 10, 20, 30, 45, math.inf)  # degrees to either side
# What is shown of a part, by its heading in a table. ``pose``: mean error of the angles;
# ``counted``: of how many action units the mean correlation is.
HEADINGS = {
    "landmark_pose": {
        "mae": "MAE px",
        "constant_mae": "constant",
        "correlation_without_mean": "r, no mean",
        "nme": "NME %",
        "failure_rate_8": "over 8 %",
        "pose": "pose, deg",
    },
    "au_prediction": {
        "mae": "MAE",
        "constant_mae": "constant",
        "correlation": "mean r",
        "counted": "over AUs",
    },
}
_BATCH = 32
_WORST = 10
_CROPS = {"net": "standard crops", "jittered": "jittered crops", "boxes": "crops from boxes"}

Arrays = dict[str, np.ndarray]
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Target:
    """One line of the targets."""

    metric: str
    label: str
    must: float
    aim: float | None  # None: there is no aim beyond the bound
    higher: bool  # whether more is better

    def grade(self, value: float, constant: float = math.nan) -> str:
        """``"aim"``, ``"must"`` or ``"missed"``; ``"unmeasured"`` for NaN, and ``"unbeaten"`` for
        one that is no better, to three decimals, than the constant predictor's."""
        if math.isnan(value):
            return "unmeasured"
        if round(value - constant if self.higher else constant - value, 3) <= 0:
            return "unbeaten"
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if bound is not None and (value > bound if self.higher else value < bound):
                return name
        return "missed"


TARGETS = {
    "landmark_pose": (
        Target("correlation", "landmark correlation", 0.95, 0.99, True),
        Target("correlation_without_mean", "without the mean face", 0.90, 0.95, True),
        Target("mae", "landmark MAE, px", 2.0, 1.0, False),
    ),
    "au_prediction": (
        Target("correlation", "AU correlation (mean r)", 0.90, 0.95, True),
        Target("mae", "AU MAE", 0.5, 0.2, False),
    ),
}
JITTERED_MAE = Target("mae_jittered", "landmark MAE, jittered", 2.0, None, False)


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
    other_pdm: str  # name of the labels' PDM where it is not the net's; empty if so, or unknown
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
        grades = {
            t.metric: t.grade(self.net[t.metric], self.constant[t.metric])
            for t in TARGETS[self.kind]
        }
        if self.kind == "landmark_pose":
            grades[JITTERED_MAE.metric] = JITTERED_MAE.grade(self.jittered["mae"])
        return grades

    @property
    def passed(self) -> bool:
        """Whether every target is reached, on faces that the net was not trained on."""
        reached = set(self.grades().values()) <= {"aim", "must"}
        return reached and not self.trained_on

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
    pdm: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate a net of a kind on all faces of a file.

    ``predict`` maps (N, 112, 112, 3) uint8 RGB to arrays by output name. Without ``statistics`` of
    the net's training targets the means of these very faces are used, which flatters the constant
    predictor a little. ``boxes``: see :func:`.crops.box_crops`. ``trained_on``: hashes of the
    files that the net was trained on, with or without the faces that lie outside the crop, and of
    some of its faces, where they are known; ``pdm``: the net's, see ``provenance.pdm_of``.

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
        return {**landmark_pose_metrics(truth, prediction, means), **failure_rates(errors)}

    metrics = {name: measure(truths[name], predictions[name]) for name in predictions}
    subjects_by, subjects = subjects_of(dataset)
    theirs = pdm_of({"data": {"labellers": labellers(dataset.path)}}) or pdm or {}
    own = pdm or theirs
    key = "hash" if theirs.get("hash") and own.get("hash") else "name"
    net = predictions["net"]
    if kind == "au_prediction":
        intensities = labels["au_intensities"], net["au_intensities"]
        intervals, curves = au_intervals(*intensities, subjects), _responses(*intensities)
        errors = np.abs(np.float64(intensities[0]) - intensities[1]).mean(1)
    else:
        intervals = landmark_pose_intervals(labels, net, means["landmarks"], subjects)
        bounds = np.linspace(0, CURVE_END, 101)
        curves = {"nme": bounds.tolist()}
        for name, found in predictions.items():
            errors = nme(truths[name]["landmarks"], found["landmarks"])
            curves[name] = error_distribution(errors, bounds).tolist()
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
        other_pdm=theirs["name"] if theirs.get(key) != own.get(key) else "",
        net=metrics["net"],
        jittered=metrics["jittered"],
        boxes=detector
        and {"name": detector.name, "about": detector.about, "metrics": metrics["boxes"]},
        constant=metrics["constant"],
        intervals=intervals,
        breakdown=_breakdown(
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


def _breakdown(
    kind: str,
    truth: Arrays,
    prediction: Arrays,
    constant: Arrays,
    measure: Callable[[Arrays, Arrays], dict[str, Any]],
    subjects: np.ndarray,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Figures of every part that has a face; all NaN where it has only one.

    ``truth`` (labels and masks), ``prediction`` and ``constant``, the output of the constant
    predictor, are (N, ...) arrays by name; ``measure`` gives all metrics of two of them.
    ``subjects`` (N,) and the file's ``groups`` (N,), or None, name those of each face. An object a
    part: ``by`` (``"yaw"``, ``"group"``), ``part``, ``faces``, ``subjects``, those of HEADINGS.
    """
    known = np.asarray(truth.get("global_mask", np.ones(len(subjects)))) > 0
    yaw = np.degrees(np.abs(truth["global_params"][:, 2].astype(np.float64)))
    parts = []
    for low, high in pairwise(YAW_EDGES):
        name = f"over {low} degrees" if math.isinf(high) else f"{low} to {high} degrees"
        parts.append(("yaw", name, known & (yaw >= low) & (yaw < high)))
    parts.append(("yaw", "unknown", ~known))
    for group in [] if groups is None else sorted(set(groups.tolist())):
        parts.append(("group", group or "(none)", groups == group))
    rows = []
    for by, part, chosen in parts:
        faces = int(chosen.sum())
        if faces == 0:
            continue
        figures: dict[str, Any] = dict.fromkeys(HEADINGS[kind], math.nan)
        if faces > 1:
            true, predicted, same = (
                {name: values[chosen] for name, values in side.items()}
                for side in (truth, prediction, constant)
            )
            found = measure(true, predicted)
            found["constant_mae"] = measure(true, same)["mae"]
            if kind == "au_prediction":
                found["counted"] = int(counted_aus(true["au_intensities"]).sum())
            else:
                found["pose"] = found["pose"].get("mean", math.nan)
            figures = {name: found[name] for name in figures}
        counts = {"faces": faces, "subjects": len(np.unique(subjects[chosen]))}
        rows.append({"by": by, "part": part, **counts, **figures})
    return rows


def error_distribution(errors: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Cumulative error distribution: share of (N,) errors that are at most each bound (K,)."""
    return np.searchsorted(np.sort(errors), bounds, side="right") / len(errors)


def failure_rates(errors: np.ndarray) -> dict[str, float]:
    """Of (N,) errors (NME): ``failure_rate_8``, ``auc_8``, ``failure_rate_10``, ``auc_10``.

    The rate is the share, in [0, 1], of errors over the bound of 8 or 10 %; the area under the
    cumulative error distribution up to it is divided by the bound, so that 1 is perfect.
    """
    figures = {}
    for bound in BOUNDS:
        percent = round(100 * bound)
        figures[f"failure_rate_{percent}"] = float((errors > bound).mean())
        # Exact: a face with error e adds max(0, 1 - e / bound) / N.
        figures[f"auc_{percent}"] = float(np.clip(1 - errors / bound, 0, None).mean())
    return figures


def _responses(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Mean prediction by true intensity, the nearest of 0 to 5, of each action unit."""
    levels = np.digitize(truth, np.arange(MAX_INTENSITY) + 0.5)
    curves = {}
    for i, name in enumerate(AU_NAMES):
        count = np.bincount(levels[:, i], minlength=6)
        total = np.bincount(levels[:, i], np.float64(prediction[:, i]), minlength=6)
        means = np.divide(total, count, out=np.full(6, np.nan), where=count > 0)
        curves[name] = {"count": count.tolist(), "mean": means.tolist()}
    return curves
