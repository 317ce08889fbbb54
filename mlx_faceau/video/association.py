"""Tracks, and association of detections with them by place and appearance.

Pairs are taken greedily in the order of their cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .fitting import UNKNOWN, Agreement, Square
from .square_filter import SquareFilter

NEVER = -1_000_000  # a frame before all others
SAME_PLACE = 0.9  # cost below which a detection and an active track are one face
_SAME_APPEARANCE = 0.80  # similarity from which a lost face is recognised wherever it is
_PLAUSIBLE_APPEARANCE = 0.45  # similarity that a lost face needs near its last place
_NEAR = 2.0  # distance of squares that is near


@dataclass(frozen=True)
class FaceDetection:
    """A detected face as the standard crop's square, with its appearance."""

    square: Square  # from the detector's box and its calibration
    score: float  # the detector's, in [0, 1]
    appearance: np.ndarray  # unit vector; empty near a known track, which needs none
    marks: np.ndarray | None = None  # (5, 2) frame pixels, see .detectors.Detection


@dataclass
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
    fitted: Square | None = None  # the landmarks' square of the last frame
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))  # from there to the crop's

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
    """The cheapest pairs, in which neither a track nor a detection occurs twice.

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
