"""Frames from video files and cameras, one at a time: memory stays flat however long a video is."""

import codecs
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mlx_faceau.errors import MissingDependency, UsageError, VideoError

from .opencv_log import NOTHING, opencv_log_level
from .results import Frame

if TYPE_CHECKING:
    from .decoder import DecodedFrame, Decoder, KeyFrame

logger = logging.getLogger(__name__)

# What is looked for in folders; a file that is named itself may have any ending.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".mk3d", ".webm", ".avi",
    ".divx", ".wmv", ".asf", ".flv", ".ts", ".mts", ".m2ts", ".m2t", ".trp", ".mpg", ".mpeg",
    ".mpe", ".m1v", ".m2v", ".mod", ".tod", ".vob", ".mxf", ".gxf", ".dv", ".dif", ".ogv", ".ogm",
    ".rm", ".rmvb", ".nut", ".wtv", ".gif", ".h264", ".264", ".h265", ".265", ".hevc", ".obu",
    ".ivf", ".mjpg", ".mjpeg", ".y4m",
)  # fmt: skip

_LEAST_STEP = 0.001  # seconds between frames, as CSV files write them
_CLOCK_RESET = 1.0  # seconds by which a file's times fall back where its clock begins anew
_USUAL_RATE = 30.0  # frames a second of a camera
_WARM_UP = 5.0  # seconds in which a camera that opened may give no image yet
_PAUSE = 0.05  # seconds until it is asked again
_MOST_CAMERAS = 1 << 16  # with OpenCV's hundreds for the interface


@dataclass(frozen=True)
class Span:
    """Which frames of a video are wanted; ValueError if none can be."""

    start: float = 0.0  # seconds from the first frame
    end: float | None = None  # seconds; frames from here on are left out. None means the end
    every: int = 1  # how many frames, of which one is taken

    def __post_init__(self) -> None:
        end = math.inf if self.end is None else self.end
        numbers: tuple[Any, ...] = (self.start, end, self.every)
        whole = all(isinstance(n, Real) for n in numbers) and self.every % 1 == 0
        if not (whole and self.every >= 1 and 0 <= self.start < end):  # of NaN as well
            raise UsageError(
                f"start {self.start!r}, end {self.end!r}, every {self.every!r}: expected "
                "0 <= start < end (--start, --end; seconds) and a whole every >= 1 (--frame-step)"
            )

    def ends(self, seconds: float) -> bool:
        """Whether no frame from this time on is wanted."""
        return self.end is not None and seconds >= self.end

    def takes(self, index: int, seconds: float) -> bool:
        """Whether a frame before the end is wanted."""
        return seconds >= self.start and index % self.every == 0


WHOLE = Span()


def is_text(path: Path) -> bool:
    """Whether a file begins with printable UTF-8, as no video but uncompressed .y4m does."""
    with path.open("rb") as file:
        head = file.read(512)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    if not text or text.startswith("YUV4MPEG2"):
        return False
    return all(c.isprintable() or c.isspace() for c in text)


class Video:
    """A video file: any container and codec that FFmpeg decodes.

    Frames come as a player shows them: deinterlaced (one for two fields), with square pixels (an
    anamorphic one is widened or narrowed, its height stays), turned as the file says, without
    what its edit list hides. Playlists and manifests are refused: they lead to other files.

    Attributes:
        rate: frames a second, on average.
        count: about how many frames the file promises; None where it does not say.
        pixel_aspect: width of a coded pixel by its height; frames come with square ones.

    Raises:
        VideoError: if it is missing, empty, no readable video, or not one frame can be decoded.
        MissingDependency: without PyAV.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VideoError(f"{path}: {'a folder' if self.path.is_dir() else 'no such file'}")
        try:
            if self.path.stat().st_size == 0:
                raise VideoError(f"{path}: the file is empty")
            if is_text(self.path):
                raise VideoError(f"{path}: cannot be read as a video; it is plain text")
        except OSError as error:  # no permission, or its disk is gone
            raise VideoError(f"{path}: {error.strerror}") from None
        try:
            from . import decoder
        except ModuleNotFoundError:
            raise MissingDependency("av") from None
        self._av = decoder
        self._decoder: Decoder = decoder.Decoder(self.path, threaded=True)
        self.rate, self.count = self._decoder.rate, self._decoder.count
        frames = self._decoded()
        first = next(frames, None)
        if first is None:
            self._decoder.close()
            raise VideoError(
                f"{path}: not one frame can be decoded; the file is damaged, or contains none"
            )
        self._first: DecodedFrame = first
        self._opened: Iterator[DecodedFrame] | None = chain([first], frames)  # until they are read
        self.pixel_aspect = self._decoder.pixel_aspect
        self._reading = False

    @property
    def damaged(self) -> int:
        """Frames so far that could not be decoded, or lie behind an early end of the file."""
        return self._decoder.damaged + self._decoder.missing

    def frames(self, span: Span = WHOLE) -> Iterator[Frame]:
        """Frames in order, each an array of its own; the file is closed at the end.

        Times are the file's own (its frame rate may vary), in seconds from the first frame that is
        displayed, wherever the file's clock begins. Numbers count the file's frames, also when
        ``span`` starts later: those before are counted without decoding them. A frame that cannot
        be decoded is left out; as in OpenFace the next one takes its number (where it lies before
        a later start, its number stays free). It is counted in ``damaged``, and the log tells.
        Called again, the file is read anew.

        Raises:
            VideoError: if there is no frame in the span.
            UsageError: if an earlier call's frames are still being read.
        """
        if self._reading:
            raise UsageError(f"{self.path}: is being read; open another Video to read it twice")
        self._reading, found, seconds = True, False, 0.0
        frames, self._opened = self._opened, None
        try:
            if frames is None:
                self._open()
                frames = self._decoded()
            find_key_frame = self._av.find_key_frame
            if span.start and (key := find_key_frame(self._decoder, self._first, span.start)):
                self._open(start=key)
                frames = self._decoded(key)
            for decoded, seconds in self._timed(self._av.deinterlaced(frames)):
                if span.ends(seconds):
                    break
                if span.takes(decoded.index, seconds):
                    found = True
                    yield Frame(decoded.index, seconds, self._decoder.image(decoded))
            else:
                if lost := self._decoder.damaged:
                    logger.warning(
                        "%s: damaged; %d frame%s could not be decoded and %s left out; what "
                        "follows up to the next key frame may show traces of it",
                        self.path, lost, *(("", "is") if lost == 1 else ("s", "are")),
                    )  # fmt: skip
                if self._decoder.missing:
                    logger.warning(
                        "%s: cut short after %.2f s; about %d frames are missing",
                        self.path, seconds, self._decoder.missing,
                    )  # fmt: skip
            if not found:
                raise VideoError(
                    f"{self.path}: no frame from {span.start:g} s on; the last one is at "
                    f"{seconds:.2f} s"
                )
        finally:
            self._decoder.close()
            self._reading = False

    def _open(self, threaded: bool = True, start: "KeyFrame | None" = None) -> None:
        self._decoder.close()
        self._decoder = self._av.Decoder(self._decoder.path, threaded, start, self.path)

    def _decoded(self, start: "KeyFrame | None" = None) -> Iterator["DecodedFrame"]:
        """All good frames, or those from a key frame on. Where the decoder complains they are read
        once more, frame by frame: several threads tell late what is damaged, and lose good frames
        at the end."""
        last = -1
        try:
            for decoded in self._decoder.frames():
                yield decoded
                last = decoded.index
        except self._av.DecoderError:
            # From the key frame again, where it was found: from the file's start numbers differ.
            self._open(threaded=False, start=None if last < 0 else start)
            for decoded in self._decoder.frames():
                if decoded.index > last:
                    yield decoded

    def _timed(self, frames: Iterator["DecodedFrame"]) -> Iterator[tuple["DecodedFrame", float]]:
        """With seconds from the first frame, which always grow."""
        last = given = -np.inf  # seconds of the frame before: as yielded, and as the file has it
        index, begin = 0, 0.0  # of the last frame with a time of its own
        earlier = -np.inf  # seconds of the one before that
        zero, tick = self._first.pts, self._decoder.time_base  # fractions: no time is too early
        former = None  # the zero before the last join
        for decoded in frames:
            seconds, later = given, begin + (decoded.index - index) / self.rate
            if decoded.pts is not None and zero is not None:
                seconds = float((decoded.pts - zero) * tick)
                before = -np.inf if former is None else float((decoded.pts - former) * tick)
                if 0 < before - last < _CLOCK_RESET:
                    zero, former, seconds = former, None, before  # one frame had a wrong time
                elif seconds < earlier - _CLOCK_RESET:  # joined recordings, each with its clock
                    former, zero, seconds = zero, decoded.pts - Fraction(later) / tick, later
            follows, given = seconds > given, seconds
            if seconds > last:
                earlier, index, begin = begin, decoded.index, seconds
            elif follows and last - seconds < 1 / self.rate:  # behind one that had none
                seconds = last + _LEAST_STEP
            else:  # some files give no times, or the same twice: then the rate does
                own = later if decoded.pts is None else decoded.index / self.rate
                seconds = max(min(later, own), last + _LEAST_STEP)
            last = seconds
            yield decoded, seconds


class Webcam:
    """A webcam by its number, or an opened capture, read until it disappears or nobody reads on.

    Raises:
        UsageError: for another number, or a capture without its methods.
        VideoError: if there is no such camera, or it may not be used.
    """

    rate = _USUAL_RATE
    count = None

    def __init__(self, source: int = 0, capture: Any = None) -> None:
        self.name = f"webcam {source}"
        if capture is None and not 0 <= source < _MOST_CAMERAS:  # OpenCV crashes at -1
            raise UsageError(f"webcam {source}: cameras are numbered from 0")
        methods = ("isOpened", "read", "release")
        if capture is not None and not all(hasattr(capture, name) for name in methods):
            raise UsageError(
                f"{capture!r}: expected the number of a webcam or an opened cv2.VideoCapture; "
                "for a file use FacePipeline.video"
            )
        with opencv_log_level(NOTHING):  # of every camera interface that OpenCV tries
            self._capture = cv2.VideoCapture(source) if capture is None else capture
        if not self._capture.isOpened():
            raise VideoError(f"{self.name}: not there, in use by another program, or not allowed")

    def frames(self, span: Span = WHOLE) -> Iterator[Frame]:
        """Frames with the seconds since the first; a camera that disappears ends them."""
        start = index = 0
        patience = time.monotonic() + _WARM_UP
        try:
            while True:
                ok, image = self._capture.read()
                if not ok or image is None:
                    if start or time.monotonic() > patience:
                        break
                    time.sleep(_PAUSE)
                    continue
                now = cv2.getTickCount()
                start = start or now  # a camera may need seconds for its first frame
                seconds = (now - start) / cv2.getTickFrequency()
                if span.ends(seconds):
                    return
                if span.takes(index, seconds):
                    grey = image.ndim == 2 or image.shape[2] == 1
                    colours = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if grey else image[..., :3]
                    # A copy: a capture of the caller's may write all its frames into one array.
                    yield Frame(index, seconds, colours.copy())
                index += 1
        finally:
            self._capture.release()
        if index == 0:
            raise VideoError(f"{self.name}: it opens but gives no frames")
        logger.warning("%s: it disappeared after %d frames", self.name, index)
