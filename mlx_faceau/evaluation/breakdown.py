"""The same figures for parts of the faces: by how far the head is turned, and by group."""

import math
from collections.abc import Callable, Iterator
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
    people: np.ndarray,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Figures of every part that has a face; all NaN where it has one alone.

    Args:
        kind: of net.
        truth: labels and masks by name, (N, ...).
        prediction: by name, (N, ...).
        means: of the training faces: what a constant predictor says.
        people: (N,) who is on the face.
        groups: (N,) the file's groups, or None.

    Returns:
        One object a part: ``by`` (``"yaw"`` or ``"group"``), ``part``, ``faces``, ``people``, and
        the figures of :func:`_landmark_figures` or :func:`_au_figures`.
    """
    figures = _FIGURES[kind]
    rows = []
    for by, part, chosen in _parts(truth, groups):
        faces = int(chosen.sum())
        if faces == 0:
            continue
        own_truth, own_answer = (
            {name: values[chosen] for name, values in side.items()} for side in (truth, prediction)
        )
        known = figures(own_truth, own_answer, means)
        counts = {"faces": faces, "people": len(set(people[chosen].tolist()))}
        rows.append({"by": by, "part": part, **counts, **(known if faces > 1 else _unknown(known))})
    return rows


def _unknown(figures: dict[str, float]) -> dict[str, float]:
    return dict.fromkeys(figures, math.nan)


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
    """``mae`` px, ``constant_mae``, ``correlation_without_mean``, ``nme``, ``failure_rate_8``,
    ``pose`` (mean error of the angles, degrees; NaN where unknown)."""
    true, found = (np.asarray(side["landmarks"], np.float64) for side in (truth, prediction))
    errors = nme(true, found)
    known = np.asarray(truth.get("global_mask", np.ones(len(errors)))) > 0
    turned = angle_errors(truth["global_params"], prediction["global_params"])[known]
    return {
        "mae": float(np.abs(found - true).mean()),
        "constant_mae": float(np.abs(means["landmarks"] - true).mean()),
        "correlation_without_mean": landmark_correlation(true, found, means["landmarks"]),
        "nme": float(errors.mean()),
        "failure_rate_8": failure_rate(errors, BOUNDS[0]),
        "pose": float(turned.mean()) if known.any() else math.nan,
    }


def _au_figures(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, float]:
    """``mae``, ``constant_mae``, ``correlation`` (mean over the ``counted`` action units)."""
    sides = truth["au_intensities"], prediction["au_intensities"]
    constant = np.broadcast_to(means["au_intensities"], sides[0].shape)
    return {
        "mae": float(mean_absolute_error(*sides).mean()),
        "constant_mae": float(mean_absolute_error(sides[0], constant).mean()),
        "correlation": mean_au_correlation(*sides),
        "counted": int((au_support(sides[0]) >= MINIMUM_SUPPORT).sum()),
    }


_FIGURES: dict[str, Callable[[Arrays, Arrays, Arrays], dict[str, float]]] = {
    "landmark_pose": _landmark_figures,
    "au_prediction": _au_figures,
}
