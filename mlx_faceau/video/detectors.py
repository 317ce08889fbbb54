"""Face detectors behind one small protocol, and how their boxes map to the standard crop.

YuNet's box reaches from chin to hairline, dlib's is a square around eyes and mouth. The networks
take one kind of crop, so each detector has a calibration (:mod:`.box_calibration`).
"""

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.user_function import load_function, name_of, user_code
from mlx_faceau.errors import (
    BackendError,
    BrokenLibrary,
    FunctionError,
    MissingDependency,
    UsageError,
)

from .align import FrameCrops
from .box_calibration import CALIBRATIONS, BoxCalibration
from .fitting import Predictor, Square, agreement_of, fit_landmarks
from .opencv_log import ERRORS, opencv_log_level

logger = logging.getLogger(__name__)

# Pixels that a frame's longer side is reduced to before detection. YuNet still finds faces of 3 %
# of it there, dlib of 13 %; and it takes half the time of 640.
_YUNET_SIDE, _DLIB_SIDE = 480, 640
# Photographs are searched at a second scale as well, and by dlib, which detects upright faces only,
# tilted by these degrees.
_LARGE_SIDE, _MOST_ENLARGED, _TILTS = 1280, 2.0, (0.0, -12.0, 12.0)
# Score from which a detection of the larger scale, which has more false positives, counts; and the
# margin of dlib's support vector machine from which it counts as a hit. Its own threshold is 0.
_SURE, _HIT = 0.8, -0.8
_YUNET_LEAST = 0.6  # score below which YuNet's faces are left out
_YUNET_PATTERN = "*yunet*.onnx"
# The crops that confirm a doubtful face: right, down (in sides) and growth of the log side.
_DISPLACEMENTS = np.array([(0.08, -0.06, 0.11), (-0.08, 0.06, -0.11), (-0.1, -0.1, 0.0)])
# Of the displacements, which a face's landmarks may follow, in the median. The built-in net follows
# them by .08 to .31 on faces that dlib doubts, by .28 on an emblem, by .41 and more on patterns.
_LARGEST_SHARE = 0.25


@dataclass(frozen=True)
class Detection:
    """A found face."""

    box: tuple[float, float, float, float]  # x, y, width, height in frame pixels
    score: float  # in [0, 1]
    # (5, 2) frame pixels: right eye, left eye (the person's own), tip of the nose, right and left
    # corner of the mouth; None from a detector that marks none
    marks: np.ndarray | None = None


class Detector(Protocol):
    """Finds faces in a frame; ``calibration`` maps its boxes to the standard crop."""

    name: str
    calibration: BoxCalibration

    def detect(self, frame: np.ndarray) -> list[Detection]:
        """Faces of an (H, W, 3) uint8 BGR frame, in any order."""
        ...


class YuNetDetector:
    """OpenCV's YuNet with a file of the user's: ``face_detection_yunet_*.onnx`` of its model zoo.

    BackendError is raised if the file is missing or no YuNet model.

    Reference:
        Wu et al., YuNet: a tiny millisecond-level face detector, Mach. Intell. Res. 2023.
    """

    name = "yunet"
    calibration = CALIBRATIONS["yunet"]
    region_side = 128  # px of a region around one face, where it is quick

    def __init__(self, path: Path | str) -> None:
        self._path = path
        if not Path(path).is_file():
            raise BackendError(f"{path}: no such file; YuNet needs its .onnx model")
        try:
            str(path).encode()  # OpenCV crashes at a name that is no text
            with opencv_log_level(ERRORS):  # OpenCV 5 warns of every net that it opens
                self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), _YUNET_LEAST)
                self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise BackendError(f"{path}: OpenCV cannot run it as YuNet: {error.err}") from None
        except UnicodeEncodeError:
            raise BackendError(f"{path}: OpenCV opens no file of such a name; rename it") from None

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return self._pass(*_resized(frame, _YUNET_SIDE))

    def search(self, frame: np.ndarray) -> list[Detection]:
        """Faces of a photograph, at two scales."""
        enlarged = self._pass(*_resized(frame, _LARGE_SIDE, _MOST_ENLARGED))
        return _merged(self.detect(frame) + [d for d in enlarged if d.score >= _SURE])

    def _pass(self, small: np.ndarray, scale: float) -> list[Detection]:
        with opencv_log_level(ERRORS):
            self._net.setInputSize((small.shape[1], small.shape[0]))
            rows = self._net.detect(small)[1]
        if rows is None:
            return []
        if not (np.isfinite(rows).all() and (rows[:, 2:4] > 0).all()):
            raise BackendError(f"{self._path}: finds boxes without an area: it is damaged")
        return [_detection(row[:4], float(row[14]), scale, row[4:14]) for row in rows]


class DlibDetector:
    """dlib's frontal face detector (histograms of oriented gradients): no model file needed.

    It finds upright, nearly frontal faces of at least 80 px after reduction to 640 px (King,
    Max-margin object detection, arXiv:1502.00046, 2015).
    """

    name = "dlib"
    calibration = CALIBRATIONS["dlib"]
    region_side = 192

    def __init__(self) -> None:
        try:
            dlib = import_library("dlib", "detect")
        except MissingDependency:
            if platform.system() == "Darwin":  # where the extra brings Vision
                raise MissingDependency("dlib-bin") from None
            raise
        self._find = dlib.get_frontal_face_detector()

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return _clipped(self._pass(frame))

    def search(self, frame: np.ndarray) -> list[Detection]:
        """Faces of a photograph, at two scales, upright and tilted.

        Score 0 marks doubtful ones: no upright pass is sure of them, but every pass hits them.
        """
        passes = [
            self._pass(frame, side, tilt, _MOST_ENLARGED, _HIT)
            for side in (_DLIB_SIDE, _LARGE_SIDE)
            for tilt in _TILTS
        ]
        enlarged = passes[len(_TILTS)]  # the upright one
        sure = _merged(self.detect(frame) + _clipped([h for h in enlarged if h.score >= _SURE]))
        doubtful = [
            replace(hit, score=0.0)
            for hit in _merged([hit for hits in passes for hit in hits])
            if not any(_same_face(hit, face) for face in sure)
            and all(any(_same_face(hit, other) for other in hits) for hits in passes)
        ]
        return sure + doubtful

    def _pass(
        self,
        frame: np.ndarray,
        side: int = _DLIB_SIDE,
        tilt: float = 0.0,
        enlarged: float = 1.0,
        least_margin: float = 0.0,
    ) -> list[Detection]:
        """Faces at one scale and tilt; scores are 0.6 at dlib's own threshold, and not clipped."""
        small, scale = _resized(frame, side, enlarged)
        height, width = small.shape[:2]
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), tilt, 1.0)
        if tilt:
            small = cv2.warpAffine(small, turn, (width, height))
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        boxes, margins, _ = self._find.run(grey, 0, least_margin)
        back = cv2.invertAffineTransform(turn)
        found = []
        for box, margin in zip(boxes, margins, strict=True):
            size = np.array([box.width(), box.height()], np.float64)
            middle = back @ [(box.left() + box.right()) / 2, (box.top() + box.bottom()) / 2, 1.0]
            corner = middle - (size - 1) / 2
            found.append(_detection(np.r_[corner, size], 0.6 + 0.4 * margin, scale))
        return found


class VisionDetector:
    """Apple's Vision framework, on macOS with pyobjc: no model file needed."""

    name = "vision"
    calibration = CALIBRATIONS["vision"]

    def __init__(self, vision: Any = None) -> None:
        if vision is None:
            if platform.system() != "Darwin":
                raise BackendError("the Vision detector runs on macOS only; try dlib or YuNet")
            try:
                vision = import_library("Vision", "detect")
            except MissingDependency:
                raise MissingDependency("pyobjc-framework-Vision", extra="detect") from None
        self._vision = vision

    def detect(self, frame: np.ndarray) -> list[Detection]:
        """Faces of a frame; BackendError if Vision refuses it."""
        return self._pass(frame, _resized(frame, _DLIB_SIDE)[0])

    def search(self, frame: np.ndarray) -> list[Detection]:
        """Faces of a photograph, at two scales."""
        enlarged = self._pass(frame, _resized(frame, _LARGE_SIDE, _MOST_ENLARGED)[0])
        return _merged(self.detect(frame) + enlarged)

    def _pass(self, frame: np.ndarray, small: np.ndarray) -> list[Detection]:
        # A pool of its own: outside an event loop nothing else frees what Vision leaves behind.
        with import_library("objc", "detect").autorelease_pool():
            return self._found(frame, small)

    def _found(self, frame: np.ndarray, small: np.ndarray) -> list[Detection]:
        encoded = cv2.imencode(".bmp", small)[1].tobytes()
        vision = self._vision
        request = vision.VNDetectFaceRectanglesRequest.alloc().init()
        handler = vision.VNImageRequestHandler.alloc().initWithData_options_(encoded, {})
        done, error = handler.performRequests_error_([request], None)
        if not done:
            raise BackendError(f"Apple Vision could not process a frame: {error}")
        height, width = frame.shape[:2]
        found = []
        for face in request.results() or []:
            # Fractions of the image, from its lower left corner.
            origin, size = face.boundingBox().origin, face.boundingBox().size
            x, y = origin.x * width - 0.5, (1 - origin.y - size.height) * height - 0.5
            box = (x, y, size.width * width, size.height * height)
            found.append(Detection(box, float(face.confidence())))
        return found


class PhotographDetector:
    """A detector's thorough search, or its ``detect``; the net decides on faces that it doubts."""

    def __init__(self, detector: Detector, predictor: Predictor) -> None:
        self._detector = detector
        self._predictor = predictor
        self.name = detector.name
        self.calibration = detector.calibration

    def detect(self, frame: np.ndarray) -> list[Detection]:
        search = getattr(self._detector, "search", self._detector.detect)
        crops = FrameCrops(frame)
        return [
            found for found in search(frame) if found.score > 0 or self._is_confirmed(crops, found)
        ]

    def _is_confirmed(self, crops: FrameCrops, found: Detection) -> bool:
        """Whether the landmarks hardly move while their crop is displaced."""
        [placed] = fit_landmarks(
            self._predictor, crops, [Square(*self.calibration.square(found.box))]
        )
        if not placed.usable:
            return False
        square = placed.square
        first, *others = fit_landmarks(
            self._predictor, crops, [square, *(square.moved(by) for by in _DISPLACEMENTS)]
        )
        shares = [
            agreement_of(first.landmarks, other.landmarks, square, by).share
            for other, by in zip(others, _DISPLACEMENTS, strict=True)
        ]
        return bool(np.median(shares) <= _LARGEST_SHARE)


class CallableDetector:
    """Any function from an (H, W, 3) uint8 BGR frame to boxes.

    They are (x, y, width, height), as an (N, 4) array or a list, each optionally followed by a
    score in [0, 1]. The default calibration fits boxes that enclose brows to chin.
    """

    name = "callable"

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        calibration: BoxCalibration = CALIBRATIONS["landmarks"],
    ) -> None:
        self._function = function
        self._what = f"detector {name_of(function)}"
        self.calibration = calibration

    def detect(self, frame: np.ndarray) -> list[Detection]:
        """Its boxes; FunctionError if the function fails, or what it returns is no boxes."""
        with user_code(self._what):
            found = self._function(frame)
        try:
            rows = [np.asarray(row, np.float64) for row in found]
        except (TypeError, ValueError):
            rows = [np.full(0, np.nan)]
        for row in rows:
            if row.shape not in ((4,), (5,)) or not np.isfinite(row).all() or min(row[2:4]) <= 0:
                raise FunctionError(
                    f"{self._what}: returned {repr(found)[:80]}; expected a list of boxes: x, y, "
                    "width, height (above 0, in pixels) and optionally a score each"
                )
        return [Detection(tuple(row[:4]), float(row[4]) if len(row) == 5 else 1.0) for row in rows]


def open_detector(
    choice: "str | Path | Detector | Callable[[np.ndarray], Any]" = "auto",
    model_folders: Sequence[Path | str] = (),
) -> Detector:
    """The detector that a choice names.

    Args:
        choice: ``"auto"``, ``"dlib"``, ``"vision"``, the path of a YuNet ``.onnx`` file,
            ``"package.module:function"``, a function from a frame to boxes, or a detector.
        model_folders: where ``"auto"`` looks for a YuNet file (``*yunet*.onnx``).

    Raises:
        ValueError: if the choice is none of these.
        BackendError: if it cannot run; for ``"auto"``, naming the three ways to get a detector.
    """
    if not isinstance(choice, (str, Path)):
        if hasattr(choice, "detect") and hasattr(choice, "calibration"):
            return choice  # type: ignore[return-value]
        if callable(choice):
            return CallableDetector(choice)
        raise UsageError(f"a detector is a name, a file or a function, got {choice!r}")
    name = str(choice)
    if name == "auto":
        return _open_first(model_folders)
    if name == "dlib":
        return DlibDetector()
    if name == "vision":
        return VisionDetector()
    if name.endswith(".onnx"):
        return YuNetDetector(name)
    if ":" in name:
        return CallableDetector(load_function(name, f"detector {name!r}"))
    raise UsageError(
        f"detector {name!r} is none of auto, dlib, vision, a YuNet .onnx file, "
        "package.module:function"
    )


def _open_first(model_folders: Sequence[Path | str]) -> Detector:
    files = [path for folder in model_folders for path in sorted(Path(folder).glob(_YUNET_PATTERN))]
    kinds: list[tuple[str, Callable[[], Detector]]] = [
        *((f"YuNet {path}", partial(YuNetDetector, path)) for path in dict.fromkeys(files)),
        ("vision", VisionDetector),
        ("dlib", DlibDetector),
    ]
    reasons = [] if files else [f"YuNet: no {_YUNET_PATTERN} beside the models"]
    for name, open_kind in kinds:
        try:
            detector = open_kind()
        except (BackendError, MissingDependency, BrokenLibrary) as error:
            if isinstance(error, BrokenLibrary) or name.startswith("YuNet"):
                logger.warning("%s; passed over", error)
            reasons.append(f"{name.split()[0]}: {error}")
            continue
        logger.info("face detector: %s", "; ".join([name, *reasons]))
        return detector
    raise BackendError(
        f"no face detector here ({'; '.join(reasons)}); three ways to get one: put OpenCV's YuNet "
        "model (face_detection_yunet_*.onnx) beside the landmark model or name it with --detector; "
        'pip install "mlx-faceau[detect]" for dlib (on a Mac: Apple Vision); '
        "or give a function of your own (--detector package.module:function)"
    )


def _resized(frame: np.ndarray, longest: int, enlarged: float = 1.0) -> tuple[np.ndarray, float]:
    """The frame with its longer side reduced to ``longest`` px, or ``enlarged`` by so much at most;
    and its scale."""
    scale = min(enlarged, longest / max(frame.shape[:2]))
    if scale == 1.0:
        return frame, scale
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(frame, size, interpolation=method), scale


def _clipped(found: Sequence[Detection]) -> list[Detection]:
    return [replace(detection, score=min(detection.score, 1.0)) for detection in found]


def _merged(found: Sequence[Detection]) -> list[Detection]:
    """Non-maximum suppression: of detections of one face the one with the best score."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if not any(_same_face(detection, other) for other in kept):
            kept.append(detection)
    return kept


def _same_face(one: Detection, other: Detection) -> bool:
    """Whether the boxes' centres are less than half of the larger box apart."""
    (x, y, width, height), (u, v, wide, high) = one.box, other.box
    distance = max(abs(x + width / 2 - u - wide / 2), abs(y + height / 2 - v - high / 2))
    return distance < max(width, height, wide, high) / 2


def _detection(
    box: np.ndarray, score: float, scale: float, marks: np.ndarray | None = None
) -> Detection:
    """A face of a reduced frame in the full one; resizing keeps pixel edges, not centres."""
    x, y, width, height = (float(value) for value in box)
    return Detection(
        ((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, width / scale, height / scale),
        score,
        None if marks is None else (marks.reshape(5, 2) + 0.5) / scale - 0.5,
    )
