"""Class balance: rare action units weigh more in the loss, or are sampled more often.

Reference:
    Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019 (repeat
    factors).
"""

import math
from pathlib import Path

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.errors import UsageError

from .option_fields import read_object

PRESENT = 1.0  # an intensity above it is an active action unit, as in the metrics' support
_RAREST = 0.01  # smaller shares count as this one, so that a handful of faces does not dominate


def loss_weights(intensities: np.ndarray) -> dict[str, float]:
    """Loss weights that fall with the square root of the share of faces showing an action unit.

    By action unit, with mean 1; the largest is at most ten times the smallest.
    """
    weights = 1 / np.sqrt(_shares(intensities))
    return dict(zip(AU_NAMES, (weights / weights.mean()).tolist(), strict=True))


def repeat_factors(intensities: np.ndarray) -> np.ndarray:
    """How often each face is sampled, relative to one that shows nothing rare.

    An action unit's factor is the square root of the median unit's share of faces over its own, at
    least 1; a face takes the largest factor of the action units that it shows: (N,), in [1, 10].
    """
    shares = _shares(intensities)
    factors = np.sqrt(np.maximum(np.median(shares) / shares, 1.0))
    shown = np.where(intensities > PRESENT, factors, 1.0)
    return np.asarray(shown.max(axis=1), np.float64)


def _shares(intensities: np.ndarray) -> np.ndarray:
    """(17,) shares of the faces that show an action unit."""
    return np.asarray(np.maximum((intensities > PRESENT).mean(axis=0), _RAREST))


def read_weights(path: Path | str) -> dict[str, float]:
    """Weights from a JSON object of names and numbers; action units it leaves out weigh 1."""
    given = read_object(path, {"AU09_r": 2})
    if unknown := sorted(set(given) - set(AU_NAMES)):
        raise UsageError(
            f"{path}: unknown action unit {', '.join(unknown)}; known: {', '.join(AU_NAMES)}"
        )
    for name, weight in given.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise UsageError(f"{path}: the weight of {name} is {weight!r}, expected a number >= 0")
    return {name: float(given.get(name, 1.0)) for name in AU_NAMES}
