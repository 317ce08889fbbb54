"""Tracking of faces through a video: one :meth:`Tracker.update` a frame.

scene cut? -> detections (whole frame, or near a track) -> association -> landmarks -> confidence
           -> re-detection in the same frame where a fit has left its face -> squares of the next

The square of the next crop moves with the landmarks, as far as they are found to follow the face
and not the crop. Where detections disagree a little with it, it is moved towards them slowly.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import combinations, count

import cv2
import numpy as np

from mlx_faceau.core.geometry import square_crop_matrix
from mlx_faceau.core.pdm import PDM
from mlx_faceau.core.preprocess import CROP_SHAPE

from .align import FrameCrops
from .appearance import SceneCuts, appearance_of, unit
from .confidence import ConfidenceCurves, agreement_signal, box_signal, marks_signal, share_inside
from .detectors import Detector
from .fitting import LandmarkFit, Predictor, Square, agreement_of, fit_landmarks
from .pose import Camera
from .results import FaceResult, Frame, FrameResult
from .tracks import (
    NEVER,
    SAME_PLACE,
    FaceDetection,
    SquareFilter,
    Track,
    active_cost,
    associate,
    lost_cost,
    place_cost,
)

_NEAR_EVERY = 2  # frames between detections near a track, where the detector is quick there
_NEAR_SIDES = 1.6  # sides of the region for it
_SEARCH_EVERY = 5  # frames between detections while a track is lost or doubtful
# Frames between fits of a displaced crop, of a track without a detector's marks.
_AGREEMENT_EVERY = 8
_PATIENCE = 3  # frames in a row without success after which a track that is not seen is lost
_MISPLACED = 0.25  # place cost from which a track is put where the detector finds its face
_DUPLICATES = 0.25  # two tracks closer than this show one face
_SAME_CROP = 0.02  # distance of squares whose landmarks are the same
_JUMP = 0.3  # place cost between two frames' landmarks that no face moves
_UNLIKE = 0.15  # fall of similarity below its usual value at which a fit is suspected
# Share of a displacement that landmarks follow: below the first the crop is cut around them, above
# the second it keeps the place that the detector gave it relative to them.
_SEES, _BLIND = 0.2, 0.6


@dataclass(frozen=True)
class TrackedFrame:
    """A frame's faces before their action units, and the crops (F, 112, 112, 3) for those."""

    result: FrameResult
    crops: np.ndarray


def detect_near(
    detector: Detector, image: np.ndarray, square: Square, region_side: int
) -> FaceDetection | None:
    """The face that a detector finds in a small region around a square, or None; no appearance.

    ``image`` (H, W, 3) uint8 BGR is the whole frame; the region is reduced to ``region_side`` px.
    """
    height, width = image.shape[:2]
    half = _NEAR_SIDES * square.side / 2
    low = np.maximum(np.floor(square.centre - half).astype(int), 0)
    high = np.minimum(np.ceil(square.centre + half).astype(int), (width, height))
    if (high - low < 8).any():
        return None
    region = image[low[1] : high[1], low[0] : high[0]]
    scale = min(1.0, region_side / (2 * half))
    size = np.maximum(np.round((high - low) * scale).astype(int), 8)
    # In two steps: a seventh of INTER_AREA's time, and nearly its pixels.
    doubled = cv2.resize(region, (2 * size).tolist(), interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(doubled, size.tolist(), interpolation=cv2.INTER_LINEAR)
    ratio = (high - low) / size
    found = []
    for detection in detector.detect(small):
        x, y, box_width, box_height = detection.box
        corner = (np.array([x, y]) + 0.5) * ratio - 0.5 + low
        box = (*corner.tolist(), float(box_width * ratio[0]), float(box_height * ratio[1]))
        marks = None if detection.marks is None else (detection.marks + 0.5) * ratio - 0.5 + low
        own = Square(*detector.calibration.square(box))
        found.append(FaceDetection(own, detection.score, np.zeros(0), marks))
    nearest = min(found, key=lambda d: place_cost(square, d.square), default=None)
    if nearest is None or place_cost(square, nearest.square) >= SAME_PLACE:
        return None
    return nearest


@dataclass(eq=False)
class Tracker:
    """Tracks the faces of one video.

    A detector with a ``region_side``, the pixels of a region in which it is quick, is asked near
    each track every other frame as well.
    """

    predictor: Predictor  # the landmark net
    detector: Detector
    curves: ConfidenceCurves = field(default_factory=ConfidenceCurves)
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while the detector works
    _: KW_ONLY
    detect_every: int = 30  # frames between detections in the whole frame while all is well
    memory: int = 150  # frames of the source for which a lost track is remembered
    max_faces: int | None = None  # tracked at most
    min_confidence: float = 0.5  # below it a face's ``success`` is False
    source: str = ""  # of the frames, for their results
    camera: Camera | None = None  # None: OpenFace's guess from the frame's size
    pdm: PDM | None = None  # of the landmark net, for the poses

    def __post_init__(self) -> None:
        self.tracks: list[Track] = []
        self._region_side = int(getattr(self.detector, "region_side", 0))
        self._cuts = SceneCuts()
        self._detected = NEVER
        self._ids = count()
        self._others: list[Square] = []  # faces that the last detection had no room for

    @property
    def active(self) -> list[Track]:
        """Tracks whose face is in sight, by ``face_id``."""
        return [track for track in self.tracks if not track.lost]

    def update(self, frame: Frame) -> TrackedFrame:
        """The faces of the next frame; frames come in order."""
        index, crops = frame.index, FrameCrops(frame.image)
        self.tracks = [t for t in self.tracks if not t.lost or index - t.last_frame <= self.memory]
        if self._cuts.is_cut(frame.image):
            for track in self.tracks:
                track.lost = track.elsewhere = True
            self._detected, self._others = NEVER, []
        for track in self.active:
            track.filter.predict(index - track.last_frame)
        if self._is_detection_due(index):
            self._detect(crops, index)
        for track in self.active:
            if self._region_side and index - track.detected >= _NEAR_EVERY:
                self._observe(track, self._near(crops, track), index)
        self._fit(crops, index, self.active)
        if self._detected < index and any(track.suspect for track in self.active):
            self._detect(crops, index)
            unsure = [t for t in self.active if t.suspect and t.detection is None]
            again = [t for t in self.active if t.placed == index or t in unsure]
            self._fit(crops, index, again)
        self._hide_duplicates()
        shown = self.active
        faces = tuple(self._finish(track, index, frame.image.shape[:2]) for track in shown)
        cut = [track.crop for track in shown] or np.zeros((0, *CROP_SHAPE), np.uint8)
        return TrackedFrame(FrameResult(frame, faces, self.source), np.asarray(cut))

    # Detection and association

    def _is_detection_due(self, index: int) -> bool:
        since = index - self._detected
        if not self.active or since >= self.detect_every:
            return True
        unsure = any(t.lost or (t.weak and not self._region_side) for t in self.tracks)
        return since >= _SEARCH_EVERY and unsure

    def _detect(self, frame: FrameCrops, index: int) -> None:
        self._detected = index
        with self.lock:
            seen = self.detector.detect(frame.frame)
        detections = []
        for detection in seen:
            square = Square(*self.detector.calibration.square(detection.box))
            appearance = appearance_of(frame.crop(square_crop_matrix(*square)))
            detections.append(FaceDetection(square, detection.score, appearance, detection.marks))
        for track in self.active:
            self._observe(track, None, index)
        for track, found in associate(self.active, detections, active_cost):
            # Boxes of a small region differ a little from those of a whole frame: a track is
            # measured by the first only, or each change of them would move it.
            self._observe(track, self._near(frame, track) or found, index)
        lost = [track for track in self.tracks if track.lost]
        for track, found in associate(lost, detections, self._lost_cost):
            if self._has_room():
                self._place(track, found, index)
        self._others = []
        for found in sorted(detections, key=lambda d: -d.score):
            if self._has_room():
                track = Track(next(self._ids), SquareFilter(found.square), found.appearance, index)
                self._place(track, found, index)
                self.tracks.append(track)
            else:
                self._others.append(found.square)

    def _lost_cost(self, track: Track, found: FaceDetection) -> float:
        """A face seen beside the track while that was in sight is another one, however alike."""
        other = any(place_cost(square, found.square) < SAME_PLACE for square in self._others)
        return np.inf if other else lost_cost(track, found)

    def _near(self, frame: FrameCrops, track: Track) -> FaceDetection | None:
        if not self._region_side:
            return None
        with self.lock:
            return detect_near(self.detector, frame.frame, track.square, self._region_side)

    def _has_room(self) -> bool:
        return self.max_faces is None or len(self.active) < self.max_faces

    def _place(self, track: Track, found: FaceDetection, index: int) -> None:
        track.filter, track.weak = SquareFilter(found.square), 0
        track.lost = track.elsewhere = False
        track.placed = track.detected = index
        track.detection = found

    def _observe(self, track: Track, found: FaceDetection | None, index: int) -> None:
        """A detection of an active track, or that there is none."""
        if found is not None and place_cost(track.square, found.square) > _MISPLACED:
            self._place(track, found, index)
            return
        track.detected, track.detection = index, found
        if found is not None:
            track.filter.add_detection(found.square)

    # Landmarks

    def _fit(self, frame: FrameCrops, index: int, tracks: Sequence[Track]) -> None:
        """Fit tracks, in one pass of the net; where the detector placed a track, in two or three.

        The second is cut around the landmarks of the first. A net that turns out to follow its crop
        gets the detector's square again, so that it does not drift.
        """
        placed = [t for t in tracks if t.placed == index]
        due = [t for t in tracks if t not in placed and self._is_agreement_due(t, index)]
        first = self._fit_squares(frame, index, {t: t.square for t in tracks}, due)
        again = {t: first[t].square for t in placed if first[t].usable}
        second = self._fit_squares(frame, index, again, [*again])
        third = {}
        for track, fit in second.items():
            if fit.usable:
                kept = ((track.agreement.gain - _SEES) / (_BLIND - _SEES)).clip(0.0, 1.0)
                track.offset = kept * again[track].displacement(track.square)
                moved = kept * fit.square.displacement(track.square)
                track.filter = SquareFilter(fit.square.moved(moved))
                if track.square.distance(again[track]) > _SAME_CROP:
                    third[track] = track.square
        fits = first | second | self._fit_squares(frame, index, third)
        for track, fit in fits.items():
            track.lost = not fit.usable
            if track.lost:
                continue
            track.crop = frame.crop(square_crop_matrix(*fit.square))
            track.seen = appearance_of(track.crop)
            track.suspect = track.placed != index and (
                float(track.appearance @ track.seen) < track.similarity - _UNLIKE
                or place_cost(track.fit.square, fit.square) > _JUMP
                or (track.detected == index and track.detection is None)
            )
            track.fit = fit

    def _fit_squares(
        self,
        frame: FrameCrops,
        index: int,
        squares: Mapping[Track, Square],
        due: Sequence[Track] = (),
    ) -> dict[Track, LandmarkFit]:
        """Fits of squares, in one pass; of the tracks that are due, also the agreement."""
        second = [squares[track].moved() for track in due]
        found = fit_landmarks(self.predictor, frame, [*squares.values(), *second])
        fits = dict(zip(squares, found, strict=False))
        for track, other in zip(due, found[len(squares) :], strict=True):
            own = fits[track]
            if own.usable and other.usable:
                track.agreed = index
                track.agreement = agreement_of(own.landmarks, other.landmarks, squares[track])
        return fits

    def _is_agreement_due(self, track: Track, index: int) -> bool:
        """Without a detector's marks: every few frames, and when the detector misses the face."""
        if track.detection is None:
            return track.detected == index
        return track.detection.marks is None and index - track.agreed >= _AGREEMENT_EVERY

    def _hide_duplicates(self) -> None:
        """Of two tracks on one face, the less similar one becomes lost: its face is hidden."""
        for one, two in combinations(self.active, 2):
            distance = one.fit.square.distance(two.fit.square)
            if distance < _DUPLICATES and not (one.lost or two.lost):
                hidden = min(one, two, key=lambda t: (float(t.appearance @ t.seen), -t.face_id))
                hidden.lost = True

    # Confidence, and the next frame's square

    def _finish(self, track: Track, index: int, size: tuple[int, int]) -> FaceResult:
        fit = track.fit
        # Scores and thresholds of the user's own may be NumPy's, which JSON does not take.
        confidence = float(self._confidence(track, index) * share_inside(fit.landmarks, size))
        success = bool(confidence >= self.min_confidence)
        self._advance(track, index, success, size)
        return FaceResult(
            face_id=track.face_id,
            confidence=confidence,
            success=success,
            landmarks=fit.landmarks,
            global_params=fit.global_params,
            local_params=fit.local_params,
            warp_matrix=square_crop_matrix(*fit.square),
            camera=self.camera or Camera.from_size(size[1], size[0]),
            pdm=self.pdm,
        )

    def _confidence(self, track: Track, index: int) -> float:
        found, fit = track.detection, track.fit
        if found is not None and track.detected == index:
            if found.marks is not None:
                track.evidence = marks_signal(fit.landmarks, found.marks) * found.score
            else:
                track.evidence = box_signal(fit.square, found.square) * found.score
        if found is not None and found.marks is not None:
            return self.curves.marks(track.evidence)
        evidence = 0.0 if found is None else track.evidence
        agreement = self.curves.agreement(agreement_signal(track.agreement))
        return 1 - (1 - agreement) * (1 - evidence)

    def _advance(self, track: Track, index: int, success: bool, size: tuple[int, int]) -> None:
        track.last_frame, own = index, track.fit.square
        track.filter.add_landmarks(own.moved(track.offset), track.agreement.gain)
        track.weak = 0 if success else track.weak + 1
        x, y = own.centre
        unseen = track.weak >= _PATIENCE and track.detection is None
        if unseen or not (0 <= x < size[1] and 0 <= y < size[0]):
            track.lost = True
        near = any(own.distance(t.square) < 1.0 for t in self.active if t is not track)
        if success and not near:
            similarity = float(track.appearance @ track.seen)
            track.similarity = 0.9 * track.similarity + 0.1 * similarity
            track.appearance = unit(0.9 * track.appearance + 0.1 * track.seen)
