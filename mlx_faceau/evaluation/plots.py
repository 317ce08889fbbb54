"""An evaluation as one picture of four panels."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.metrics import MINIMUM_SUPPORT
from mlx_faceau.errors import BrokenLibrary, MissingDependency
from mlx_faceau.output.plotting import new_figure

from .ced import BOUNDS, CURVE_END
from .evaluate import Evaluation
from .report import header

_LOG = logging.getLogger(__name__)
_COLOURS = {"net": "#0072b2", "jittered": "#e69f00", "constant": "#999999"}
_BOXES = "#009e73"
_FEWEST = 5  # faces of a true intensity whose mean prediction is drawn


def draw_evaluation(evaluation: Evaluation, path: Path) -> Path | None:
    """Draw the evaluation.

    Args:
        evaluation: what to draw.
        path: ends with ``.png``.

    Returns:
        The path; None without matplotlib (which is logged).
    """
    try:
        figure = new_figure(13, 9.5)
    except (MissingDependency, BrokenLibrary) as error:
        _LOG.warning("no picture drawn: %s", error)
        return None
    panels = list(figure.subplots(2, 2).flat)
    if evaluation.kind == "landmark_pose":
        _draw_landmark_panels(panels, evaluation)
    else:
        _draw_au_panels(panels, evaluation)
    yaw = [row for row in evaluation.breakdown if row["by"] == "yaw"]
    parts = [
        f"{row['part'].replace(' degrees', '°')}\n{row['faces']} face{'s' * (row['faces'] > 1)}"
        for row in yaw
    ]
    columns = {"net": [r["mae"] for r in yaw], "constant": [r["constant_mae"] for r in yaw]}
    unit = "px" if evaluation.kind == "landmark_pose" else "of 5"
    _draw_columns(panels[3], f"MAE by yaw, to either side, {unit}", parts, columns)
    figure.suptitle(header(evaluation))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_landmark_panels(panels: Sequence[Any], evaluation: Evaluation) -> None:
    conditions = evaluation.conditions()
    curves = {key: 100 * np.array(curve) for key, curve in evaluation.curves.items()}
    bounds = curves.pop("nme")
    for (name, metrics), shares in zip(conditions.items(), curves.values(), strict=True):
        label = f"{name}: {100 * metrics['failure_rate_8']:.1f} % over {100 * BOUNDS[0]:.0f} %"
        panels[0].plot(bounds, shares, color=_COLOURS.get(name, _BOXES), label=label)
    for bound in BOUNDS:
        panels[0].axvline(100 * bound, color="#bbbbbb", lw=0.8, ls="--")
    panels[0].set(xlim=(0, 100 * CURVE_END), ylim=(0, 100.5), title="cumulative error distribution")
    panels[0].set(xlabel="NME, % of the inter-ocular distance", ylabel="faces, %")
    panels[0].legend(fontsize=8)
    groups = list(evaluation.net["groups"])
    errors = {
        name: [*(m["groups"][group]["mae"] for group in groups), m["mae"]]
        for name, m in conditions.items()
    }
    labels = [*(group.replace("_", " ") for group in groups), "all"]
    _draw_columns(panels[1], "landmark MAE, px", labels, errors)
    angles = list(evaluation.net["pose"])
    pose = {name: [m["pose"][angle] for angle in angles] for name, m in conditions.items()}
    intervals = [evaluation.intervals.get("pose", {}).get(angle) for angle in angles]
    title = "pose error, degrees" if angles else "no pose is known"
    _draw_columns(panels[2], title, angles, pose, intervals)


def _draw_au_panels(panels: Sequence[Any], evaluation: Evaluation) -> None:
    """Correlation, error, and the mean prediction by true intensity."""
    within = evaluation.intervals.get("aus", {})
    labels = [
        name.removesuffix("_r") + ("*" if figures["support"] < MINIMUM_SUPPORT else "")
        for name, figures in evaluation.net["aus"].items()
    ]
    titles = {"r": "Pearson's r (* too few faces for the mean)", "mae": "MAE, of 5"}
    for axes, (key, title) in zip(panels, titles.items(), strict=False):
        columns = {
            name: [np.nan_to_num(figures[key]) for figures in metrics["aus"].values()]
            for name, metrics in evaluation.conditions().items()
            if not (key == "r" and name == "constant")
        }
        intervals = [within.get(name, {}).get(key) for name in evaluation.net["aus"]]
        _draw_columns(axes, title, labels, columns, intervals)
    axes, levels = panels[2], np.arange(MAX_INTENSITY + 1)
    counts = np.array([curve["count"] for curve in evaluation.curves.values()])
    means = np.array([curve["mean"] for curve in evaluation.curves.values()])
    for count, mean in zip(counts, means, strict=True):
        axes.plot(levels[count >= _FEWEST], mean[count >= _FEWEST], color="#bbbbbb", lw=0.9)
    total = counts.sum(axis=0)
    overall = (np.nan_to_num(means) * counts).sum(axis=0) / np.maximum(total, 1)
    known = total >= _FEWEST
    axes.plot(levels[known], overall[known], "o-", color=_COLOURS["net"], label="all action units")
    axes.plot([], [], color="#bbbbbb", label=f"one action unit ({_FEWEST} faces or more)")
    axes.plot(levels, levels, color=_COLOURS["constant"], lw=0.8, ls="--", label="label")
    axes.set(title="prediction by true intensity", xlabel="label, nearest whole intensity")
    axes.set(ylabel="mean prediction", ylim=(0, MAX_INTENSITY))
    axes.legend(fontsize=8)


def _draw_columns(
    axes: Any,
    title: str,
    labels: Sequence[str],
    columns: Mapping[str, Sequence[float]],
    intervals: Sequence[Sequence[float] | None] = (),
) -> None:
    """The net as bars with its confidence intervals, the other conditions as dots."""
    places = np.arange(len(labels))
    for name, values in columns.items():
        colour = _COLOURS.get(name, _BOXES)
        if name == "net":
            axes.bar(places, values, 0.6, color=colour, label=name)
        else:
            axes.plot(places, values, "o", ms=5, color=colour, mec="white", label=name)
    for place, ends in enumerate(intervals):
        if ends is not None:
            axes.plot([place, place], ends, color="black", lw=1.2)
    axes.set_xticks(places, labels, rotation=45 if len(labels) > 6 else 0)
    axes.set(title=title, xlim=(-0.6, max(len(labels), 1) - 0.4))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)
