"""An evaluation as one picture: a curve over all faces, and bars by part or action unit."""

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
    """Draw the evaluation as PNG; returns None without matplotlib (which is logged)."""
    try:
        figure = new_figure(13, 5)
    except (MissingDependency, BrokenLibrary) as error:
        _LOG.warning("no picture drawn: %s", error)
        return None
    curves, bars = figure.subplots(1, 2)
    if evaluation.kind == "landmark_pose":
        _draw_error_curves(curves, evaluation)
        groups = {name: metrics["groups"] for name, metrics in evaluation.conditions().items()}
        columns = {name: [m["mae"] for m in parts.values()] for name, parts in groups.items()}
        labels = [group.replace("_", " ") for group in groups["net"]]
        _draw_columns(bars, "landmark MAE, px", labels, columns)
    else:
        _draw_responses(curves, evaluation)
        names = list(evaluation.net["aus"])
        columns = {
            name: [metrics["aus"][au]["r"] for au in names]
            for name, metrics in evaluation.conditions().items()
            if name != "constant"
        }
        within = evaluation.intervals.get("aus", {})
        intervals = [within.get(au, {}).get("r") for au in names]
        few = [evaluation.net["aus"][au]["support"] < MINIMUM_SUPPORT for au in names]
        labels = [au.removesuffix("_r") + "*" * rare for au, rare in zip(names, few, strict=True)]
        title = "Pearson's r (* too few faces for the mean)"
        _draw_columns(bars, title, labels, columns, intervals)
    figure.suptitle(header(evaluation))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_error_curves(axes: Any, evaluation: Evaluation) -> None:
    curves = {key: 100 * np.array(curve) for key, curve in evaluation.curves.items()}
    bounds = curves.pop("nme")
    conditions = evaluation.conditions()
    for (name, metrics), shares in zip(conditions.items(), curves.values(), strict=True):
        label = f"{name}: {100 * metrics['failure_rate_8']:.1f} % over {100 * BOUNDS[0]:.0f} %"
        axes.plot(bounds, shares, color=_COLOURS.get(name, _BOXES), label=label)
    for bound in BOUNDS:
        axes.axvline(100 * bound, color="#bbbbbb", lw=0.8, ls="--")
    axes.set(xlim=(0, 100 * CURVE_END), ylim=(0, 100.5), title="cumulative error distribution")
    axes.set(xlabel="NME, % of the inter-ocular distance", ylabel="faces, %")
    axes.legend(fontsize=8)


def _draw_responses(axes: Any, evaluation: Evaluation) -> None:
    """Mean prediction by true intensity: of each action unit, and of all."""
    levels = np.arange(MAX_INTENSITY + 1)
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
    axes.set_xticks(places, labels, rotation=45)
    axes.set(title=title, xlim=(-0.6, len(labels) - 0.4))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)
