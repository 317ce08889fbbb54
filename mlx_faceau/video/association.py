"""Association of detections with tracks: pure functions of places and appearances.

Pairs are taken greedily in the order of their cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .fitting import Square

SAME_PLACE = 0.9  # cost below which a detection and an active track are one face
_SAME_APPEARANCE = 0.80  # similarity from which a lost face is recognised wherever it is
_PLAUSIBLE_APPEARANCE = 0.45  # similarity that a lost face needs near its last place
_NEAR = 2.0  # distance of squares that is near


@dataclass(frozen=True)
class FaceDetection:
    """A detected face as the standard crop's square, with its appearance.

    Args:
        square: from the detector's box and its calibration.
        score: the detector's, in [0, 1].
        appearance: unit vector, see :func:`mlx_faceau.video.appearance.appearance_of`; empty near a
            known track, which needs none.
        marks: (5, 2) frame pixels, or None; see :class:`mlx_faceau.video.detectors.Detection`.
    """

    square: Square
    score: float
    appearance: np.ndarray
    marks: np.ndarray | None = None


class Tracked(Protocol):
    """What association needs of a track; ``last_place`` is None when that is unknown."""

    @property
    def last_place(self) -> Square | None: ...
    @property
    def appearance(self) -> np.ndarray: ...


Cost = Callable[[Tracked, FaceDetection], float]


def place_cost(square: Square, other: Square) -> float:
    """Size counts half: a track that has shrunk or grown away still lies on its face."""
    larger = max(square.side, other.side)
    shift = float(np.linalg.norm(other.centre - square.centre)) / larger
    return shift + 0.5 * abs(float(np.log(other.side / square.side)))


def active_cost(track: Tracked, detection: FaceDetection) -> float:
    """Cost of a detection for a track in sight; infinite where they cannot be one face."""
    place = np.inf if track.last_place is None else place_cost(track.last_place, detection.square)
    if place >= SAME_PLACE:
        return np.inf
    return place + 0.5 * (1 - float(track.appearance @ detection.appearance))


def lost_cost(track: Tracked, detection: FaceDetection) -> float:
    """Cost of a detection for a lost track; infinite where they cannot be one face."""
    similarity = float(track.appearance @ detection.appearance)
    place = np.inf if track.last_place is None else track.last_place.distance(detection.square)
    if similarity < (_PLAUSIBLE_APPEARANCE if place <= _NEAR else _SAME_APPEARANCE):
        return np.inf
    return (0.3 * place if np.isfinite(place) else 0.0) + (1 - similarity)


def associate(
    tracks: Sequence[Tracked], detections: Sequence[FaceDetection], cost: Cost
) -> dict[int, int]:
    """The cheapest pairs.

    Returns:
        Index of a track -> index of its detection; neither occurs twice.
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
    return pairs
