"""Timelines of a video's report as SVG: action units, pose, confidence, who is visible when."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.metrics import ANGLES

from .plotting import INK, PALETTE, new_figure, page_style, svg
from .tables import au_label

_WIDTH = 10.0  # inches
_LEAST_TOP = 1.0  # intensity: a chart reaches at least so high, so that noise stays small


def au_chart(times: np.ndarray, aus: np.ndarray, shown: list[int], seconds: float) -> str:
    """One timeline an action unit, scaled to its data; beside it its range on the scale of 0 to 5.

    Args:
        times: (N,) seconds.
        aus: (N, 17) intensities; NaN where the face was not visible.
        shown: columns of ``aus`` to draw, at least one.
        seconds: of the whole video.
    """
    with page_style():
        figure = new_figure(_WIDTH, 0.25 + 0.62 * len(shown))
        grid = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(60, 1))
        for (axes, gauge), i in zip(grid, shown, strict=True):
            values = aus[:, i]
            top = min(MAX_INTENSITY, max(_LEAST_TOP, 1.1 * float(np.nanmax(values))))
            axes.fill_between(times, values, color=PALETTE[0], alpha=0.25, lw=0)
            _plot(axes, times, values, PALETTE[0])
            for level in range(1, int(top) + 1):
                axes.axhline(level, color=INK, lw=0.4, alpha=0.35, ls=":")
            axes.set(xlim=(0, seconds), ylim=(0, 1.02 * top), yticks=[0, np.floor(10 * top) / 10])
            axes.set_title(au_label(AU_NAMES[i]), loc="left", fontsize=9, pad=2)
            axes.set_title(f"mean {np.nanmean(values):.1f}, maximum {np.nanmax(values):.1f}",
                           loc="right", fontsize=8, pad=2)  # fmt: skip
            _clear(axes, last=i == shown[-1])
            low, high = np.nanmin(values), np.nanmax(values)
            gauge.bar(0, MAX_INTENSITY, color=INK, alpha=0.12, width=1)
            gauge.bar(0, max(high - low, 0.06), bottom=low, color=PALETTE[0], width=1)
            gauge.set(ylim=(0, MAX_INTENSITY), yticks=[0, MAX_INTENSITY], xticks=[])
            gauge.yaxis.tick_right()
            gauge.tick_params(labelsize=7, length=0)
            gauge.spines[:].set_visible(False)
        return svg(figure)


def pose_chart(times: np.ndarray, angles: np.ndarray, seconds: float) -> str:
    """(N, 3) pitch, yaw and roll in degrees over time, scaled to the data."""
    with page_style():
        figure = new_figure(_WIDTH, 1.9)
        axes = figure.subplots()
        for i, name in enumerate(ANGLES):
            _plot(axes, times, angles[:, i], PALETTE[i], name)
        axes.axhline(0, color=INK, lw=0.5, alpha=0.5)
        limit = 1.1 * max(5.0, float(np.nanmax(np.abs(angles))))
        axes.set(xlim=(0, seconds), ylim=(-limit, limit), ylabel="degrees")
        _legend(axes)
        return svg(figure)


def quality_chart(
    times: np.ndarray, confidence: np.ndarray, success: np.ndarray, seconds: float
) -> str:
    """Confidence in [0, 1] over time; where the share of success is below a half it is marked."""
    with page_style():
        figure = new_figure(_WIDTH, 1.5)
        axes = figure.subplots()
        _plot(axes, times, confidence, PALETTE[2])
        failed = success < 0.5
        if failed.any():
            axes.plot(times[failed], confidence[failed], ".", ms=3, color=PALETTE[1],
                      label="below the threshold of success")  # fmt: skip
            _legend(axes)
        axes.set(xlim=(0, seconds), ylim=(0, 1.05), yticks=[0, 0.5, 1])
        _clear(axes, last=True)
        return svg(figure)


def visibility_chart(people: Mapping[int, np.ndarray], seconds: float) -> str:
    """When each face is visible: times of its frames (NaN between appearances) by id."""
    with page_style():
        figure = new_figure(_WIDTH, 0.6 + 0.28 * len(people))
        axes = figure.subplots()
        for row, times in enumerate(people.values()):
            _plot(axes, times, np.where(np.isnan(times), np.nan, row), PALETTE[row % 7], width=6)
        axes.set_yticks(range(len(people)), [f"face {i}" for i in people])
        axes.set(xlim=(0, seconds), ylim=(len(people) - 0.5, -0.5))
        _clear(axes, last=True)
        return svg(figure)


def _plot(
    axes: Any,
    times: np.ndarray,
    values: np.ndarray,
    colour: str,
    label: str = "",
    width: float = 1.1,
) -> None:
    """A line, broken where values are NaN; a moment between two gaps is a dot."""
    axes.plot(times, values, color=colour, lw=width, label=label, solid_capstyle="butt")
    missing = np.isnan(np.r_[np.nan, values, np.nan])
    alone = missing[:-2] & missing[2:] & ~missing[1:-1]
    axes.plot(times[alone], values[alone], "o", ms=max(3.0, width), color=colour)


def _clear(axes: Any, last: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if last:
        axes.set_xlabel("seconds")
    else:
        axes.set_xticklabels([])


def _legend(axes: Any) -> None:
    axes.legend(loc="upper right", ncols=3, fontsize=8, frameon=False, bbox_to_anchor=(1, 1.22))
    _clear(axes, last=True)
