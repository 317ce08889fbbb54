"""One HTML page about a recording: action units over time, pose, quality, pictures of the peaks.

Everything is inside the file (SVG and JPEG), so that it opens without a network.
"""

import base64
import html
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_DESCRIPTIONS, AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.video.align import crop_frame
from mlx_faceau.video.results import FaceResult, FrameResult

from .neutral_calibration import NeutralBaseline

_MOST_POINTS = 4000  # a curve; longer recordings are averaged in pairs, so that memory stays flat
_MOST_FACES = 12  # those seen longest are shown
_CLEARER_BY = 0.1  # intensity by which a new peak must beat the old one to replace its picture
_PEAKS_SHOWN = 6
_PEAK_FROM = 1.0
_WIDTH, _ROW, _POSE_ROW = 760, 34, 90
_POSE_NAMES = ("pitch", "yaw", "roll")
_STYLE = """
:root { color-scheme: light dark; --line: #0072b2; --faint: #8884; --text: #222; --back: #fff }
@media (prefers-color-scheme: dark) { :root { --line: #56b4e9; --text: #ddd; --back: #181a1b } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: var(--text); background: var(--back) }
h2 { border-top: 1px solid var(--faint); padding-top: 1rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { padding: .15rem .9rem .15rem 0; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; height: auto } svg text { fill: var(--text); font-size: 11px }
.peaks { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0 }
img { border-radius: 4px }
figcaption { font-size: 12px; max-width: 112px }
"""


class Curve:
    """Rows of numbers over time, of bounded length."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._values = array("f")
        self._sum = np.zeros(width)
        self._pending = 0
        self._stride = 1

    def add(self, row: np.ndarray) -> None:
        """Append (width,) numbers; once there are many rows, neighbours become their mean."""
        self._sum += row
        self._pending += 1
        if self._pending == self._stride:
            self._values.extend((self._sum / self._stride).tolist())
            self._sum[:] = 0
            self._pending = 0
            if len(self._values) >= 2 * _MOST_POINTS * self._width:
                halved = self.rows().reshape(-1, 2, self._width).mean(axis=1)
                self._values = array("f", halved.ravel().tolist())
                self._stride *= 2

    def rows(self) -> np.ndarray:
        """(points, width) float64."""
        return np.array(self._values, np.float64).reshape(-1, self._width)


@dataclass
class _Person:
    """What is kept of one face: columns are time, 17 action units, 3 angles, confidence."""

    curve: Curve = field(default_factory=lambda: Curve(NUM_AUS + 5))
    frames: int = 0
    successes: int = 0
    has_aus: bool = False
    peaks: dict[int, tuple[float, float, bytes]] = field(default_factory=dict)


class Report:
    """Collects a recording frame by frame; then writes the page.

    Args:
        title: what the page is about, such as the video's name.
        about: what made it, by title: nets, detector, version.
    """

    def __init__(self, title: str, about: Mapping[str, str] | None = None) -> None:
        self._title = title
        self._about = about or {}
        self._frames = 0
        self._faceless = 0
        self._seconds = 0.0
        self._people: dict[int, _Person] = {}

    def add(self, found: FrameResult) -> None:
        """Take in a frame."""
        self._frames += 1
        self._faceless += not found.faces
        self._seconds = found.frame.timestamp
        for face in found.faces:
            person = self._people.setdefault(face.face_id, _Person())
            person.frames += 1
            person.successes += face.success
            person.has_aus |= face.au_intensities is not None
            aus = np.zeros(NUM_AUS) if face.au_intensities is None else face.au_intensities
            time = found.frame.timestamp
            angles = np.degrees(face.global_params[1:4])
            person.curve.add(np.r_[time, aus, angles, face.confidence])
            if face.success:
                self._keep_peaks(person, found, face, aus)

    def _keep_peaks(
        self, person: _Person, found: FrameResult, face: FaceResult, aus: np.ndarray
    ) -> None:
        old = np.array([person.peaks[i][0] if i in person.peaks else 0.0 for i in range(NUM_AUS)])
        better = np.flatnonzero((aus > old + _CLEARER_BY) & (aus >= _PEAK_FROM))
        if len(better):
            crop = crop_frame(found.frame.image, face.warp_matrix)
            picture = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
            for i in better.tolist():
                person.peaks[i] = (float(aus[i]), found.frame.timestamp, picture)

    def write(self, path: Path | str, baseline: NeutralBaseline | None = None) -> None:
        """Write the page, whole or not at all.

        Args:
            path: ends with ``.html``.
            baseline: each person's resting face, subtracted from the curves; None for none.

        Raises:
            OSError: if it cannot be written.
        """
        shown = sorted(self._people.items(), key=lambda item: -item[1].frames)[:_MOST_FACES]
        parts = [self._summary(len(shown))]
        parts += [_person(i, person, self._seconds, baseline) for i, person in sorted(shown)]
        title = html.escape(self._title)
        page = (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head>"
            f"<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
        )
        with atomic_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _summary(self, shown: int) -> str:
        rows = {
            "length": f"{self._seconds:.1f} s, {_frames(self._frames)}",
            "frames without a face": f"{self._faceless}",
            "people": f"{len(self._people)}"
            + (f" ({shown} shown)" if shown < len(self._people) else ""),
        }
        rows |= {name: html.escape(text) for name, text in self._about.items()}
        cells = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
        return f"<table>{cells}</table>"


def _person(face_id: int, person: _Person, seconds: float, baseline: NeutralBaseline | None) -> str:
    rows = person.curve.rows()
    times, aus = rows[:, 0], rows[:, 1 : 1 + NUM_AUS]
    peaks = person.peaks
    if baseline is not None:
        offsets = baseline.offsets(face_id)
        aus = np.clip(aus - offsets, 0, MAX_INTENSITY)
        peaks = {i: (max(0.0, v - offsets[i]), t, p) for i, (v, t, p) in peaks.items()}
    share = 100 * person.successes / max(1, person.frames)
    return (
        f"<h2>Face {face_id}</h2>"
        f"<p>seen in {_frames(person.frames)}, {share:.0f} % with success</p>"
        f"{_au_chart(times, aus, seconds) if person.has_aus else ''}"
        f"<h3>Head pose, degrees</h3>{_pose_chart(times, rows[:, -4:-1], seconds)}"
        f"<h3>Confidence, 0 to 1</h3>{_chart(times, rows[:, -1:], seconds, 0, 1, ('',))}"
        f"{_gallery(peaks)}"
    )


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _au_chart(times: np.ndarray, aus: np.ndarray, seconds: float) -> str:
    height = _ROW * NUM_AUS + 20
    parts = []
    for i, name in enumerate(AU_NAMES):
        base = _ROW * (i + 1)
        label = f"{name[:4]} {AU_DESCRIPTIONS[name]}"
        parts.append(f'<line x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}" stroke="var(--faint)"/>')
        middle, highest = (f(aus[:, i]) if len(aus) else 0.0 for f in (np.mean, np.max))
        level = base - _ROW + 14
        parts.append(f'<text x="4" y="{level}">{html.escape(label)}</text>')
        parts.append(
            f'<text x="{_WIDTH - 4}" y="{level}" text-anchor="end">'
            f"mean {middle:.1f}, highest {highest:.1f}</text>"
        )
        points = _points(times, aus[:, i], seconds, 0, MAX_INTENSITY, base - _ROW + 3, base)
        parts.append(_polyline(points, "var(--line)"))
    chart = _svg(height, "".join(parts) + _ticks(seconds, height))
    return f"<h3>Action units, 0 to {MAX_INTENSITY:g}</h3>{chart}"


def _pose_chart(times: np.ndarray, angles: np.ndarray, seconds: float) -> str:
    limit = max(30.0, float(np.abs(angles).max(initial=0)))
    return _chart(times, angles, seconds, -limit, limit, _POSE_NAMES)


def _chart(
    times: np.ndarray, values: np.ndarray, seconds: float, low: float, high: float,
    names: tuple[str, ...],
) -> str:  # fmt: skip
    colours = ("#d55e00", "#009e73", "#0072b2") if len(names) > 1 else ("var(--line)",)
    middle = _POSE_ROW / 2 if low < 0 else _POSE_ROW
    parts = [f'<line x1="0" x2="{_WIDTH}" y1="{middle}" y2="{middle}" stroke="var(--faint)"/>']
    parts.append(f'<text x="{_WIDTH - 30}" y="12">{high:.0f}</text>')
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        points = _points(times, values[:, i], seconds, low, high, 3, _POSE_ROW)
        parts.append(_polyline(points, colour))
        parts.append(
            f'<text x="{4 + 60 * i}" y="{_POSE_ROW - 4}" style="fill:{colour}">{name}</text>'
        )
    return _svg(_POSE_ROW + 20, "".join(parts) + _ticks(seconds, _POSE_ROW + 20))


def _points(
    times: np.ndarray, values: np.ndarray, seconds: float,
    low: float, high: float, top: float, base: float,
) -> np.ndarray:  # fmt: skip
    x = times / max(seconds, 1e-9) * _WIDTH
    y = base - (np.clip(values, low, high) - low) / (high - low) * (base - top)
    return np.stack([x, y], axis=1)


def _polyline(points: np.ndarray, colour: str) -> str:
    """A curve, broken where the face was away for long; a moment alone is a dot."""
    if len(points) == 0:
        return ""
    gaps = np.diff(points[:, 0])
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    pieces = np.split(points, np.flatnonzero(gaps > max(10 * usual, 1.0)) + 1)
    return "".join(_stroke(piece, colour) for piece in pieces)


def _stroke(points: np.ndarray, colour: str) -> str:
    width = 1.3
    if len(points) == 1:
        points, width = points.repeat(2, axis=0), 4.0
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points.tolist())
    return (
        f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"'
        f' points="{path}"/>'
    )


def _ticks(seconds: float, height: int) -> str:
    raw = max(seconds, 1e-3) / 8
    unit = 10.0 ** np.floor(np.log10(raw))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= raw)
    return "".join(
        _tick(mark, mark / max(seconds, 1e-9) * _WIDTH, height)
        for mark in np.arange(0, seconds + 1e-9, step).tolist()
    )


def _tick(mark: float, x: float, height: int) -> str:
    anchor = "start" if x < 24 else "end" if x > _WIDTH - 24 else "middle"
    return f'<text x="{x:.0f}" y="{height - 4}" text-anchor="{anchor}">{mark:g} s</text>'


def _svg(height: int, inside: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{inside}</svg>'


def _gallery(peaks: dict[int, tuple[float, float, bytes]]) -> str:
    best = sorted(peaks.items(), key=lambda item: -item[1][0])[:_PEAKS_SHOWN]
    if not best:
        return ""
    figures = "".join(
        f'<figure><img width="112" height="112" alt="{AU_NAMES[i][:4]} at its peak" '
        f'src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
        f"<figcaption>{AU_NAMES[i][:4]} {value:.1f} at {time:.1f} s<br>"
        f"{html.escape(AU_DESCRIPTIONS[AU_NAMES[i]])}</figcaption></figure>"
        for i, (value, time, picture) in best
    )
    return f'<h3>Peaks</h3><div class="peaks">{figures}</div>'
