"""An evaluation as one picture of four panels."""

import logging
from collections.abc import Sequence
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
from .targets import TARGETS

_LOG = logging.getLogger(__name__)
_NET, _JITTERED, _BOXES, _CONSTANT, _BOUND = "#0072b2", "#e69f00", "#009e73", "#999999", "#d55e00"
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
    landmarks = evaluation.kind == "landmark_pose"
    first, second, third, fourth = figure.subplots(2, 2).flat
    if landmarks:
        _draw_ced(first, evaluation)
        _draw_landmark_errors(second, evaluation)
        _draw_pose(third, evaluation)
    else:
        _draw_correlations(first, evaluation)
        _draw_au_errors(second, evaluation)
        _draw_responses(third, evaluation)
    _draw_yaw(fourth, evaluation, "px" if landmarks else "of 5")
    for axes in (first, second, third, fourth):
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.suptitle(header(vars(evaluation)))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_ced(axes: Any, evaluation: Evaluation) -> None:
    bounds = 100 * np.array(evaluation.curves["nme"])
    keys = [key for key in evaluation.curves if key != "nme"]
    for key, (name, metrics) in zip(keys, evaluation.conditions().items(), strict=True):
        label = f"{name}: {100 * metrics['failure_rate_8']:.1f} % over {100 * BOUNDS[0]:.0f} %"
        shares = 100 * np.array(evaluation.curves[key])
        axes.plot(bounds, shares, color=_colour(name), label=label)
    for bound in BOUNDS:
        axes.axvline(100 * bound, color="#bbbbbb", lw=0.8, ls="--")
    axes.set(xlim=(0, 100 * CURVE_END), ylim=(0, 100.5), title="cumulative error distribution")
    axes.set(xlabel="NME, % of the inter-ocular distance", ylabel="faces, %")


def _draw_landmark_errors(axes: Any, evaluation: Evaluation) -> None:
    groups = list(evaluation.net["groups"])
    for name, metrics in evaluation.conditions().items():
        errors = [*(metrics["groups"][group]["mae"] for group in groups), metrics["mae"]]
        axes.plot(errors, "o", color=_colour(name), label=name)
    axes.axhline(TARGETS["landmark_pose"][-1].must, color=_BOUND, lw=0.8, ls="--", label="must")
    labels = [*(group.replace("_", " ") for group in groups), "all"]
    axes.set_xticks(np.arange(len(labels)), labels, rotation=30)
    axes.set(title="landmark error", ylabel="mean absolute error, px", ylim=(0, None))


def _draw_pose(axes: Any, evaluation: Evaluation) -> None:
    axes.set(title="pose error", ylabel="mean absolute error, degrees")
    angles = list(evaluation.net["pose"])
    if not angles:
        axes.text(0.5, 0.5, "no pose is known", ha="center", transform=axes.transAxes)
        return
    for name, metrics in evaluation.conditions().items():
        axes.plot([metrics["pose"][a] for a in angles], "o", color=_colour(name), label=name)
    _draw_intervals(axes, [evaluation.intervals.get("pose", {}).get(angle) for angle in angles])
    axes.set_xticks(np.arange(len(angles)), angles)
    axes.set(ylim=(0, None))


def _draw_correlations(axes: Any, evaluation: Evaluation) -> None:
    for name, metrics in evaluation.conditions().items():
        values = np.array([figures["r"] for figures in metrics["aus"].values()])
        if name == "net":
            axes.bar(np.arange(len(values)), np.nan_to_num(values), color=_NET, label=name)
        elif name != "constant":
            axes.plot(values, "o", ms=5, color=_colour(name), mec="white", label=name)
    _draw_intervals(axes, _au_intervals(evaluation, "r"))
    must = TARGETS["au_prediction"][0].must
    axes.axhline(must, color=_BOUND, lw=0.8, ls="--", label="must, of the mean")
    _label_aus(axes, evaluation)
    axes.set(title="Pearson's r by action unit (* too few faces for the mean)")
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1)


def _draw_au_errors(axes: Any, evaluation: Evaluation) -> None:
    values = [figures["mae"] for figures in evaluation.net["aus"].values()]
    constant = [figures["mae"] for figures in evaluation.constant["aus"].values()]
    axes.bar(np.arange(len(values)), values, color=_NET, label="net")
    axes.plot(constant, "D", color=_CONSTANT, mec="white", label="constant")
    _draw_intervals(axes, _au_intervals(evaluation, "mae"))
    _label_aus(axes, evaluation)
    axes.set(title="error by action unit", ylabel="mean absolute error, of 5")


def _draw_responses(axes: Any, evaluation: Evaluation) -> None:
    """Mean prediction against the true intensity: of a net that learned little it is flat."""
    levels = np.arange(MAX_INTENSITY + 1)
    curves = list(evaluation.curves.values())
    for curve in curves:
        known = np.array(curve["count"]) >= _FEWEST
        axes.plot(levels[known], np.array(curve["mean"])[known], color="#bbbbbb", lw=0.9)
    counts = np.sum([curve["count"] for curve in curves], axis=0)
    totals = np.sum([np.nan_to_num(c["mean"]) * c["count"] for c in curves], axis=0)
    known = counts >= _FEWEST
    means = totals / np.maximum(counts, 1)
    axes.plot(levels[known], means[known], "o-", color=_NET, label="all action units")
    axes.plot([], [], color="#bbbbbb", label=f"one action unit ({_FEWEST} faces or more)")
    axes.plot(levels, levels, color=_CONSTANT, lw=0.8, ls="--", label="label")
    axes.set(title="prediction by true intensity", xlabel="label, nearest whole intensity")
    axes.set(ylabel="mean prediction", ylim=(0, MAX_INTENSITY))


def _draw_yaw(axes: Any, evaluation: Evaluation, unit: str) -> None:
    rows = [row for row in evaluation.breakdown if row["by"] == "yaw"]
    labels = [
        f"{row['part'].replace(' degrees', '°')}\n{row['faces']} face{'s' * (row['faces'] > 1)}"
        for row in rows
    ]
    axes.bar(labels, [row["mae"] for row in rows], width=0.5, color=_NET, label="net")
    constant = [row["constant_mae"] for row in rows]
    axes.plot(labels, constant, "D", color=_CONSTANT, label="constant")
    axes.set(title="error by yaw, to either side", ylabel=f"mean absolute error, {unit}")
    axes.set_xlim(-0.5, len(rows) - 0.5)  # parts without figures have their place too


def _colour(condition: str) -> str:
    return {"net": _NET, "jittered": _JITTERED, "constant": _CONSTANT}.get(condition, _BOXES)


def _draw_intervals(axes: Any, intervals: Sequence[Sequence[float] | None]) -> None:
    for place, ends in enumerate(intervals):
        if ends is not None:
            axes.plot([place, place], ends, color="black", lw=1.2)


def _au_intervals(evaluation: Evaluation, key: str) -> list[Sequence[float] | None]:
    aus = evaluation.intervals.get("aus", {})
    return [aus.get(name, {}).get(key) for name in evaluation.net["aus"]]


def _label_aus(axes: Any, evaluation: Evaluation) -> None:
    labels = [
        name.removesuffix("_r") + ("*" if figures["support"] < MINIMUM_SUPPORT else "")
        for name, figures in evaluation.net["aus"].items()
    ]
    axes.set_xticks(np.arange(len(labels)), labels, rotation=60)
