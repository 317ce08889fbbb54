"""One pass of the landmark net over squares of a frame, and how it reacts to a displaced square."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlx_faceau.core.geometry import CROP_MARGIN, square_crop_matrix, to_frame

from .align import FrameCrops

_SMALLEST = 4.0  # px that a face's landmarks must span
# From a square to the displaced one, in its sides: right, down, growth of the log side.
DISPLACEMENT = np.array([0.08, -0.06, np.log(1.12)])


class Predictor(Protocol):
    """What the pipeline needs of a net: crops (N, 112, 112, 3) uint8 BGR to arrays by name."""

    def predict_batch(self, bgr_crops: np.ndarray) -> dict[str, Any]: ...


class Square(NamedTuple):
    """The part of a frame that a crop is cut from: centre (x, y) and side in pixels."""

    centre: np.ndarray
    side: float

    def distance(self, other: "Square") -> float:
        """Shift in sides plus log ratio of sizes; 0 for the same square."""
        shift = float(np.linalg.norm(other.centre - self.centre)) / np.sqrt(other.side * self.side)
        return float(shift + abs(np.log(other.side / self.side)))

    def displacement(self, other: "Square") -> np.ndarray:
        """(x, y, log side) to another square, in sides of this one."""
        shift = (other.centre - self.centre) / self.side
        return np.array([*shift, np.log(other.side / self.side)])

    def moved(self, by: np.ndarray = DISPLACEMENT) -> "Square":
        """The square displaced by (x, y, log side), in its sides."""
        return Square(self.centre + self.side * by[:2], self.side * float(np.exp(by[2])))


@dataclass(frozen=True)
class LandmarkFit:
    """What the landmark net predicts for one square, in frame space."""

    landmarks: np.ndarray  # (68, 2)
    global_params: np.ndarray  # (6,)
    local_params: np.ndarray  # (34,)

    @property
    def usable(self) -> bool:
        """Whether the landmarks span a square that a crop can be cut from."""
        extent = np.ptp(self.landmarks, axis=0).max()
        return bool(np.isfinite(self.landmarks).all() and extent >= _SMALLEST)

    @property
    def square(self) -> Square:
        """The standard crop's square of the landmarks."""
        return standard_square(self.landmarks)


@dataclass(frozen=True)
class Agreement:
    """How the landmarks react when their crop is displaced: 0 not at all, 1 they move with it.

    Landmarks of a detected face do not depend on the crop; a net that detects none predicts its
    mean face, which moves with the crop.
    """

    share: float  # of the whole displacement that the landmarks follow
    # (3,) the same of their square's x, y and log side; NaN along an axis without displacement
    gain: np.ndarray


# Of a fit that was not compared with another: as of landmarks that move with the crop.
UNKNOWN = Agreement(1.0, np.ones(3))


def standard_square(landmarks: np.ndarray) -> Square:
    """The square that the standard crop of (68, 2) landmarks is cut from."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return Square((low + high) / 2, CROP_MARGIN * float((high - low).max()))


def fit_landmarks(
    predictor: Predictor, frame: FrameCrops, squares: Sequence[Square]
) -> list[LandmarkFit]:
    """One pass of the landmark net over squares of a frame."""
    if not squares:
        return []
    matrices = np.stack([square_crop_matrix(*square) for square in squares])
    read = predictor.predict_batch(np.stack([frame.crop(matrix) for matrix in matrices]))
    placed = to_frame(matrices, read["landmarks"], read["global_params"])
    parts = (placed["landmarks"], placed["global_params"], read["local_params"])
    return [LandmarkFit(*rows) for rows in zip(*parts, strict=True)]


def agreement_of(
    first: np.ndarray, second: np.ndarray, square: Square, by: np.ndarray = DISPLACEMENT
) -> Agreement:
    """How two fits (68, 2) of a face agree, from ``square`` and from ``square.moved(by)``."""
    other = square.moved(by)
    along = (first - square.centre) * (other.side / square.side) + other.centre
    distances = [np.linalg.norm(points - first, axis=1).mean() for points in (second, along)]
    one, two, whole = (standard_square(points) for points in (first, second, along))
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = one.displacement(two) / one.displacement(whole)
    return Agreement(float(distances[0] / distances[1]), gain)
