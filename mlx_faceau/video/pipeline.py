"""From images to faces: detection, tracking, landmarks and pose, action units; in frame space.

frames -> Tracker (detections, landmarks, confidence) -> action units -> FrameResult

Decoding, the landmark net and the action unit net run in three threads with short queues between
them, so that they overlap and memory stays flat.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlx_faceau.core.facs import PRESENCE_KEY
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import UsageError
from mlx_faceau.weights.builtin import BUILTIN, is_builtin, pdm_for

from .confidence import ConfidenceCurves
from .detectors import Detector, PhotographDetector, open_detector
from .fitting import Predictor
from .images import IMAGE_SUFFIXES, pixels_of, read_image
from .pose import Camera
from .prefetch import batched, prefetch
from .reader import WHOLE, Span, Video, Webcam
from .results import Frame, FrameResult, ResultStream
from .tracking import TrackedFrame, Tracker

if TYPE_CHECKING:
    from PIL.Image import Image

Model = str | Path | Predictor

# Threads of ONNX Runtime for each net. The nets run beside each other and see few faces at once:
# more threads cost a quarter more CPU time and gain little.
_NET_THREADS = 1
# Frames of a file whose action units are read in one batch: a fifth less CPU time than one by one.
_BATCH = 4
_MEMORY = 5.0  # seconds for which a lost face is remembered
_AHEAD = 4  # frames of a file whose landmarks may wait for their action units


class FacePipeline:
    """Finds, tracks and measures the faces of images, videos and webcams.

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
        camera: what poses are relative to; None takes OpenFace's guess from the image's size.
        pdm: point distribution model of the landmark net, which refines poses; None takes the open
            PDM where the net was trained with it.

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
        camera: Camera | None = None,
        pdm: PDM | None = None,
    ) -> None:
        numbers: tuple[Any, ...] = (detect_every, 1 if max_faces is None else max_faces)
        if not all(isinstance(number, Real) and float(number) >= 1 for number in numbers):
            raise UsageError(
                f"detect_every {detect_every!r} and max_faces {max_faces!r}: expected at least 1"
            )
        trust: Any = min_confidence
        if not (isinstance(trust, Real) and 0 <= float(trust) <= 1):
            raise UsageError(f"min_confidence {min_confidence!r}: expected a number in [0, 1]")
        if not (isinstance(camera, Camera | None) and isinstance(pdm, PDM | None)):
            raise UsageError(
                f"camera is {camera!r}, pdm is {pdm!r}: expected a mlx_faceau.video.pose.Camera "
                "and a mlx_faceau.core.pdm.PDM"
            )
        if landmark_model is None and au_model is None:
            landmark_model = au_model = BUILTIN
        if landmark_model is None:
            raise UsageError(
                "no landmark_model, by which faces are cut out for the au_model; "
                f"give one, or {BUILTIN!r}"
            )
        # A detector's model file may lie beside the nets.
        nets = [m for m in (landmark_model, au_model) if isinstance(m, (str, Path))]
        paths = [Path(net) for net in nets if not is_builtin(net)]
        folders = [path if path.is_dir() else path.parent for path in paths]
        self.detector = open_detector(detector, folders)
        self._landmarks = _open(landmark_model, "landmark_pose", backend, providers)
        self._aus = None
        if au_model is not None:
            self._aus = _open(au_model, "au_prediction", backend, providers)
        net: Any = self._landmarks
        about = net.describe() if hasattr(net, "describe") else {}
        metadata = about.get("metadata")  # of the net's file
        self._tracker = partial(
            Tracker,
            self._landmarks,
            curves=ConfidenceCurves.from_metadata(metadata, str(about.get("path", ""))),
            lock=threading.Lock(),  # detectors are not made for several threads
            detect_every=detect_every,
            max_faces=max_faces,
            min_confidence=min_confidence,
            camera=camera,
            pdm=pdm_for(metadata) if pdm is None else pdm,
        )

    def image(self, image: "str | Path | np.ndarray | Image") -> FrameResult:
        """The faces of one image, which is searched more thoroughly than a frame of a video.

        It is a file (VideoError if it cannot be read), an (H, W, 3) uint8 BGR array (UsageError for
        another), or a PIL image.
        """
        source, pixels = "", cast("Any", image)
        if isinstance(image, (str, Path)):
            source, pixels = str(image), read_image(image)
        elif hasattr(image, "convert"):
            from PIL import ImageOps

            pixels = pixels_of(ImageOps.exif_transpose(pixels), "the PIL image")
        elif isinstance(image, np.ndarray):
            pixels = image.copy()  # the caller may read the next frame into the same array
        detector = PhotographDetector(self.detector, self._landmarks)
        tracker = self._tracker(detector=detector, source=source)
        return self._add_aus([tracker.update(Frame(0, 0.0, pixels))])[0]  # which checks them

    def images(
        self, images: "str | Path | Iterable[str | Path | np.ndarray | Image]"
    ) -> ResultStream:
        """The faces of several images, one after the other and numbered; see :meth:`image`.

        Of a folder its image files are taken in sorted order, hidden ones left out; UsageError
        where it has none.
        """
        if isinstance(images, (str, Path)):
            folder = Path(images)
            files = [p for p in sorted(folder.glob("*")) if p.name[0] != "." and p.is_file()]
            images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            if not images:
                raise UsageError(f"{folder}: no folder with images in it; give one, or a list")
        results = enumerate(map(self.image, images))
        return ResultStream(replace(r, frame=replace(r.frame, index=i)) for i, r in results)

    def video(self, path: str | Path | Video, span: Span = WHOLE) -> ResultStream:
        """The faces of every frame, or those in a span, of a video file, in order.

        The file is opened at once (VideoError if it cannot be read), frames are read while the
        stream is consumed.
        """
        video = path if isinstance(path, Video) else Video(path)
        return self._stream(video, span, str(video.path))

    def live(self, source: int | Any = 0, span: Span = WHOLE) -> ResultStream:
        """The faces of a webcam's newest frames, until it disappears or the stream is closed.

        Frames that come while the nets are busy are skipped: ``frame.index`` counts them.

        ``source`` is the webcam's number (VideoError if there is no such, or it gives no images),
        or an opened ``cv2.VideoCapture`` or the like (UsageError for anything else).
        """
        number = isinstance(source, (int, np.integer))
        webcam = Webcam(int(source)) if number else Webcam(capture=source)
        return self._stream(webcam, span, webcam.name, live=True)

    def describe(self) -> dict[str, Any]:
        """What runs: the detector's name, and each net's description without metadata."""
        nets: dict[str, Any] = {"landmark_model": self._landmarks, "au_model": self._aus}
        described = {name: net.describe() for name, net in nets.items() if hasattr(net, "describe")}
        for about in described.values():
            # Long; a predictor's own describe() has it whole.
            metadata = about.pop("metadata", None) or {}
            if thresholds := metadata.get(PRESENCE_KEY):
                about[PRESENCE_KEY] = thresholds
        return {"detector": self.detector.name, **described}

    def __repr__(self) -> str:
        about = self.describe()
        detector = about.pop("detector")
        nets = "".join(
            f"{role}={net.get('model', {}).get('name')!r}, " for role, net in about.items()
        )
        return f"FacePipeline({nets}detector={detector!r})"

    def _stream(
        self, source: Video | Webcam, span: Span, name: str = "", live: bool = False
    ) -> ResultStream:
        memory = max(1, round(_MEMORY * source.rate))
        tracker = self._tracker(detector=self.detector, memory=memory, source=name)

        def track() -> Iterator[TrackedFrame]:
            frames = source.frames(span)
            with prefetch(frames, 1, newest=True) if live else prefetch(frames) as ready:
                yield from map(tracker.update, ready)

        def results() -> Iterator[FrameResult]:
            with prefetch(track(), 1 if live else _AHEAD) as tracked:
                for batch in batched(tracked, 1 if live else _BATCH):
                    yield from self._add_aus(batch)

        return ResultStream(results(), source.rate / span.every)

    def _add_aus(self, tracked: Sequence[TrackedFrame]) -> list[FrameResult]:
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


def _open(model: Model, kind: str, backend: str, providers: Sequence[Any] | None) -> Predictor:
    if not isinstance(model, (str, Path)):
        if not hasattr(model, "predict_batch") or getattr(model, "kind", kind) != kind:
            raise UsageError(f"expected a {kind} net's path or predictor, got {model!r}")
        return model
    from mlx_faceau.inference import predictor

    is_aus = kind == "au_prediction"
    load: Any = predictor.load_au_predictor if is_aus else predictor.load_predictor
    opened: Predictor = load(model, backend=backend, providers=providers, threads=_NET_THREADS)
    return opened
