"""Pictures from files and cameras, one at a time: memory stays flat however long a video is."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.errors import FaceauError, UsageError

from .image_size import picture_size
from .opencv_log import NOTHING, opencv_says
from .results import Frame

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")

_DAMAGED_FRAMES = 30  # frames in a row that may fail before the rest of a file is given up
_CUT_SHORT = 0.95  # share of the promised frames below which a file counts as cut short
_LEAST_STEP = 0.001  # seconds between frames, as CSV files write them
_USUAL_RATE = 30.0  # frames a second, where a file or camera does not say
_MAX_VIDEO_PIXELS = 1 << 26  # of a frame; 8K has half of it
_MAX_PIXELS = 1 << 28  # of a picture
_FREE_PIXELS, _PIXELS_A_BYTE = 1 << 24, 10_000  # what a small file may claim; deflate's limit

# How containers of pictures begin: start, and the bytes there. Text is never one: FFmpeg reads
# playlists of many kinds, and opens whatever files and addresses they name.
_BEGINNINGS = (
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI"),
    (0, b"\0\0\1"),  # MPEG program and elementary streams
    (188, b"\x47"),  # MPEG transport stream
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"FLV\1"),
    (0, b"OggS\0"),
    (0, b"GIF8"),
)


class VideoError(FaceauError):
    """A video or picture cannot be opened, or a camera is not there."""


@dataclass(frozen=True)
class Span:
    """Which frames of a video are wanted.

    Args:
        start: seconds from the first frame.
        end: seconds; frames from here on are left out. None means the end.
        every: every how many frames one is taken.

    Raises:
        ValueError: if no frame can be in it.
    """

    start: float = 0.0
    end: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1 or self.start < 0 or (self.end is not None and self.end <= self.start):
            raise UsageError(
                f"start {self.start}, end {self.end}, every {self.every}: expected "
                "0 <= start < end in seconds and every >= 1"
            )

    def ends(self, seconds: float) -> bool:
        """Whether no frame from this time on is wanted."""
        return self.end is not None and seconds >= self.end

    def takes(self, index: int, seconds: float) -> bool:
        """Whether a frame before the end is wanted."""
        return seconds >= self.start and index % self.every == 0


WHOLE = Span()


class Video:
    """A video file, turned upright as its rotation says.

    Args:
        path: any file that OpenCV's decoder reads.

    Raises:
        VideoError: if it is missing, empty, or no readable video.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VideoError(f"{path}: no such file")
        if self.path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty")
        if not _is_container(self.path):
            raise VideoError(
                f"{path}: cannot be read as a video; it is none of MP4, MOV, MKV, WebM, AVI, MPEG, "
                "WMV, FLV, Ogg and GIF"
            )
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError(
                f"{path}: cannot be read as a video; it is cut short (an MP4 without its index), "
                "damaged, or in a format that OpenCV lacks"
            )
        width = self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > _MAX_VIDEO_PIXELS:
            raise VideoError(f"{path}: frames of {width:.0f} x {height:.0f} pixels are too large")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.rate = _positive(self._capture.get(cv2.CAP_PROP_FPS), _USUAL_RATE)
        # What the file claims; None where it does not say.
        self.count = int(_positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT), 0)) or None
        self.damaged = 0

    def frames(self, span: Span = WHOLE) -> Iterator[Frame]:
        """Frames in order with the file's own timestamps (its frame rate may vary).

        A frame that cannot be decoded is left out and counted in ``damaged``; when many in a row
        fail, the rest is given up. Either is logged. The file is closed at the end.
        """
        first, last, index = None, -np.inf, 0
        try:
            while self._grab(index):
                moment = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                first = moment if first is None else first
                seconds = moment - first
                if seconds <= last:  # some containers give no times: then the rate does
                    seconds = max(index / self.rate, last + _LEAST_STEP)
                last = seconds
                if span.ends(seconds):
                    break
                if span.takes(index, seconds):
                    yield from self._decoded(index, seconds)
                index += 1
            else:
                self._report(index)
        finally:
            self._capture.release()

    def _grab(self, index: int) -> bool:
        """Step to the next frame that can be read; False at the end."""
        for failed in range(_DAMAGED_FRAMES):
            if self._capture.grab():
                self.damaged += failed
                return True
            if self.count is None or index + failed + 1 >= self.count:
                return False
        return False

    def _decoded(self, index: int, seconds: float) -> Iterator[Frame]:
        ok, image = self._capture.retrieve()
        if ok and image is not None:
            yield Frame(index, seconds, _as_bgr(image))
        else:
            self.damaged += 1

    def _report(self, read: int) -> None:
        # An edit list may hide a few frames; a cut file lacks many.
        if self.count and read + self.damaged < _CUT_SHORT * self.count - 1:
            self.damaged = self.count - read
        if self.damaged:
            logger.warning(
                "%s: %d of %s frames could not be read; the file is damaged or cut short",
                self.path, self.damaged, self.count or "its",
            )  # fmt: skip


class Camera:
    """A webcam, read until it disappears or the consumer stops.

    Args:
        source: its number, from 0.
        capture: an opened ``cv2.VideoCapture`` or the like; None opens the camera.

    Raises:
        VideoError: if there is no such camera, or it may not be used.
    """

    rate = _USUAL_RATE
    count = None

    def __init__(self, source: int = 0, capture: Any = None) -> None:
        self.name = f"webcam {source}"
        with opencv_says(NOTHING):  # every way to reach a camera that OpenCV tries in vain
            self._capture = cv2.VideoCapture(source) if capture is None else capture
        if not self._capture.isOpened():
            raise VideoError(f"{self.name}: not there, in use by another program, or not allowed")

    def frames(self, span: Span = WHOLE) -> Iterator[Frame]:
        """Frames with the seconds since the first; a camera that disappears ends them.

        Raises:
            VideoError: if not even one frame came.
        """
        start, index = cv2.getTickCount(), 0
        try:
            while True:
                ok, image = self._capture.read()
                seconds = (cv2.getTickCount() - start) / cv2.getTickFrequency()
                if not ok or image is None:
                    break
                if span.ends(seconds):
                    return
                if span.takes(index, seconds):
                    yield Frame(index, seconds, _as_bgr(image))
                index += 1
        finally:
            self._capture.release()
        if index == 0:
            raise VideoError(f"{self.name}: it opens but gives no pictures")
        logger.warning("%s: it disappeared after %d frames", self.name, index)


def read_image(path: Path | str) -> np.ndarray:
    """A picture as (H, W, 3) uint8 BGR: turned upright by its EXIF, grey repeated, alpha dropped.

    Raises:
        VideoError: if it is missing, no readable PNG, JPEG, BMP, TIFF or WebP, or too large.
    """
    path = Path(path)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from None
    size = picture_size(data.tobytes())
    if size is not None and size[0] * size[1] > _most_pixels(data.size):
        raise VideoError(f"{path}: it claims {size[0]} x {size[1]} pixels, too many for its bytes")
    try:
        image = None if size is None else cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise VideoError(f"{path}: not a readable picture")
    return image


def _most_pixels(count: int) -> int:
    """What a picture file of so many bytes may claim."""
    return min(_MAX_PIXELS, _FREE_PIXELS + _PIXELS_A_BYTE * count)


def _is_container(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(256)
    return any(head.startswith(beginning, start) for start, beginning in _BEGINNINGS)


def _as_bgr(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image[..., :3]


def _positive(value: float, otherwise: float) -> float:
    return float(value) if np.isfinite(value) and value > 0 else otherwise
