"""How far a face can be trusted: two crops that agree, the detector's word, points in the picture.

Neither sign is enough alone: a detector is asked every now and then only, and a net that was
trained on well-centred crops follows any crop a little. So either may vouch for a face, and both
must fail before it is doubted.
"""

from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.landmarks import FIVE_POINTS

Square = tuple[np.ndarray, float]  # centre (x, y) and side, frame pixels

# The second crop: moved right and up by these sides, and larger.
_SHIFT = np.array([0.08, -0.06])
_GROWTH = 1.12
_DOUBT = 0.6  # share of the displacement that the landmarks follow at which agreement is 1/e
_APART = 0.4  # distance from a detector's marks, in their spread, at which resemblance is 1/e


@dataclass(frozen=True)
class Agreement:
    """What the landmarks of a displaced crop say; 0 where they stay, 1 where they move along.

    Args:
        share: of the whole displacement that the landmarks followed.
        shift: of the crop's shift.
        scale: of the crop's growth.
    """

    share: float
    shift: float
    scale: float

    @property
    def value(self) -> float:
        """In [0, 1]: 0.06 for the mean face of a net that sees nothing, which moves along."""
        return float(np.exp(-((self.share / _DOUBT) ** 2)))


# Of a face that was not looked at twice yet.
UNCHECKED = Agreement(0.0, 0.0, 0.0)


def displaced(square: Square) -> Square:
    """The second crop's square."""
    centre, side = square
    return centre + _SHIFT * side, side * _GROWTH


def agreement_of(first: np.ndarray, second: np.ndarray, square: Square) -> Agreement:
    """How two readings of a face agree, the second through a :func:`displaced` crop.

    Args:
        first: (68, 2) frame pixels.
        second: (68, 2) frame pixels.
        square: that the first was read from.
    """
    centre, side = square
    other, _ = displaced(square)
    along = (first - centre) * _GROWTH + other  # where the points go if they follow the crop
    whole = float(np.linalg.norm(along - first, axis=1).mean())
    moved = float(np.linalg.norm(second - first, axis=1).mean())
    middles = [points.mean(axis=0) for points in (first, along, second)]
    way, gone = middles[1] - middles[0], middles[2] - middles[0]
    spreads = [float(np.linalg.norm(p - p.mean(axis=0))) for p in (first, second)]
    return Agreement(
        share=moved / whole,
        shift=float(gone @ way / max(float(way @ way), 1e-12 * side * side)),
        scale=float(np.log(max(spreads[1], 1e-9) / max(spreads[0], 1e-9)) / np.log(_GROWTH)),
    )


def resemblance(landmarks: np.ndarray, marks: np.ndarray) -> float:
    """How well landmarks meet the points that a detector marked, in [0, 1].

    1/e where they are a quarter of the eyes' distance away on average. A net that sees nothing, as
    in a face that lies on its side, puts its mean face there: 0.1 to 0.4.

    Args:
        landmarks: (68, 2) frame pixels.
        marks: (5, 2) frame pixels, see :class:`mlx_faceau.video.detectors.Detection`.
    """
    own = np.stack([landmarks[list(group)].mean(axis=0) for group in FIVE_POINTS])
    spread = float(np.sqrt(np.square(marks - marks.mean(axis=0)).sum(axis=1).mean()))
    apart = float(np.linalg.norm(own - marks, axis=1).mean())
    return float(np.exp(-((apart / max(_APART * spread, 1e-9)) ** 2)))


def confidence_of(
    agreement: float, score: float, landmarks: np.ndarray, size: tuple[int, int]
) -> float:
    """Confidence in [0, 1].

    Args:
        agreement: of two crops, in [0, 1].
        score: the detector's when it last looked, in [0, 1], times :func:`resemblance` where it
            marks points; 0 where it saw nothing.
        landmarks: (68, 2) frame pixels.
        size: height and width of the frame.
    """
    inside = np.all((landmarks >= -0.5) & (landmarks <= np.array(size[::-1]) - 0.5), axis=1)
    return float((1 - (1 - agreement) * (1 - score)) * inside.mean())
