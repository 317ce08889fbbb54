"""An evaluation as one picture of four panels."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.metrics import MINIMUM_SUPPORT
from mlx_faceau.errors import BrokenLibrary, MissingDependency
from mlx_faceau.output.matplotlib_figure import new_figure

from .ced import BOUNDS, CURVE_END
from .evaluate import Report
from .targets import TARGETS
from .text_report import conditions, header

_LOG = logging.getLogger(__name__)
_COLOURS = {"net": "#0072b2", "jittered": "#e69f00", "boxes": "#009e73", "constant": "#999999"}


def draw_report(report: Report, path: Path) -> Path | None:
    """Draw the evaluation.

    Args:
        report: what to draw.
        path: ends with ``.png``.

    Returns:
        The path; None without matplotlib (which is logged).
    """
    try:
        figure = new_figure(13, 9.5)
    except (MissingDependency, BrokenLibrary) as error:
        _LOG.warning("no picture drawn: %s", error)
        return None
    panels = _LANDMARKS if report.kind == "landmark_pose" else _AUS
    for axes, draw in zip(figure.subplots(2, 2).flat, panels, strict=True):
        draw(axes, report)
    figure.suptitle(header(vars(report)))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_ced(axes: Any, report: Report) -> None:
    bounds = 100 * np.array(report.curves["nme"])
    for (name, metrics), key in zip(conditions(report).items(), _keys(report), strict=True):
        label = f"{name}: over {100 * BOUNDS[0]:.0f} %: {100 * metrics['failure_rate_8']:.1f} %"
        axes.plot(bounds, 100 * np.array(report.curves[key]), color=_COLOURS[key], label=label)
    for bound in BOUNDS:
        axes.axvline(100 * bound, color="#bbbbbb", lw=0.8, ls="--")
    axes.set(xlim=(0, 100 * CURVE_END), ylim=(0, 100.5), title="cumulative error distribution")
    axes.set(xlabel="NME, % of the inter-ocular distance", ylabel="faces, %")
    _finish(axes)


def _draw_groups(axes: Any, report: Report) -> None:
    names = [*report.net["groups"], "all"]
    columns = [
        [*(group["mae"] for group in metrics["groups"].values()), metrics["mae"]]
        for metrics in conditions(report).values()
    ]
    labels = [name.replace("_", " ") for name in names]
    _draw_bars(axes, report, labels, columns)
    axes.set(title="landmark error", ylabel="mean absolute error, px")
    axes.axhline(TARGETS[report.kind][-1].must, color="#d55e00", lw=0.8, ls="--", label="must")
    _finish(axes, room=True)


def _draw_pose(axes: Any, report: Report) -> None:
    angles = list(report.net["pose"])
    columns = [list(metrics["pose"].values()) for metrics in conditions(report).values()]
    axes.set(title="pose error", ylabel="mean absolute error, degrees")
    if not angles:
        axes.text(0.5, 0.5, "no pose is known", ha="center", transform=axes.transAxes)
        return
    within = [report.intervals.get("pose", {}).get(angle) for angle in angles]
    _draw_bars(axes, report, angles, columns, within)
    _finish(axes, room=True)


def _draw_yaw(axes: Any, report: Report) -> None:
    rows = [row for row in report.breakdown if row["by"] == "yaw"]
    labels = [
        f"{row['part'].replace(' degrees', '°')}\n{row['faces']} face{'s' * (row['faces'] > 1)}"
        for row in rows
    ]
    axes.bar(labels, [row["mae"] for row in rows], width=0.5, color=_COLOURS["net"], label="net")
    constant = [row["constant_mae"] for row in rows]
    axes.plot(labels, constant, "D", color=_COLOURS["constant"], label="constant")
    unit = "px" if report.kind == "landmark_pose" else "of 5"
    axes.set(title="error by yaw, to either side", ylabel=f"mean absolute error, {unit}")
    axes.set_xlim(-0.5, len(rows) - 0.5)  # parts without figures have their place too
    _finish(axes, room=True)


def _draw_correlations(axes: Any, report: Report) -> None:
    names = list(report.net["aus"])
    places = np.arange(len(names))
    for (name, metrics), key in zip(conditions(report).items(), _keys(report), strict=True):
        values = [metrics["aus"][au]["r"] for au in names]
        if key == "net":
            axes.bar(places, np.nan_to_num(values), color=_COLOURS[key], label=name)
        elif key != "constant":
            axes.plot(places, values, "o", ms=5, color=_COLOURS[key], mec="white", label=name)
    _draw_whiskers(axes, places, [_interval(report, au, "r") for au in names])
    axes.axhline(
        TARGETS[report.kind][0].must, color="#d55e00", lw=0.8, ls="--", label="must, in the mean"
    )
    _label_aus(axes, report)
    low = min(0.0, *(np.nan_to_num(report.net["aus"][au]["r"]) for au in names))
    axes.set(title="Pearson's r by action unit (* too few faces for the mean)", ylim=(low, 1))
    _finish(axes, room=True)


def _draw_au_errors(axes: Any, report: Report) -> None:
    names = list(report.net["aus"])
    places = np.arange(len(names))
    values = [report.net["aus"][au]["mae"] for au in names]
    constant = [report.constant["aus"][au]["mae"] for au in names]
    axes.bar(places, values, color=_COLOURS["net"], label="net")
    _draw_whiskers(axes, places, [_interval(report, au, "mae") for au in names])
    axes.plot(places, constant, "D", color=_COLOURS["constant"], mec="white", label="constant")
    _label_aus(axes, report)
    axes.set(title="error by action unit", ylabel="mean absolute error, of 5")
    _finish(axes, room=True)


def _draw_responses(axes: Any, report: Report) -> None:
    """Mean prediction against the true intensity: a net that hedges stays flat."""
    levels = np.arange(MAX_INTENSITY + 1)
    curves = list(report.curves.values())
    for curve in curves:
        known = np.array(curve["count"]) >= 5
        axes.plot(levels[known], np.array(curve["mean"])[known], color="#bbbbbb", lw=0.9)
    counts = np.sum([curve["count"] for curve in curves], axis=0)
    totals = np.sum([np.nan_to_num(c["mean"]) * c["count"] for c in curves], axis=0)
    known = counts >= 5
    axes.plot(levels[known], (totals / np.maximum(counts, 1))[known], "o-", color=_COLOURS["net"],
              label="all action units")  # fmt: skip
    axes.plot([], [], color="#bbbbbb", label="one action unit (5 faces or more)")
    axes.plot(levels, levels, color="#999999", lw=0.8, ls="--", label="what the label says")
    axes.set(title="answer by true intensity", xlabel="label, nearest whole intensity")
    axes.set(ylabel="mean prediction", ylim=(0, MAX_INTENSITY))
    _finish(axes)


_LANDMARKS = (_draw_ced, _draw_groups, _draw_pose, _draw_yaw)
_AUS = (_draw_correlations, _draw_au_errors, _draw_responses, _draw_yaw)


def _keys(report: Report) -> list[str]:
    """Colours of the conditions, in their order."""
    return [key for key in _COLOURS if key != "boxes" or report.boxes is not None]


def _draw_bars(
    axes: Any,
    report: Report,
    labels: Sequence[str],
    columns: Sequence[Sequence[float]],
    within: Iterable[Sequence[float] | None] = (),
) -> None:
    width = 0.8 / len(columns)
    places = np.arange(len(labels))
    for i, (name, key) in enumerate(zip(conditions(report), _keys(report), strict=True)):
        left = places - 0.4 + (i + 0.5) * width
        axes.bar(left, columns[i], width, color=_COLOURS[key], label=name)
    _draw_whiskers(axes, places - 0.4 + 0.5 * width, list(within))
    axes.set_xticks(places, labels, rotation=30 if len(labels) > 5 else 0)


def _draw_whiskers(
    axes: Any, places: np.ndarray, intervals: Sequence[Sequence[float] | None]
) -> None:
    for place, ends in zip(places.tolist(), intervals, strict=False):
        if ends is not None:
            axes.plot([place, place], ends, color="black", lw=1.2)


def _interval(report: Report, au: str, key: str) -> list[float] | None:
    found: list[float] | None = report.intervals.get("aus", {}).get(au, {}).get(key)
    return found


def _label_aus(axes: Any, report: Report) -> None:
    labels = [
        name.removesuffix("_r") + ("*" if figures["support"] < MINIMUM_SUPPORT else "")
        for name, figures in report.net["aus"].items()
    ]
    axes.set_xticks(np.arange(len(labels)), labels, rotation=60)


def _finish(axes: Any, room: bool = False) -> None:
    """Grid and legend; with room above the bars, so that the legend hides none."""
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if room:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.15 * (high - low))
    axes.legend(fontsize=8, ncols=5 if room else 1, loc="upper left" if room else "best")
