"""How far a face can be trusted: two crops that agree, the detector's score, points in the picture.

Neither sign is enough alone: a detector is asked every now and then only, and a net that was
trained on well-centred crops follows any crop a little. So either may vouch for a face, and both
must fail before it is doubted.
"""

import numpy as np

# Displacement of the second crop, in sides of the square: right and up.
CHECK_SHIFT = np.array([0.08, -0.06])
_DOUBT = 0.6  # share of the displacement that the landmarks follow at which agreement is 1/e


def agreement_of(first: np.ndarray, second: np.ndarray, side: float) -> float:
    """How well two readings of a face agree when the second crop was displaced, in [0, 1].

    1 when the landmarks stay where they were; 0.06 when they move along with the crop, as the
    mean face of a net does that sees nothing.

    Args:
        first: (68, 2) frame pixels.
        second: (68, 2) frame pixels, through a crop displaced by :data:`CHECK_SHIFT` sides.
        side: of the square, in frame pixels.
    """
    moved = float(np.linalg.norm(second - first, axis=1).mean())
    share = moved / (side * float(np.linalg.norm(CHECK_SHIFT)))
    return float(np.exp(-((share / _DOUBT) ** 2)))


def confidence_of(
    agreement: float, score: float, landmarks: np.ndarray, size: tuple[int, int]
) -> float:
    """Confidence in [0, 1].

    Args:
        agreement: of two crops, in [0, 1].
        score: the detector's when it last looked, in [0, 1]; 0 where it saw nothing.
        landmarks: (68, 2) frame pixels.
        size: height and width of the frame.
    """
    inside = np.all((landmarks >= -0.5) & (landmarks <= np.array(size[::-1]) - 0.5), axis=1)
    return float((1 - (1 - agreement) * (1 - score)) * inside.mean())
