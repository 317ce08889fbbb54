"""Results drawn into the picture: landmarks, pose axes, and a panel of action units beside a face.

Every line and letter has a dark outline, so that it can be read on bright and dark ground.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

try:
    import av
except ModuleNotFoundError:  # pictures are drawn without it
    av = None  # type: ignore[assignment]

from mlx_faceau.core.facs import AU_DESCRIPTIONS, MAX_INTENSITY
from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.core.libraries import installed_opencv
from mlx_faceau.errors import MissingDependency, UsageError, VideoError, printable

if TYPE_CHECKING:
    from .results import FaceResult, FrameResult

# Both can be read up to the last whole fragment or cluster, however writing ended.
VIDEO_SUFFIXES = (".mp4", ".mkv")
LEGEND = (
    "# face id and confidence, 0-1 (grey: low)   AU intensity, 0-5   axes: x red, y green, z blue"
)

# BGR; one colour a person, in the order of face_id (Okabe and Ito: safe for the colour-blind).
_COLOURS = (
    (233, 180, 86),
    (0, 159, 230),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (0, 94, 213),
    (178, 114, 0),
)
_AXES = ((60, 60, 230), (80, 200, 80), (230, 120, 40))  # x, y, z
_CLOSED = {"right_eye", "left_eye", "outer_mouth", "inner_mouth"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LOW_CONFIDENCE, _WHITE, _DARK = (170, 170, 170), (255, 255, 255), (25, 25, 25)
_LEAST_ROW, _LARGEST_ROW = 13.0, 30.0  # px of a panel's row, up to full HD
_FULL_HD = 1080  # px; what is written in larger images grows with them
_FACE_MARGIN = 0.05  # around a face, of its height, where no panel lies
_MOST_NAMED = 2  # faces beside which the action units are named in full
_TIME_BASE = Fraction(1, 90_000)
_LARGEST_WINDOW = (1280, 720)  # px at first; it can be resized

Box = tuple[float, float, float, float]  # left, top, right, bottom
Colour = tuple[int, int, int]


@dataclass(frozen=True, order=True)
class _Panel:
    """Where a face's action units are written: its height of a row, its names' width in rows."""

    cost: float
    box: Box
    row: float
    names: float


def draw(found: "FrameResult", note: str = "", text: bool = True) -> np.ndarray:
    """A copy of the frame, (H, W, 3) uint8 BGR, with its faces; those of low confidence are grey.

    ``note`` is a short text for the upper left corner, such as the frames a second; ``text`` says
    whether ids, confidences, action units and the legend are drawn too.
    """
    image = found.frame.image.copy()
    height, width = image.shape[:2]
    for face in found.faces:
        # Lines and letters grow with the face, so that they can be read and hide nothing.
        size = float(np.ptp(face.landmarks, axis=0).max())
        _draw_landmarks(image, face, _colour(face), size)
        _draw_axes(image, face, size)
    if not text:
        return image
    scale = max(0.35, min(height, width) / 1000)
    taken = [_outset(_face_box(face), _FACE_MARGIN) for face in found.faces]
    floor = height  # of the panels
    if found.faces:
        room = (width - 2 * height / 100) / cv2.getTextSize(LEGEND, _FONT, 1.0, 1)[0][0]
        font = min(max(0.45, 0.6 * scale), room)
        legend = _write(image, LEGEND, (height / 100, 0.985 * height), font, _WHITE)
        taken.append(legend)
        floor = int(legend[1])
    labels = []
    for face in found.faces:
        label = f"#{face.face_id} {face.confidence:.2f}"
        font = float(np.clip(np.ptp(face.landmarks, axis=0).max() / 300, 0.45, max(1.1, scale)))
        labels.append((label, _face_box(face)[:2], font, _colour(face)))
        taken.append(_write(image, *labels[-1]))
    measured = [face for face in found.faces if face.au_intensities is not None]
    panels = _panel_places((floor, width), [_face_box(face) for face in measured], taken)
    for face, panel in zip(measured, panels, strict=True):
        _join(image, _face_box(face), panel, _colour(face))
    for face, panel in zip(measured, panels, strict=True):
        _draw_panel(image, face, panel, _colour(face))
    for each in labels:  # again, where a panel had to cover one
        _write(image, *each)
    if note:
        _write(image, note, (height / 100, 0.05 * height), 0.9 * scale, _WHITE)
    return image


def _colour(face: "FaceResult") -> Colour:
    return _COLOURS[face.face_id % len(_COLOURS)] if face.success else _LOW_CONFIDENCE


def _face_box(face: "FaceResult") -> Box:
    """The face with the forehead that the landmarks leave out."""
    x, y, width, height = face.bbox
    return x, y - 0.3 * height, x + width, y + height


def _draw_landmarks(image: np.ndarray, face: "FaceResult", colour: Colour, size: float) -> None:
    points = np.rint(np.clip(face.landmarks, -1e6, 1e6) * 16).astype(np.int32)
    width = max(1, round(size / 250))
    for stroke, shade in ((width + 2, _DARK), (width, colour)):
        for name, group in GROUPS.items():
            line = points[list(group)]
            cv2.polylines(image, [line], name in _CLOSED, shade, stroke, cv2.LINE_AA, shift=4)
    radius = float(np.clip(size / 150, 1, 6))
    for grown, shade in ((radius + 1, _DARK), (radius, _WHITE)):
        for x, y in points.tolist():
            cv2.circle(image, (x, y), round(grown * 16), shade, -1, cv2.LINE_AA, shift=4)


def _draw_axes(image: np.ndarray, face: "FaceResult", size: float) -> None:
    """The head's own x, y and (towards the camera) -z axes, from between the eyes."""
    axes = 0.45 * size * euler_to_matrix(face.global_params[1:4])[:2] * (1, 1, -1)
    for axis, colour in zip(axes.T, _AXES, strict=True):
        _line(image, face.landmarks[27] + [(0, 0), axis], colour, max(2, round(size / 90)))


def _draw_panel(image: np.ndarray, face: "FaceResult", panel: _Panel, colour: Colour) -> None:
    """A row an action unit: name, bar and value on a darkened ground."""
    (x, y, *_), row, names = panel.box, panel.row, panel.names
    x0, y0, x1, y1 = (max(0, round(value)) for value in panel.box)
    image[y0:y1, x0:x1] //= 3
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), colour, 1)
    font = row / 34
    _write(image, f"#{face.face_id}", (x + 0.3 * row, y + 0.95 * row), font, colour)
    values = zip(AU_DESCRIPTIONS.items(), face.aus.values(), strict=True)
    for i, ((name, description), value) in enumerate(values, start=2):
        text = f"{name[:4]} {description}" if names > 5 else name[:4]
        base, start = y + i * row, x + (0.4 + names) * row
        _write(image, text, (x + 0.3 * row, base - 0.1 * row), font, _WHITE)
        _write(image, f"{value:.1f}", (start + 4.3 * row, base - 0.1 * row), font, _WHITE)
        left, upper, lower = round(start), round(base - 0.65 * row), round(base - 0.1 * row)
        share = float(np.clip(value / MAX_INTENSITY, 0, 1))
        cv2.rectangle(image, (left, upper), (round(start + 4 * row), lower), (110, 110, 110), -1)
        if share > 0:
            cv2.rectangle(image, (left, upper), (round(start + 4 * share * row), lower), colour, -1)


def _join(image: np.ndarray, face: Box, panel: _Panel, colour: Colour) -> None:
    """A line from a face to its panel, if that lies apart."""
    centre = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    near = np.clip(centre, panel.box[:2], panel.box[2:])
    edge = np.clip(near, face[:2], face[2:])
    if np.hypot(*(near - edge)) > 3 * panel.row:
        _line(image, np.rint([near, edge]), colour, 1)


def _line(image: np.ndarray, points: np.ndarray, colour: Colour, width: int) -> None:
    start, end = np.rint(np.clip(16 * points, -(1 << 24), 1 << 24)).astype(int).tolist()
    for stroke, shade in ((width + 2, _DARK), (width, colour)):
        cv2.line(image, start, end, shade, stroke, cv2.LINE_AA, shift=4)


def _panel_places(size: tuple[int, int], faces: list[Box], taken: list[Box]) -> list[_Panel]:
    """A place for each face's panel near it, where it hides little of what is ``taken``.

    Faces choose one after the other; of two orders the better one is kept.
    """
    choices = []
    for step in (1, -1) if len(faces) > 1 else (1,):
        boxes, panels = list(taken), []
        for face in faces[::step]:
            panels.append(_panel_place(size, face, boxes, len(faces) <= _MOST_NAMED))
            boxes.append(_outset(panels[-1].box, 0.02))
        choices.append((sum(panel.cost for panel in panels), step, panels[::step]))
    return min(choices)[2]


def _panel_place(size: tuple[int, int], face: Box, taken: list[Box], named: bool) -> _Panel:
    """Beside its face or near it; units are named in full if that is wanted and has room."""
    height, width = size
    left, top, right, bottom = face
    limit = _LARGEST_ROW * max(1.0, min(height, width) / _FULL_HD)
    largest = min(float(np.clip((bottom - top) / 17, _LEAST_ROW, limit)), (height - 4) / 18.5)
    smallest = min(largest, max(_LEAST_ROW, 0.6 * largest))
    panels = []
    # Widths of "AU15 Lip Corner Depressor" and "AU15", in rows; smaller where that has no room.
    for names, row in [(12.0, largest)] * named + [(2.8, largest), (2.8, smallest)]:
        gap, tall = 0.4 * row + _FACE_MARGIN * (bottom - top), 18.5 * row
        wide = (names + 6.5) * row
        below, beyond = max(0.0, height - tall), max(0.0, width - wide)
        columns = [right + gap, left - gap - wide, (left + right - wide) / 2]
        levels = [top, bottom - tall, bottom + gap, top - 2 * row - tall]
        grid = np.meshgrid(
            np.clip([*columns, *np.linspace(0, beyond, 9)], 0, beyond),
            np.clip([*levels, *np.linspace(0, below, 9)], 0, below),
        )
        x, y = (values.ravel() for values in grid)
        boxes = np.stack([x, y, x + wide, y + tall], axis=1)
        hidden = (-_gaps(boxes, np.array(taken))).clip(0).prod(axis=2).sum(axis=1)
        apart = np.hypot(*_gaps(boxes, np.array([face]))[:, 0].clip(0).T)
        off = abs(y + tall / 2 - (top + bottom) / 2)  # level with the face is best
        cost = 5 * hidden / largest**2 + (apart + 0.1 * off) / largest
        cost += (0 if names > 5 else 3) + (0 if row == largest else 3)
        least = int(np.argmin(cost))
        x0, y0, x1, y1 = boxes[least].tolist()
        panels.append(_Panel(float(cost[least]), (x0, y0, x1, y1), row, names))
    return min(panels)


def _gaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M, 2) widths and heights between boxes (N, 4) and others (M, 4); negative: shared."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(low - high)


def _outset(box: Box, share: float) -> Box:
    """A box grown on each side by a share of its height."""
    left, top, right, bottom = box
    grown = share * (bottom - top)
    return left - grown, top - grown, right + grown, bottom + grown


def _write(
    image: np.ndarray, text: str, corner: tuple[float, float], scale: float, colour: Colour
) -> Box:
    """Text at a lower left corner, moved into the picture where it would leave it; its box."""
    scale = max(scale, 0.3)
    thick = max(1, round(scale * 1.4))
    (wide, high), _ = cv2.getTextSize(text, _FONT, scale, thick)
    x = round(float(np.clip(corner[0], 1, max(1, image.shape[1] - wide - 1))))
    y = round(float(np.clip(corner[1], high + 1, max(high + 1, image.shape[0] - 2))))
    # The outline is the text moved about: a thicker stroke is longer in some of OpenCV's fonts.
    for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        place = (x + dx * thick, y + dy * thick)
        cv2.putText(image, text, place, _FONT, scale, _DARK, thick, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), _FONT, scale, colour, thick, cv2.LINE_AA)
    return x - thick, y - high - thick, x + wide + thick, y + 0.3 * high + thick


class OverlayVideo:
    """A video of drawn frames (H.264), opened with the first one.

    Frames keep their times; ``rate`` is their mean number a second. The file is written in
    fragments of about a second, which players and browsers read even if the program was killed.

    Raises:
        UsageError: for another ending.
        VideoError: if the file could not be written to its end.
    """

    def __init__(self, path: Path | str, rate: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UsageError(f"{path}: an overlay video ends with {' or '.join(VIDEO_SUFFIXES)}")
        if av is None:
            raise MissingDependency("av")
        self._rate = max(rate, 1.0)
        self._container: Any = None
        self._stream: Any = None
        self._last = -1  # time of the last frame

    def add(self, found: "FrameResult") -> None:
        """Draw and append a frame; VideoError if the file cannot be written."""
        image = draw(found)
        # 4:2:0 needs even sizes.
        image = cv2.copyMakeBorder(
            image, 0, image.shape[0] % 2, 0, image.shape[1] % 2, cv2.BORDER_REPLICATE
        )
        with self._failures():
            if self._container is None:
                source = Path(found.source)
                if self.path.exists() and source.is_file() and self.path.samefile(source):
                    raise UsageError(f"{self.path}: is the video itself; name another file")
                self._open(image)
            size = (self._stream.width, self._stream.height)
            if image.shape[1::-1] != size:  # a stream may change its size; the file cannot
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            frame: Any = av.VideoFrame.from_ndarray(np.asarray(image, np.uint8), format="bgr24")
            frame.pts = round(found.frame.timestamp / _TIME_BASE)
            if frame.pts <= self._last:  # images have no times
                frame.pts = self._last + round(1 / (self._rate * _TIME_BASE))
            frame.time_base, self._last = _TIME_BASE, frame.pts
            self._container.mux(self._stream.encode(frame))

    def _open(self, image: np.ndarray) -> None:
        mp4 = self.path.suffix.lower() == ".mp4"
        fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        self._container = av.open(
            str(self.path),
            "w",
            format="mp4" if mp4 else "matroska",
            options={"flush_packets": "1"} | (fragments if mp4 else {"cluster_time_limit": "1000"}),
        )
        rate = Fraction(self._rate).limit_denominator(1001)
        stream: Any = self._container.add_stream("libx264", rate=rate)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.gop_size = round(self._rate)  # a fragment begins at a key frame
        stream.options = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}
        self._stream = stream

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._container = None
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"{self.path}: cannot be written: {reason}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._container is not None:
            with self._failures() if kind is None else suppress(av.error.FFmpegError, OSError):
                self._container.mux(self._stream.encode(None))
                self._container.close()


class LiveWindow:
    """A window that shows drawn frames with the frames a second; escape or q closes it.

    UsageError is raised if this OpenCV was built without windows; on Linux, without a display.
    """

    def __init__(self, title: str) -> None:
        self.is_open = True  # until the user closes it
        self._title = printable(title)
        self._times: list[float] = []  # of the last frames
        # Without a display Qt would end the program.
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            raise UsageError(
                "there is no display to show a window on (DISPLAY is not set); write the overlay "
                "to a file instead"
            )
        try:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            installed = " ".join(installed_opencv()) or "opencv-python-headless"
            raise UsageError(
                f"this OpenCV cannot open windows; run: pip uninstall -y {installed}; "
                "pip install opencv-python"
            ) from None

    def show(self, found: "FrameResult") -> None:
        """Draw a frame, from the main thread."""
        if not self.is_open:
            return
        self._times = [*self._times[-30:], time.monotonic()]
        seconds = self._times[-1] - self._times[0]
        note = f"{(len(self._times) - 1) / seconds:.0f} frames/s" if seconds else ""
        image = draw(found, note)
        if len(self._times) == 1:
            height, width = image.shape[:2]
            share = min(1.0, *np.divide(_LARGEST_WINDOW, (width, height)))
            cv2.resizeWindow(self._title, round(width * share), round(height * share))
        cv2.imshow(self._title, image)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        if key in (27, ord("q")) or not visible:
            self.is_open = False
            cv2.destroyAllWindows()
