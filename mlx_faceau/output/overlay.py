"""Results drawn into the picture: landmarks, pose axes, action unit bars, who is who."""

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.errors import UsageError, VideoError
from mlx_faceau.video.results import FaceResult, FrameResult

VIDEO_SUFFIX = ".mkv"  # Matroska: readable up to the last whole cluster, however writing ended

# BGR; one colour a person, in the order of face_id (Okabe and Ito: safe for the colour-blind).
_COLOURS = (
    (178, 114, 0),
    (0, 94, 213),
    (115, 158, 0),
    (167, 121, 204),
    (0, 159, 230),
    (233, 180, 86),
    (66, 228, 240),
)
_AXES = ((60, 60, 230), (80, 200, 80), (230, 120, 40))  # x red, y green, z blue
_CLOSED = {"right_eye", "left_eye", "outer_mouth", "inner_mouth"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DOUBTFUL = (150, 150, 150)


def draw(found: FrameResult) -> np.ndarray:
    """A copy of the frame with its faces drawn in; doubtful faces are grey.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    image = found.frame.image.copy()
    for face in found.faces:
        colour = _COLOURS[face.face_id % len(_COLOURS)] if face.success else _DOUBTFUL
        # Lines and letters grow with the face, so that they can be read and hide nothing.
        size = float(np.ptp(face.landmarks, axis=0).max())
        _draw_landmarks(image, face, colour, size)
        _draw_axes(image, face, size)
        _draw_panel(image, face, colour, size)
    return image


def _draw_landmarks(
    image: np.ndarray, face: FaceResult, colour: tuple[int, int, int], size: float
) -> None:
    points = np.clip(face.landmarks, -1e6, 1e6)
    for name, group in GROUPS.items():
        line = np.rint(points[list(group)] * 16).astype(np.int32)
        cv2.polylines(image, [line], name in _CLOSED, colour, 1, cv2.LINE_AA, shift=4)
    radius = int(np.clip(size / 150, 1, 6) * 16)
    for x, y in np.rint(points * 16).astype(int).tolist():
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1, cv2.LINE_AA, shift=4)


def _draw_axes(image: np.ndarray, face: FaceResult, size: float) -> None:
    """The head's own x, y and (towards the camera) -z axes, from between the eyes."""
    start = face.landmarks[27]
    rotation = euler_to_matrix(face.global_params[1:4])
    for axis, colour in enumerate(_AXES):
        direction = rotation[:2, axis] * (-1 if axis == 2 else 1)
        ends = np.rint(np.stack([start, start + 0.45 * size * direction]) * 16).astype(int)
        (x0, y0), (x1, y1) = np.clip(ends, -(1 << 24), 1 << 24).tolist()
        width = max(1, round(size / 120))
        cv2.line(image, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA, shift=4)


def _draw_panel(
    image: np.ndarray, face: FaceResult, colour: tuple[int, int, int], size: float
) -> None:
    """Name and confidence above the face; one bar an action unit beside it, where there is room."""
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    row = float(np.clip(size / 17, 9, 26))
    font = row / 26
    _write(
        image, f"{face.face_id}: {face.confidence:.2f}", (low[0], low[1] - 0.35 * size), font * 1.3,
        (255, 255, 255),
    )  # fmt: skip
    if face.au_intensities is None:
        return
    width = 5.5 * row
    left = high[0] + 0.15 * size
    if left + width > image.shape[1]:
        left = max(0.0, low[0] - 0.15 * size - width)
    top = float(np.clip(low[1] - 0.2 * size, 0, max(0, image.shape[0] - 17 * row)))
    for i, (name, value) in enumerate(zip(AU_NAMES, face.au_intensities, strict=True)):
        base = top + (i + 1) * row
        _write(image, name[2:4], (left, base - 0.2 * row), font, (255, 255, 255))
        start = (round(left + 1.4 * row), round(base - 0.8 * row))
        full = (round(left + width), round(base - 0.2 * row))
        end = (round(start[0] + (full[0] - start[0]) * float(value) / MAX_INTENSITY), full[1])
        cv2.rectangle(image, start, full, (60, 60, 60), 1)
        if value > 0:
            cv2.rectangle(image, start, end, colour, -1)


def _write(
    image: np.ndarray, text: str, corner: tuple[float, float], scale: float,
    colour: tuple[int, int, int],
) -> None:  # fmt: skip
    x = round(float(np.clip(corner[0], 0, image.shape[1] - 1)))
    y = round(float(np.clip(corner[1], 12, image.shape[0] - 1)))
    thick = max(1, round(scale * 1.4))
    cv2.putText(image, text, (x, y), _FONT, scale, (40, 40, 40), thick + 1, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), _FONT, scale, colour, thick, cv2.LINE_AA)


class OverlayVideo:
    """A video of drawn frames, opened with the first one.

    Args:
        path: ends with ``.mkv``; its frames can be read even if the program was killed.
        rate: frames a second.

    Raises:
        ValueError: for another ending.
        VideoError: at the end of the block, if the file could not be written to its end.
    """

    def __init__(self, path: Path | str, rate: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != VIDEO_SUFFIX:
            raise UsageError(f"{path}: an overlay video ends with {VIDEO_SUFFIX}")
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, found: FrameResult) -> None:
        """Draw and append a frame.

        Raises:
            VideoError: if the file cannot be written.
        """
        image = draw(found)
        if self._writer is None:
            size = (image.shape[1], image.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self._rate, size)
            if not self._writer.isOpened():
                raise VideoError(f"{self.path}: cannot be written (no room, no such folder)")
        self._writer.write(image)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            if kind is None:
                self._check_whole()

    def _check_whole(self) -> None:
        """OpenCV says nothing when the disk is full; but then the length at the end is missing."""
        capture = cv2.VideoCapture(str(self.path))
        whole = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        capture.release()
        if not whole:
            raise VideoError(f"{self.path}: cut short while it was written; is the disk full?")
