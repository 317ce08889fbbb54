"""The same figures for parts of the faces: by head yaw, and by the file's groups."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mlx_faceau.core.metrics import MINIMUM_SUPPORT

YAW_EDGES = (0, 10, 20, 30, 45, math.inf)  # degrees to either side
# What is shown of a part, by its heading in a table. ``pose``: mean error of the angles;
# ``counted``: how many action units have enough active faces for the mean correlation.
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

Arrays = dict[str, np.ndarray]


def breakdown(
    kind: str,
    truth: Arrays,
    prediction: Arrays,
    constant: Arrays,
    measure: Callable[[Arrays, Arrays], dict[str, Any]],
    subjects: np.ndarray,
    groups: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Figures of every part that has a face; all NaN where it has only one.

    Args:
        kind: of net.
        truth: labels and masks by name, (N, ...).
        prediction: by name, (N, ...).
        constant: output of the constant predictor, (N, ...).
        measure: gives all metrics of some faces' truth and prediction.
        subjects: (N,) the subject of each face.
        groups: (N,) the file's groups, or None.

    Returns:
        One object a part: ``by`` (``"yaw"`` or ``"group"``), ``part``, ``faces``, ``subjects``, and
        the keys of :data:`HEADINGS`.
    """
    rows = []
    for by, part, chosen in _parts(truth, groups):
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
                supports = [unit["support"] for unit in found["aus"].values()]
                found["counted"] = sum(support >= MINIMUM_SUPPORT for support in supports)
            else:
                found["pose"] = found["pose"].get("mean", math.nan)
            figures = {name: found[name] for name in figures}
        counts = {"faces": faces, "subjects": len(np.unique(subjects[chosen]))}
        rows.append({"by": by, "part": part, **counts, **figures})
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
