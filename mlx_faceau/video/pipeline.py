"""From images to faces: detection, tracking, landmarks and pose, action units; in frame space.

Decoding, the landmark net and the action unit net run in three threads with short queues between
them, so that they overlap and memory stays flat.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.errors import UsageError
from mlx_faceau.weights.builtin import BUILTIN, is_builtin

from .box_calibration import BoxCalibration
from .confidence import ConfidenceCurves
from .detectors import CallableDetector, Detector, open_detector
from .fitting import Predictor
from .photographs import PhotographDetector
from .prefetch import in_groups, keep_newest, run_ahead
from .reader import WHOLE, Camera, Span, Video
from .results import Frame, FrameResult
from .tracking import TrackedFrame, Tracker

Model = str | Path | Predictor

# Threads of ONNX Runtime for each net. The nets run beside each other and see few faces at once:
# more threads cost a quarter more CPU time and gain little.
_NET_THREADS = 1
# Frames of a file whose action units are read in one batch: a fifth less CPU time than one by one.
_TOGETHER = 4
_AHEAD = 4  # frames of a file whose landmarks may wait for their action units


class FacePipeline:
    """Finds, follows and reads the faces of pictures, videos and cameras.

    Args:
        landmark_model: a landmark net: a file, a folder, ``"builtin"``, or a predictor. ONNX
            Runtime computes a file's or folder's on one thread, beside the other net; for crowds
            give a predictor that was opened with more.
        au_model: an action unit net, likewise; None beside a landmark net leaves action units out.
            Without either the built-in pair runs.
        detector: see :func:`mlx_faceau.video.detectors.open_detector`; ``"auto"`` takes a YuNet
            file beside the landmark model, Apple Vision or dlib, and logs which.
        backend: what runs the nets: ``"auto"``, ``"coreml"``, ``"mlx"``, ``"onnx"``, ``"torch"``.
        detect_every: frames between detections while all faces are followed.
        max_faces: follow at most so many; None follows all.
        min_confidence: a face below it is given with ``success`` False.
        providers: see :func:`mlx_faceau.load_predictor`.

    Raises:
        CheckpointError: if a model is missing, damaged, or of the other kind.
        BackendError: if the backend or the detector cannot run here.
        ValueError: for an unknown backend or detector, or numbers out of range.
    """

    def __init__(
        self,
        landmark_model: Model | None = None,
        au_model: Model | None = None,
        detector: str | Path | Detector | Callable[[np.ndarray], Any] = "auto",
        backend: str = "auto",
        *,
        detect_every: int = 30,
        max_faces: int | None = None,
        min_confidence: float = 0.5,
        providers: Sequence[Any] | None = None,
    ) -> None:
        if detect_every < 1 or (max_faces is not None and max_faces < 1):
            raise UsageError(
                f"detect_every {detect_every} and max_faces {max_faces}: expected at least 1"
            )
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence {min_confidence}: expected a number in [0, 1]")
        if landmark_model is None and au_model is None:
            landmark_model = au_model = BUILTIN
        if landmark_model is None:
            raise UsageError(
                "no landmark_model, by which faces are cut out for the au_model; "
                f"give one, or {BUILTIN!r}"
            )
        self.detector = open_detector(detector, _folders(landmark_model, au_model))
        self._landmarks = _open(landmark_model, "load_predictor", backend, providers)
        self._aus = None
        if au_model is not None:
            self._aus = _open(au_model, "load_au_predictor", backend, providers)
        self._curves = ConfidenceCurves.from_metadata(*_metadata_of(self._landmarks))
        self._lock = threading.Lock()  # detectors are not made for several threads
        self._detect_every = detect_every
        self._max_faces = max_faces
        self._min_confidence = min_confidence

    def image(
        self,
        image: np.ndarray,
        boxes: Sequence[Sequence[float]] | None = None,
        calibration: BoxCalibration | None = None,
    ) -> FrameResult:
        """The faces of one picture.

        Args:
            image: (H, W, 3) uint8 BGR.
            boxes: known faces as x, y, width, height in pixels; None asks the detector.
            calibration: how the boxes map to the standard crop; None takes the detector's.

        Raises:
            ValueError: if the picture is no BGR image or a box has no area.
        """
        detector: Detector = PhotographDetector(self.detector, self._landmarks)
        if boxes is not None:
            calibration = calibration or detector.calibration
            detector = CallableDetector(lambda _: boxes, calibration, "boxes")
        tracked = self._tracker(detector, 30.0).update(Frame(0, 0.0, image))
        return self._finish([tracked])[0]

    def video(self, path: str | Path | Video, span: Span = WHOLE) -> Iterator[FrameResult]:
        """The faces of every frame of a video file, in order.

        The file is opened at once, frames are read while the iterator is consumed.

        Args:
            path: a video file, or one that was opened.
            span: which of its frames.

        Raises:
            VideoError: if the file cannot be read.
        """
        video = path if isinstance(path, Video) else Video(path)
        name = str(video.path)
        return self._stream(video, span, run_ahead, together=_TOGETHER, ahead=_AHEAD, name=name)

    def live(self, source: int | Any = 0, span: Span = WHOLE) -> Iterator[FrameResult]:
        """The faces of a camera's newest frames, until it disappears or the consumer stops.

        Frames that come while the nets are busy are skipped: ``frame.index`` counts them.

        Args:
            source: the camera's number, or an opened ``cv2.VideoCapture`` or the like.
            span: which of its frames.

        Raises:
            VideoError: if there is no such camera, or it gives no pictures.
        """
        camera = Camera(source) if isinstance(source, int) else Camera(capture=source)
        return self._stream(camera, span, keep_newest, together=1, ahead=1, name=camera.name)

    def describe(self) -> dict[str, Any]:
        """What runs: detector, and each net's own description."""
        nets: dict[str, Any] = {"landmark_model": self._landmarks, "au_model": self._aus}
        described = {name: net.describe() for name, net in nets.items() if hasattr(net, "describe")}
        return {"detector": self.detector.name, **described}

    def _stream(
        self,
        source: Video | Camera,
        span: Span,
        beside: Callable[[Iterator[Frame]], AbstractContextManager[Iterator[Frame]]],
        together: int,
        ahead: int,
        name: str = "",
    ) -> Iterator[FrameResult]:
        tracker = self._tracker(self.detector, source.rate, name)

        def track() -> Iterator[TrackedFrame]:
            with beside(source.frames(span)) as frames:
                yield from map(tracker.update, frames)

        with run_ahead(track(), ahead) as tracked:
            for group in in_groups(tracked, together):
                yield from self._finish(group)

    def _tracker(self, detector: Detector, rate: float, source: str = "") -> Tracker:
        return Tracker(
            self._landmarks,
            detector,
            self._curves,
            self._lock,
            detect_every=self._detect_every,
            memory=max(1, round(5 * rate)),
            max_faces=self._max_faces,
            min_confidence=self._min_confidence,
            source=source,
        )

    def _finish(self, tracked: Sequence[TrackedFrame]) -> list[FrameResult]:
        """The frames' faces with their action units, all in one batch."""
        crops = np.concatenate([frame.crops for frame in tracked])
        results = [frame.result for frame in tracked]
        if self._aus is None or not len(crops):
            return results
        rows = iter(self._aus.predict_batch(crops)["au_intensities"])
        return [
            replace(
                result,
                faces=tuple(replace(f, au_intensities=next(rows)) for f in result.faces),
            )
            for result in results
        ]


def _open(model: Model, loader: str, backend: str, providers: Sequence[Any] | None) -> Predictor:
    if not isinstance(model, (str, Path)):
        return model
    from mlx_faceau.inference import predictor

    load = getattr(predictor, loader)
    opened = load(model, backend=backend, providers=providers, threads=_NET_THREADS)
    return opened  # type: ignore[no-any-return]


def _metadata_of(net: Predictor) -> tuple[dict[str, Any] | None, str]:
    """What the net's file says about itself, and its name; None of a predictor that does not."""
    about = net.describe() if hasattr(net, "describe") else {}
    return about.get("metadata"), str(about.get("path", ""))


def _folders(*models: Model | None) -> list[Path]:
    """Where a detector's model file may lie: beside the nets."""
    named = [m for m in models if isinstance(m, (str, Path)) and not is_builtin(m)]
    paths = [Path(model) for model in named]
    return [path if path.is_dir() else path.parent for path in paths]
