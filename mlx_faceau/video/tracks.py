"""Tracks of faces: where each is and will be, and association of detections with them.

A Kalman filter with damped velocity models a face's square: position and log side are independent;
displacements are (x, y, log side) in sides. Detections measure where the face is. The landmarks
measure it as far as they follow the face and not their crop: of a face displaced by d from the
crop, a net that follows the displacement of its crop by a gain g shows (1 - g) d.

Reference:
    Kalman, A new approach to linear filtering and prediction problems, J. Basic Eng. 82, 1960.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .fitting import UNKNOWN, Agreement, LandmarkFit, Square

NEVER = -1_000_000  # a frame before all others
SAME_PLACE = 0.9  # cost below which a detection and an active track are one face
_SAME_APPEARANCE = 0.80  # similarity from which a lost face is recognised wherever it is
_PLAUSIBLE_APPEARANCE = 0.45  # similarity that a lost face needs near its last place
_NEAR = 2.0  # distance of squares that is near
_DAMPING = 0.8  # of the velocity from frame to frame
_ACCELERATION = np.array([0.002, 0.002, 0.001])  # a frame, standard deviation
_DETECTION_NOISE = 0.02  # of a detector's calibrated square, standard deviation
_FIRST_NOISE = 0.01  # of the whole frame's detection that starts a track
_DETECTION_REACH = 0.04  # a disagreement counts for no more than this: crops never snap
_LANDMARK_NOISE, _GAIN_NOISE = 0.002, 0.01  # of the landmarks' square; what a gain of 1 adds


class SquareFilter:
    """Where a face is, and where it will be in the next frame; first where a detector placed it."""

    def __init__(self, square: Square) -> None:
        self.square = square
        self._velocity = np.zeros(3)
        self._covariance = np.tile(np.diag([_FIRST_NOISE**2, 0.005**2]), (3, 1, 1))

    def predict(self, frames: int) -> None:
        """Move on by so many frames."""
        for _ in range(min(frames, 30)):
            self.square = self.square.moved(self._velocity)
            self._velocity = _DAMPING * self._velocity
            step = np.array([[1.0, 1.0], [0.0, _DAMPING]])
            self._covariance = step @ self._covariance @ step.T
            self._covariance[:, 1, 1] += _ACCELERATION**2

    def add_detection(self, square: Square) -> None:
        """Update by a detected face."""
        innovation = self.square.displacement(square)
        self._update(
            innovation.clip(-_DETECTION_REACH, _DETECTION_REACH), np.ones(3), _DETECTION_NOISE
        )

    def add_landmarks(self, square: Square, gain: np.ndarray) -> None:
        """Update by the square of landmarks that were predicted from ``self.square``.

        ``gain`` (3,) is the share of the crop's displacement that they follow.
        """
        seen = (1 - gain).clip(0.0, 1.0)
        self._update(
            self.square.displacement(square), seen, _LANDMARK_NOISE + _GAIN_NOISE * (1 - seen)
        )

    def _update(self, innovation: np.ndarray, seen: np.ndarray, noise: float | np.ndarray) -> None:
        covariance = self._covariance
        expected = seen**2 * covariance[:, 0, 0] + noise**2
        kalman_gain = covariance[:, :, 0] * (seen / expected)[:, None]  # (3, 2)
        self._covariance = covariance - (
            kalman_gain[:, :, None] * (seen[:, None] * covariance[:, 0])[:, None, :]
        )
        correction = kalman_gain * innovation[:, None]
        self._velocity = self._velocity + correction[:, 1]
        self.square = self.square.moved(correction[:, 0])


@dataclass(frozen=True)
class FaceDetection:
    """A detected face as the standard crop's square, with its appearance."""

    square: Square  # from the detector's box and its calibration
    score: float  # the detector's, in [0, 1]
    appearance: np.ndarray  # unit vector; empty near a known track, which needs none
    marks: np.ndarray | None = None  # (5, 2) frame pixels, see .detectors.Detection


@dataclass(eq=False)
class Track:
    """One person; only :class:`mlx_faceau.video.tracking.Tracker` changes it."""

    face_id: int  # from 0, never used again
    filter: SquareFilter  # where the face is, or was last
    appearance: np.ndarray  # unit vector
    last_frame: int  # index of the last frame with a fit
    lost: bool = False
    elsewhere: bool = False  # since a scene cut it may be anywhere
    weak: int = 0  # frames in a row without success
    placed: int = NEVER  # frame in which the detector placed it
    detected: int = NEVER  # frame of the last detection, of the whole frame or near the track
    detection: FaceDetection | None = None  # what that was; None where it saw no face
    evidence: float = 0.0  # for the fit from that detection, in [0, 1]
    agreed: int = NEVER  # frame of the last fit of a displaced crop
    agreement: Agreement = UNKNOWN
    similarity: float = 1.0  # usual one of crops to the appearance
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))  # landmarks' square to crop's
    # Of the last frame in which it was in sight:
    fit: LandmarkFit = field(init=False, repr=False)
    crop: np.ndarray = field(init=False, repr=False)  # the landmarks' standard crop
    seen: np.ndarray = field(init=False, repr=False)  # the crop's appearance
    suspect: bool = False  # whether the fit may have left the face

    @property
    def square(self) -> Square:
        """The part of the frame that the next crop is cut from."""
        return self.filter.square


def place_cost(square: Square, other: Square) -> float:
    """Distance in which size counts half, since the size of a track drifts more than its place."""
    larger = max(square.side, other.side)
    shift = float(np.linalg.norm(other.centre - square.centre)) / larger
    return shift + 0.5 * abs(float(np.log(other.side / square.side)))


def active_cost(track: Track, detection: FaceDetection) -> float:
    """Cost of a detection for a track in sight; infinite where they cannot be one face."""
    place = place_cost(track.square, detection.square)
    if place >= SAME_PLACE:
        return np.inf
    return place + 0.5 * (1 - float(track.appearance @ detection.appearance))


def lost_cost(track: Track, detection: FaceDetection) -> float:
    """Cost of a detection for a lost track; infinite where they cannot be one face."""
    similarity = float(track.appearance @ detection.appearance)
    place = np.inf if track.elsewhere else track.square.distance(detection.square)
    if similarity < (_PLAUSIBLE_APPEARANCE if place <= _NEAR else _SAME_APPEARANCE):
        return np.inf
    return (0.0 if track.elsewhere else 0.3 * place) + (1 - similarity)


def associate(
    tracks: Sequence[Track],
    detections: list[FaceDetection],
    cost: Callable[[Track, FaceDetection], float],
) -> list[tuple[Track, FaceDetection]]:
    """The pairs of least cost, taken greedily, in which no track or detection occurs twice.

    Their detections are removed from the list.
    """
    costs = sorted(
        (cost(track, detection), i, j)
        for i, track in enumerate(tracks)
        for j, detection in enumerate(detections)
    )
    pairs: dict[int, int] = {}
    for value, i, j in costs:
        if np.isfinite(value) and i not in pairs and j not in pairs.values():
            pairs[i] = j
    taken = [(tracks[i], detections[j]) for i, j in pairs.items()]
    detections[:] = [d for j, d in enumerate(detections) if j not in pairs.values()]
    return taken
