"""What the pipeline returns: frames and their faces, as objects, tables and pictures."""

import csv
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import UsageError, VideoError, counted, printable

from .align import FrameCrops
from .pose import Camera, HeadPose, head_pose, refined_head_pose

_AUS = tuple(name.removesuffix("_r") for name in AU_NAMES)  # AU01 ... AU45
_COLUMNS = (
    "source", "frame", "timestamp", "face_id", "confidence", "success",
    "bbox_x", "bbox_y", "bbox_width", "bbox_height",
    "position_x", "position_y", "position_z", "pitch", "yaw", "roll", *_AUS,
    *(f"{axis}_{i}" for axis in "xy" for i in range(NUM_LANDMARKS)),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a source."""

    index: int  # from 0, counted in the source's own frames
    timestamp: float  # seconds from the source's first frame
    image: np.ndarray = field(repr=False)  # (H, W, 3) uint8 BGR


@dataclass(frozen=True, eq=False, repr=False)
class FaceResult:
    """One face of one frame, in frame pixels."""

    face_id: int  # from 0; the same person keeps it through a video
    confidence: float  # in [0, 1], see :mod:`mlx_faceau.video.confidence`
    success: bool  # whether the confidence reached the pipeline's threshold
    landmarks: np.ndarray  # (68, 2)
    global_params: np.ndarray  # (6,) scale, rx, ry, rz (radians), tx, ty
    local_params: np.ndarray  # (34,)
    warp_matrix: np.ndarray  # (2, 3), frame to the crop that the action units were predicted from
    camera: Camera  # what the pose is relative to
    pdm: PDM | None = None  # of the landmark net, which refines the pose; None: not known
    au_intensities: np.ndarray | None = None  # (17,) in [0, 5]; None without an action unit net

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """x, y, width, height of the landmarks' bounding box."""
        (x, y), (right, bottom) = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return float(x), float(y), float(right - x), float(bottom - y)

    @cached_property
    def pose(self) -> HeadPose:
        """Position (mm) and ``pitch``, ``yaw``, ``roll`` (degrees) relative to the camera."""
        if self.pdm is None:
            return head_pose(self.global_params, self.camera)
        return refined_head_pose(
            self.global_params, self.local_params, self.landmarks, self.pdm, self.camera
        )

    @property
    def aus(self) -> dict[str, float]:
        """Intensities by name (``"AU01"`` ... ``"AU45"``); empty without an action unit net."""
        if self.au_intensities is None:
            return {}
        return dict(zip(_AUS, self.au_intensities.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Numbers, lists and dicts alone, as JSON takes them."""
        pose = self.pose
        return {
            "face_id": self.face_id,
            "confidence": self.confidence,
            "success": self.success,
            "bbox": list(self.bbox),
            "pose": {
                "position": pose.position.tolist(),
                "pitch": pose.pitch,
                "yaw": pose.yaw,
                "roll": pose.roll,
            },
            "aus": self.aus,
            "landmarks": np.asarray(self.landmarks, float).tolist(),
            "global_params": np.asarray(self.global_params, float).tolist(),
            "local_params": np.asarray(self.local_params, float).tolist(),
        }

    def __repr__(self) -> str:
        x, y, width, height = (round(value) for value in self.bbox)
        strongest = sorted(self.aus.items(), key=lambda item: -item[1])[:3]
        aus = "".join(f", {name}={value:.1f}" for name, value in strongest)
        return (
            f"FaceResult(face_id={self.face_id}, confidence={self.confidence:.2f}, "
            f"bbox=({x}, {y}, {width}, {height}){aus})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class FrameResult:
    """A frame and its faces. Notebooks show it as a picture."""

    frame: Frame
    faces: tuple[FaceResult, ...] = ()  # ordered by ``face_id``; empty where no face was found
    source: str = ""  # the file as it was named, "webcam 0" for a camera, "" for an array

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts alone, as JSON takes them."""
        height, width = self.frame.image.shape[:2]
        return {
            "source": self.source,
            "frame": self.frame.index,
            "timestamp": self.frame.timestamp,
            "image_size": [width, height],
            "faces": [face.to_dict() for face in self.faces],
        }

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``, one row a face; see :meth:`ResultStream.to_dataframe`."""
        return ResultStream(iter([self])).to_dataframe()

    def draw(self) -> np.ndarray:
        """A copy of the frame with its faces drawn in: (H, W, 3) uint8 BGR."""
        from .overlay import draw

        return draw(self)

    def aligned_faces(self) -> list[np.ndarray]:
        """The standard crop, (112, 112, 3) uint8 BGR, that each face's units are predicted from."""
        crops = FrameCrops(self.frame.image)
        return [crops.crop(face.warp_matrix) for face in self.faces]

    def save(self, path: Path | str) -> None:
        """Write the drawn picture (``.png``, ``.jpg`` ...) or the numbers (``.csv``, ``.json``).

        Another ending raises UsageError.
        """
        path = Path(path)
        if cv2.haveImageWriter(printable(path.name)):
            write_picture(path, self.draw())
        else:
            _write_table(path, [self])

    def __repr__(self) -> str:
        height, width = self.frame.image.shape[:2]
        size = f"{width}x{height}" + (f", source={self.source!r}" if self.source else "")
        return f"FrameResult({counted(len(self.faces), 'face')}, frame={self.frame.index}, {size})"

    def _repr_png_(self) -> bytes:
        return bytes(cv2.imencode(".png", self.draw())[1])


class ResultStream(Iterator[FrameResult]):
    """The results of a video, a camera or several images, computed while they are consumed.

    A stream is consumed once: by a loop, or by one of its methods. ``close()`` ends it early, from
    another thread too. ``rate`` is in frames a second.
    """

    def __init__(self, results: Iterator[FrameResult], rate: float = 30.0) -> None:
        self.rate = rate
        self._results = results
        self._closed = False
        self._lock = threading.RLock()  # a generator runs in one thread at a time

    def __next__(self) -> FrameResult:
        with self._lock:
            if self._closed:
                raise StopIteration
            return next(self._results)

    def __repr__(self) -> str:
        return "<ResultStream: loop over it, or call to_dict(), to_dataframe() or save()>"

    def close(self) -> None:
        """Stop, and release the file or the camera; waits for a frame that is being computed."""
        self._closed = True
        with self._lock:
            if hasattr(self._results, "close"):
                self._results.close()

    def to_dict(self) -> list[dict[str, Any]]:
        """:meth:`FrameResult.to_dict` of every frame."""
        return [found.to_dict() for found in self]

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` of all frames, one row a face.

        Columns: source, frame, timestamp (seconds), face_id, confidence, success, bbox_x, bbox_y,
        bbox_width, bbox_height, position_x, position_y, position_z (mm), pitch, yaw, roll
        (degrees), AU01 ... AU45, x_0 ... x_67, y_0 ... y_67 (frame pixels). A frame without a face
        has one row with ``success`` False and missing values.
        """
        pandas = import_library("pandas", "pandas")
        rows = [row for found in self for row in _rows(found)]
        return pandas.DataFrame(rows, columns=list(_COLUMNS))

    def save(self, path: Path | str) -> None:
        """Write the drawn video (``.mp4``, ``.mkv``) or the numbers (``.csv``, ``.json``).

        Another ending raises UsageError, as does a stream without a frame left; a video that
        cannot be written VideoError.
        """
        from .overlay import VIDEO_SUFFIXES, OverlayVideo

        path = Path(path)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            _write_table(path, self._remaining(path))
            return
        with OverlayVideo(path, self.rate) as video:
            for found in self._remaining(path):
                video.add(found)

    def _remaining(self, path: Path) -> Iterator[FrameResult]:
        """The results for a file, which must not be written without one."""
        first = next(self, None)
        if first is None:
            raise UsageError(f"{path}: no frame is left to save; a stream is consumed only once")
        yield first
        yield from self


def write_picture(path: Path, image: np.ndarray) -> None:
    """An (H, W, 3) uint8 BGR image as a picture file; VideoError if its ending names no format."""
    if not cv2.haveImageWriter(printable(path.name)):
        raise VideoError(f"{path}: no image format has this ending; use .png or .jpg")
    with atomic_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def _write_table(path: Path, results: Iterable[FrameResult]) -> None:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise UsageError(
            f"{path}: results are saved as .csv or .json, a drawn frame as .png or .jpg, a "
            "drawn video as .mp4"
        )
    with (
        atomic_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        if suffix == ".json":
            json.dump([found.to_dict() for found in results], file)
        else:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(row for found in results for row in _rows(found))


def _rows(found: FrameResult) -> Iterator[list[Any]]:
    """The cells of ``_COLUMNS``, a row a face; None is missing."""
    frame = [found.source, found.frame.index, found.frame.timestamp]
    if not found.faces:
        yield [*frame, None, 0.0, False, *[None] * (len(_COLUMNS) - 6)]
    for face in found.faces:
        pose, aus = face.pose, face.aus
        yield [
            *frame, face.face_id, face.confidence, face.success, *face.bbox,
            *pose.position.tolist(), pose.pitch, pose.yaw, pose.roll,
            *(aus.get(name) for name in _AUS), *face.landmarks.T.ravel().tolist(),
        ]  # fmt: skip
