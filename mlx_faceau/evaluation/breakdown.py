"""The same figures for parts of the faces: by head yaw, and by the file's groups."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mlx_faceau.core.metrics import (
    MINIMUM_SUPPORT,
    angle_errors,
    au_support,
    landmark_correlation,
    mean_absolute_error,
    mean_au_correlation,
    nme,
)

from .ced import BOUNDS, failure_rate

YAW_EDGES = (0, 10, 20, 30, 45, math.inf)  # degrees to either side

Arrays = dict[str, np.ndarray]


def breakdown(
    kind: str,
    truth: Arrays,
    prediction: Arrays,
    means: Arrays,
    subjects: np.ndarray,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Figures of every part that has a face; all NaN where it has only one.

    Args:
        kind: of net.
        truth: labels and masks by name, (N, ...).
        prediction: by name, (N, ...).
        means: of the training faces, the constant predictor's output.
        subjects: (N,) the subject of each face.
        groups: (N,) the file's groups, or None.

    Returns:
        One object a part: ``by`` (``"yaw"`` or ``"group"``), ``part``, ``faces``, ``subjects``, and
        for landmarks ``mae`` (px), ``constant_mae``, ``correlation_without_mean``, ``nme``,
        ``failure_rate_8`` and ``pose`` (mean error of the angles in degrees, NaN where unknown);
        for action units ``mae``, ``constant_mae``, ``correlation`` (mean over the units with enough
        active faces) and ``counted`` (how many these are).
    """
    figures = _au_figures if kind == "au_prediction" else _landmark_figures
    rows = []
    for by, part, chosen in _parts(truth, groups):
        faces = int(chosen.sum())
        if faces == 0:
            continue
        sides = [{n: v[chosen] for n, v in side.items()} for side in (truth, prediction)]
        values = figures(sides[0], sides[1], means)
        if faces == 1:
            values = dict.fromkeys(values, math.nan)
        counts = {"faces": faces, "subjects": len(np.unique(subjects[chosen]))}
        rows.append({"by": by, "part": part, **counts, **values})
    return rows


def _parts(truth: Arrays, groups: np.ndarray | None) -> Iterator[tuple[str, str, np.ndarray]]:
    known = np.asarray(truth.get("global_mask", np.ones(len(truth["landmarks"])))) > 0
    yaw = np.degrees(np.abs(truth["global_params"][:, 2].astype(np.float64)))
    for low, high in pairwise(YAW_EDGES):
        name = f"over {low} degrees" if math.isinf(high) else f"{low} to {high} degrees"
        yield "yaw", name, known & (yaw >= low) & (yaw < high)
    yield "yaw", "unknown", ~known
    for group in [] if groups is None else sorted(set(groups.tolist())):
        yield "group", group or "(none)", groups == group


def _landmark_figures(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, float]:
    true, predicted = (np.asarray(side["landmarks"], np.float64) for side in (truth, prediction))
    errors = nme(true, predicted)
    known = np.asarray(truth.get("global_mask", np.ones(len(errors)))) > 0
    turned = angle_errors(truth["global_params"], prediction["global_params"])[known]
    return {
        "mae": float(np.abs(predicted - true).mean()),
        "constant_mae": float(np.abs(means["landmarks"] - true).mean()),
        "correlation_without_mean": landmark_correlation(true, predicted, means["landmarks"]),
        "nme": float(errors.mean()),
        "failure_rate_8": failure_rate(errors, BOUNDS[0]),
        "pose": float(turned.mean()) if known.any() else math.nan,
    }


def _au_figures(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, float]:
    sides = truth["au_intensities"], prediction["au_intensities"]
    constant = np.broadcast_to(means["au_intensities"], sides[0].shape)
    return {
        "mae": float(mean_absolute_error(*sides).mean()),
        "constant_mae": float(mean_absolute_error(sides[0], constant).mean()),
        "correlation": mean_au_correlation(*sides),
        "counted": int((au_support(sides[0]) >= MINIMUM_SUPPORT).sum()),
    }
