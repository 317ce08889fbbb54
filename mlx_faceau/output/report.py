"""Reports as one HTML page that needs no other file: of a video or webcam, and of images."""

from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.core.metrics import ANGLES
from mlx_faceau.errors import counted
from mlx_faceau.video.overlay import draw
from mlx_faceau.video.results import FaceResult, FrameResult

from .neutral_calibration import NeutralCalibration
from .plotting import INK, PALETTE, new_figure, page_style, svg
from .tables import au_label
from .templates import write_page

_COLUMNS = NUM_AUS + 6  # of a person's values
_MOST_POINTS = 2000  # of a timeline
_MOST_FACES = 12  # those seen longest are shown
_MOST_IMAGES = 500  # of a contact sheet
_PEAKS_SHOWN = 6
_ACTIVE = 1.0  # intensity from which an action unit is called active (FACS: trace, A)
_QUIET = 0.5  # intensity that an action unit must exceed to get a timeline
_THUMBNAIL, _SHEET_WIDTH = 192, 560  # px
_WIDTH = 10.0  # inches of a chart
_LEAST_TOP = 1.0  # intensity: a timeline reaches at least so high, so that noise stays small


@dataclass
class _Person:
    # Of each frame: time, 17 action units (NaN without a net for them), 3 angles in degrees,
    # confidence, success; 10 MB for an hour.
    values: "array[float]" = field(default_factory=lambda: array("f"))
    # By action unit the highest intensity so far, its time and its picture.
    peaks: dict[int, tuple[float, float, str]] = field(default_factory=dict)


class VideoReport:
    """Collects a video frame by frame; then writes the page.

    ``title`` names the video; ``about`` says by title what made the results. The ``calibration``
    is subtracted from the timelines.
    """

    def __init__(
        self, title: str, about: Mapping[str, str], calibration: NeutralCalibration | None = None
    ) -> None:
        self._page = {"title": title, "about": about}
        self._calibration = calibration or NeutralCalibration()
        self._frames, self._faceless = 0, 0
        self._start = self._seconds = 0.0  # of the first frame and of the last
        self._people: dict[int, _Person] = {}

    def add(self, result: FrameResult) -> None:
        """Take in a frame."""
        time = self._seconds = result.frame.timestamp
        self._start = self._start if self._frames else time
        self._frames += 1
        self._faceless += not result.faces
        for face in result.faces:
            person = self._people.setdefault(face.face_id, _Person())
            missing = np.full(NUM_AUS, np.nan)
            aus = missing if face.au_intensities is None else face.au_intensities
            angles = (face.pose.pitch, face.pose.yaw, face.pose.roll)
            person.values.extend((time, *aus.tolist(), *angles, face.confidence, face.success))
            if face.success:
                best = np.array([person.peaks.get(i, (0.0,))[0] for i in range(NUM_AUS)])
                new = np.flatnonzero((aus > best) & (aus >= _ACTIVE)).tolist()
                picture = _thumbnail(result, face) if new else ""
                person.peaks |= {i: (float(aus[i]), time, picture) for i in new}

    def write(self, path: Path | str) -> None:
        """Write the page, whole or not at all."""
        by_length = sorted(self._people.items(), key=lambda item: -len(item[1].values))
        shown = dict(sorted(by_length[:_MOST_FACES]))
        span = self._start, max(self._seconds, self._start + 1e-3)
        facts = {
            "length": f"{self._seconds - self._start:.1f} s, {counted(self._frames, 'frame')}",
            "frames without a face": f"{self._faceless}",
            "people": f"{len(self._people)}"
            + (f" ({len(shown)} shown)" if len(shown) < len(self._people) else ""),
        }
        write_page(
            path,
            "video_report.html",
            **self._page,
            facts=facts,
            visibility=_visibility_chart(shown, span) if len(shown) > 1 else None,
            people=[
                {"id": i, **_person(person, span, self._calibration.offsets(i))}
                for i, person in shown.items()
            ],
        )


def _person(person: _Person, span: tuple[float, float], offsets: np.ndarray) -> dict[str, Any]:
    """What the template shows of one face, whose neutral intensities are subtracted."""
    rows = np.array(person.values, np.float64).reshape(-1, _COLUMNS)
    aus = rows[:, 1 : 1 + NUM_AUS]
    aus[:] = np.clip(aus - offsets, 0, MAX_INTENSITY)
    aus[rows[:, -1] == 0] = np.nan  # without success they measure something else
    has_aus = bool(np.isfinite(aus).any())
    # By the value that the page shows: a maximum of 0.54 reads 0.5, which is not above it.
    highest = np.round(np.nanmax(aus, axis=0), 1) if has_aus else np.zeros(NUM_AUS)
    active = np.flatnonzero(highest > _QUIET).tolist()
    peaks = [(value - offsets[i], i, t, image) for i, (value, t, image) in person.peaks.items()]
    peaks = sorted((p for p in peaks if p[0] >= _ACTIVE), key=lambda peak: -peak[0])
    return {
        "frames": counted(len(rows), "frame"),
        "success": f"{100 * rows[:, -1].mean():.0f} %",
        "has_aus": has_aus,
        "chart": _face_chart(timeline(rows), aus, active, span),
        "moves": bool(active),
        "quiet": [n.removesuffix("_r") for i, n in enumerate(AU_NAMES) if i not in active],
        "quiet_below": _QUIET,
        "peaks": [
            (image, au_label(AU_NAMES[i]), f"{value:.1f}", f"{time:.1f}")
            for value, i, time, image in peaks[:_PEAKS_SHOWN]
        ],
    }


def timeline(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """A person's values as (points, columns) float64, at most 2000 points and the gaps.

    Neighbours of a longer video are averaged, where they are known. Wherever the face was not
    visible for long there is a row of NaN, so that lines break.
    """
    rows = np.array(values, np.float64).reshape(-1, _COLUMNS)
    steps = np.diff(rows[:, 0])
    usual = float(np.median(steps)) if len(steps) else 0.0
    gaps = np.flatnonzero(steps > max(5 * usual, 0.5)) + 1
    size = -(-len(rows) // _MOST_POINTS)
    starts = np.unique(np.r_[np.arange(0, len(rows), size), gaps])
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore"):
        means = np.add.reduceat(np.where(known, rows, 0), starts)
        means /= np.add.reduceat(known.astype(float), starts)
    return np.insert(means, np.searchsorted(starts, gaps), np.nan, axis=0)


def _face_chart(
    rows: np.ndarray, intensities: np.ndarray, shown: list[int], span: tuple[float, float]
) -> str:
    """The action units ``shown``, each with its range on the scale of 0 to 5; pose; confidence.

    ``rows`` (N, 23) are those of :func:`timeline`. Means and ranges are of the ``intensities`` of
    every frame, (F, 17), NaN without success: the rows of a long video are averages.
    """
    times, aus, angles, confidence, success = np.split(rows, (1, 18, 21, 22), axis=1)
    times, confidence, success = times[:, 0], confidence[:, 0], success[:, 0]
    heights = [*[0.62] * len(shown), 1.7, 1.3]  # inches
    with page_style():
        figure = new_figure(_WIDTH, 0.25 + sum(heights))
        grid = figure.subplots(
            len(heights), 2, squeeze=False, width_ratios=(60, 1), height_ratios=heights
        )
        for (axes, gauge), i in zip(grid, shown, strict=False):
            values, every = aus[:, i], intensities[:, i]
            low, high = np.nanmin(every), np.nanmax(every)
            top = min(MAX_INTENSITY, max(_LEAST_TOP, 1.1 * float(high)))
            axes.fill_between(times, values, color=PALETTE[0], alpha=0.25, lw=0)
            _draw_line(axes, times, values, PALETTE[0])
            for level in range(1, int(top) + 1):
                axes.axhline(level, color=INK, lw=0.4, alpha=0.35, ls=":")
            axes.set(ylim=(0, 1.02 * top))
            axes.set_yticks([0, top], ["0", f"{np.floor(10 * top) / 10:g}"])
            axes.set_title(au_label(AU_NAMES[i]), loc="left", fontsize=9, pad=2)
            axes.set_title(f"mean {np.nanmean(every):.1f}, maximum {high:.1f}",
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
            _draw_line(pose, times, angles[:, i], PALETTE[i], name)
        pose.axhline(0, color=INK, lw=0.5, alpha=0.5)
        limit = 1.1 * max(5.0, float(np.nanmax(np.abs(angles))))
        pose.set_title("Head pose, degrees", loc="left", fontsize=9, pad=2)
        pose.set(ylim=(-limit, limit))
        _draw_line(quality, times, confidence, PALETTE[2])
        failed = success < 0.5
        if failed.any():
            quality.plot(times[failed], confidence[failed], ".", ms=3, color=PALETTE[1],
                         label="below the threshold of success")  # fmt: skip
        quality.set_title("Confidence, 0 to 1", loc="left", fontsize=9, pad=2)
        quality.set(ylim=(0, 1.05), yticks=[0, 0.5, 1])
        for axes in grid[:, 0]:
            axes.set_xlim(span)
            _tidy_axes(axes, last=axes is quality)
        for axes in (pose, *([quality] if failed.any() else [])):
            axes.legend(
                loc="upper left", ncols=3, fontsize=8, frameon=False, bbox_to_anchor=(0.16, 1.25)
            )
        return svg(figure)


def _visibility_chart(people: Mapping[int, _Person], span: tuple[float, float]) -> str:
    with page_style():
        figure = new_figure(_WIDTH, 0.6 + 0.28 * len(people))
        axes = figure.subplots()
        for row, person in enumerate(people.values()):
            times = timeline(person.values)[:, 0]  # NaN between appearances
            _draw_line(axes, times, 0 * times + row, PALETTE[row % 7], width=6)
        axes.set_yticks(range(len(people)), [f"face {i}" for i in people])
        axes.set(xlim=span, ylim=(len(people) - 0.5, -0.5))
        _tidy_axes(axes, last=True)
        return svg(figure)


def _draw_line(
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


def _tidy_axes(axes: Any, last: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if last:
        axes.set_xlabel("seconds")
    else:
        axes.set_xticklabels([])


class ImageReport:
    """Collects images; then writes a contact sheet, whose arguments are a video report's."""

    def __init__(self, title: str, about: Mapping[str, str]) -> None:
        self._page = {"title": title, "about": about}
        self._images = self._faces = self._faceless = 0
        self._cards: list[dict[str, Any]] = []

    def add(self, result: FrameResult) -> None:
        """Take in an image."""
        self._images += 1
        self._faces += len(result.faces)
        self._faceless += not result.faces
        if len(self._cards) < _MOST_IMAGES:
            faces = [_face(face) for face in result.faces]
            size = max(result.frame.image.shape[:2])
            for text, face in zip(faces, result.faces, strict=True):
                # Several faces, or a distant one, are small in the sheet.
                if len(faces) > 1 or max(face.bbox[2:]) < size / 4:
                    text["image"] = _thumbnail(result, face)
            card = {"name": Path(result.source).name, "path": result.source, "faces": faces}
            self._cards.append(card | {"image": _scaled_drawing(result)})

    def write(self, path: Path | str) -> None:
        """Write the page, whole or not at all."""
        left = self._images - len(self._cards)
        facts = {
            "images": f"{self._images}"
            + (f" (the first {len(self._cards)} shown; the table has all)" if left else ""),
            "faces": f"{self._faces}",
            "images without a face": f"{self._faceless}",
        }
        write_page(path, "image_report.html", **self._page, facts=facts, cards=self._cards)


def _face(face: FaceResult) -> dict[str, Any]:
    pose = face.pose
    units = [] if face.au_intensities is None else zip(AU_NAMES, face.au_intensities, strict=True)
    active = sorted((u for u in units if u[1] >= _ACTIVE), key=lambda unit: -unit[1])
    return {
        "id": face.face_id,
        "success": face.success,
        "confidence": f"{face.confidence:.2f}",
        "pose": f"pitch {pose.pitch:z.0f}°, yaw {pose.yaw:z.0f}°, roll {pose.roll:z.0f}°",
        "has_aus": face.au_intensities is not None,
        "aus": [(au_label(name), f"{value:.1f}") for name, value in active],
    }


def _scaled_drawing(result: FrameResult) -> str:
    """The drawn image, reduced before its faces are drawn, so that lines stay clear."""
    image = result.frame.image
    scale = min(1.0, _SHEET_WIDTH / max(image.shape[:2]))
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]  # a strip keeps a row
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    faces = tuple(replace(face, landmarks=face.landmarks * scale) for face in result.faces)
    return _jpeg(draw(FrameResult(replace(result.frame, image=small), faces), text=False))


def _thumbnail(result: FrameResult, face: FaceResult) -> str:
    """The drawn face with some of what is around it, as far as it is in the frame."""
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    half = 0.75 * float((high - low).max())
    inside = np.maximum(np.array(result.frame.image.shape[1::-1]) - half / 8, 0)
    corner = np.clip((low + high) / 2 - half - (0, 0.25 * half), 0, inside)
    left, top = corner.astype(int).tolist()
    alone = draw(FrameResult(result.frame, (face,)), text=False)
    drawn = alone[top : top + round(2 * half), left : left + round(2 * half)]
    scale = _THUMBNAIL / max(drawn.shape[:2])
    return _jpeg(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _jpeg(image: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return b64encode(encoded.tobytes()).decode()
