"""Timelines of a video's report as SVG: those of each face, and who is visible when."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.metrics import ANGLES

from .plotting import INK, PALETTE, new_figure, page_style, svg
from .tables import au_label

_WIDTH = 10.0  # inches
_LEAST_TOP = 1.0  # intensity: a chart reaches at least so high, so that noise stays small


def face_chart(rows: np.ndarray, shown: list[int], seconds: float) -> str:
    """The timelines of one face, one below the other.

    One for each action unit, scaled to its data, beside it its range on the scale of 0 to 5; then
    the head pose in degrees, and the confidence, marked where the share of success is below a half.

    Args:
        rows: (N, 23): seconds, 17 intensities, pitch, yaw and roll in degrees, confidence, and
            success; NaN where the face was not visible.
        shown: action units to draw, by number.
        seconds: of the whole video.
    """
    times, aus, angles, confidence, success = np.split(rows, (1, 18, 21, 22), axis=1)
    times, confidence, success = times[:, 0], confidence[:, 0], success[:, 0]
    heights = [*[0.62] * len(shown), 1.7, 1.3]  # inches
    with page_style():
        figure = new_figure(_WIDTH, 0.25 + sum(heights))
        layout = {"width_ratios": (60, 1), "height_ratios": heights}
        grid = figure.subplots(len(heights), 2, squeeze=False, **layout)
        for (axes, gauge), i in zip(grid, shown, strict=False):
            values = aus[:, i]
            low, high = np.nanmin(values), np.nanmax(values)
            top = min(MAX_INTENSITY, max(_LEAST_TOP, 1.1 * float(high)))
            axes.fill_between(times, values, color=PALETTE[0], alpha=0.25, lw=0)
            _plot(axes, times, values, PALETTE[0])
            for level in range(1, int(top) + 1):
                axes.axhline(level, color=INK, lw=0.4, alpha=0.35, ls=":")
            axes.set(ylim=(0, 1.02 * top))
            axes.set_yticks([0, top], ["0", f"{np.floor(10 * top) / 10:g}"])
            axes.set_title(au_label(AU_NAMES[i]), loc="left", fontsize=9, pad=2)
            axes.set_title(f"mean {np.nanmean(values):.1f}, maximum {high:.1f}",
                           loc="right", fontsize=8, pad=2)  # fmt: skip
            gauge.bar(0, MAX_INTENSITY, color=INK, alpha=0.12, width=1)
            gauge.bar(0, max(high - low, 0.06), bottom=low, color=PALETTE[0], width=1)
            gauge.set(ylim=(0, MAX_INTENSITY), yticks=[0, MAX_INTENSITY], xticks=[])
            gauge.yaxis.tick_right()
            gauge.tick_params(labelsize=7, length=0)
            gauge.spines[:].set_visible(False)
        (pose, beside_pose), (quality, beside_quality) = grid[-2:]
        beside_pose.set_axis_off()
        beside_quality.set_axis_off()
        for i, name in enumerate(ANGLES):
            _plot(pose, times, angles[:, i], PALETTE[i], name)
        pose.axhline(0, color=INK, lw=0.5, alpha=0.5)
        limit = 1.1 * max(5.0, float(np.nanmax(np.abs(angles))))
        pose.set_title("Head pose, degrees", loc="left", fontsize=9, pad=2)
        pose.set(ylim=(-limit, limit))
        _plot(quality, times, confidence, PALETTE[2])
        failed = success < 0.5
        if failed.any():
            quality.plot(times[failed], confidence[failed], ".", ms=3, color=PALETTE[1],
                         label="below the threshold of success")  # fmt: skip
        quality.set_title("Confidence, 0 to 1", loc="left", fontsize=9, pad=2)
        quality.set(ylim=(0, 1.05), yticks=[0, 0.5, 1])
        for axes in grid[:, 0]:
            axes.set_xlim(0, seconds)
            _clear(axes, last=axes is quality)
        for axes in (pose, *([quality] if failed.any() else [])):
            axes.legend(
                loc="upper left", ncols=3, fontsize=8, frameon=False, bbox_to_anchor=(0.16, 1.25)
            )
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
