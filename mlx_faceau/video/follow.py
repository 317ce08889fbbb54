"""The nets on a frame: landmarks of given squares, and faces followed from frame to frame.

frame -> squares (detector, or last landmarks) -> crops -> landmarks, pose, shape -> frame space
      -> re-crop from the landmarks -> action units
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlx_faceau.core.geometry import CROP_MARGIN, square_crop_matrix, to_frame
from mlx_faceau.core.preprocess import CROP_SHAPE

from .align import FrameCrops
from .appearance import SceneCuts, look
from .confidence import Square, agreement_of, confidence_of, displaced, resemblance
from .detectors import Detector
from .results import Face, Frame, FrameFaces
from .tracking import Candidate, Track, Tracker

_CHECK_EVERY = 8  # frames between looks at a followed face through a displaced crop
_SMALLEST = 4.0  # px that a face's landmarks must span


class Predictor(Protocol):
    """What the pipeline needs of a net: crops (N, 112, 112, 3) uint8 BGR to arrays by name."""

    def predict_batch(self, bgr_crops: np.ndarray) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Shape:
    """What the landmark net says about one face, in frame space."""

    landmarks: np.ndarray  # (68, 2)
    global_params: np.ndarray  # (6,)
    local_params: np.ndarray  # (34,)

    @property
    def usable(self) -> bool:
        """Whether the landmarks span a square that a crop can be cut from."""
        extent = np.ptp(self.landmarks, axis=0).max()
        return bool(np.isfinite(self.landmarks).all() and extent >= _SMALLEST)


@dataclass(frozen=True)
class Sight:
    """A followed face in the current frame, with its standard crop."""

    track: Track
    shape: Shape
    matrix: np.ndarray  # (2, 3) frame to the standard crop of the landmarks
    crop: np.ndarray  # (112, 112, 3) uint8 BGR
    look: np.ndarray


@dataclass(frozen=True)
class Reading:
    """A frame's faces before their action units, and the crops (F, 112, 112, 3) for those."""

    faces: FrameFaces
    crops: np.ndarray


def read_shapes(predictor: Predictor, frame: FrameCrops, squares: Sequence[Square]) -> list[Shape]:
    """One pass of the landmark net over squares (centre, side) of a frame."""
    if not squares:
        return []
    matrices = np.stack([square_crop_matrix(centre, side) for centre, side in squares])
    read = predictor.predict_batch(np.stack([frame.crop(matrix) for matrix in matrices]))
    placed = to_frame(matrices, read["landmarks"], read["global_params"])
    parts = (placed["landmarks"], placed["global_params"], read["local_params"])
    return [Shape(*rows) for rows in zip(*parts, strict=True)]


def find_candidates(detector: Detector, frame: FrameCrops) -> list[Candidate]:
    """The faces that a detector sees, as squares of the standard crop."""
    candidates = []
    for detection in detector.detect(frame.frame):
        centre, side = detector.calibration.square(detection.box)
        crop = frame.crop(square_crop_matrix(centre, side))
        candidates.append(Candidate(centre, side, detection.score, look(crop), detection.marks))
    return candidates


def standard_square(landmarks: np.ndarray) -> Square:
    """Centre and side of the square that 68 landmarks' standard crop is cut from."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return (low + high) / 2, CROP_MARGIN * float((high - low).max())


class Follower:
    """Follows the faces of one video.

    Args:
        predictor: the landmark net.
        detector: finds faces at the start, after a loss and every now and then.
        tracker: who is who.
        min_confidence: below it a face's ``success`` is False.
    """

    def __init__(
        self, predictor: Predictor, detector: Detector, tracker: Tracker, min_confidence: float
    ) -> None:
        self._predictor = predictor
        self._detector = detector
        self._tracker = tracker
        self._min_confidence = min_confidence
        self._cuts = SceneCuts()

    def follow(self, frame: Frame) -> Reading:
        """The faces of the next frame; frames come in order."""
        tracker, image, crops = self._tracker, frame.image, FrameCrops(frame.image)
        tracker.start_frame(frame.index)
        if self._cuts.is_cut(image):
            tracker.cut()
        if tracker.detection_due(frame.index):
            tracker.detected(frame.index, find_candidates(self._detector, crops))
        sights = self._see(crops, frame.index)
        hidden = tracker.part_twins({s.track.face_id: s.look for s in sights})
        sights = [sight for sight in sights if sight.track not in hidden]
        faces = tuple(self._face(sight, image.shape[:2]) for sight in sights)
        cut = [sight.crop for sight in sights] or np.zeros((0, *CROP_SHAPE), np.uint8)
        return Reading(FrameFaces(frame, faces), np.asarray(cut))

    def _see(self, frame: FrameCrops, index: int) -> list[Sight]:
        """Landmarks of all followed faces; two passes where the detector placed the crop."""
        tracks = sorted(self._tracker.followed, key=lambda track: track.face_id)
        shapes = self._read(frame, index, tracks)
        placed = [t for t in tracks if t.anchored and shapes[t.face_id].usable]
        squares = []
        for track in placed:
            square = standard_square(shapes[track.face_id].landmarks)
            track.anchor(*square)
            squares.append(track.next_square(*square))
        better = read_shapes(self._predictor, frame, squares)
        shapes |= zip((t.face_id for t in placed), better, strict=True)
        return [
            self._sight(frame, index, track, shapes[track.face_id])
            for track in tracks
            if self._is_usable(track, shapes[track.face_id])
        ]

    def _read(self, frame: FrameCrops, index: int, tracks: Sequence[Track]) -> dict[int, Shape]:
        """Shapes by face_id, all in one pass; some faces are looked at twice.

        The second look is through a displaced crop: does the net find the face again? A net that
        sees a face finds it where it is; one that sees none moves its mean face along.
        """
        squares = [(track.centre, track.side) for track in tracks]
        again = [i for i, track in enumerate(tracks) if _is_check_due(track, index)]
        second = [displaced(squares[i]) for i in again]
        shapes = read_shapes(self._predictor, frame, [*squares, *second])
        for i, other in zip(again, shapes[len(tracks) :], strict=True):
            if shapes[i].usable:
                tracks[i].checked = index
                tracks[i].agreement = agreement_of(shapes[i].landmarks, other.landmarks, squares[i])
        return {track.face_id: shape for track, shape in zip(tracks, shapes, strict=False)}

    @staticmethod
    def _is_usable(track: Track, shape: Shape) -> bool:
        track.missing = not shape.usable
        return shape.usable

    def _sight(
        self,
        frame: FrameCrops,
        index: int,
        track: Track,
        shape: Shape,
    ) -> Sight:
        own = standard_square(shape.landmarks)
        matrix = square_crop_matrix(*own)
        crop = frame.crop(matrix)
        sight = Sight(track, shape, matrix, crop, look(crop))
        self._tracker.followed_to(track, index, own, sight.look)
        if track.marks is not None:
            track.score *= resemblance(shape.landmarks, track.marks)
        return sight

    def _face(self, sight: Sight, size: tuple[int, int]) -> Face:
        track, shape = sight.track, sight.shape
        confidence = confidence_of(track.agreement.value, track.score, shape.landmarks, size)
        success = confidence >= self._min_confidence
        self._tracker.judge(track, success, size)
        return Face(
            face_id=track.face_id,
            confidence=confidence,
            success=success,
            landmarks=shape.landmarks,
            global_params=shape.global_params,
            local_params=shape.local_params,
            warp_matrix=sight.matrix,
        )


def _is_check_due(track: Track, index: int) -> bool:
    return track.anchored or track.weak > 0 or index - track.checked >= _CHECK_EVERY
