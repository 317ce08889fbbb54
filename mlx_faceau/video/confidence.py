"""How far a fit can be trusted: a signal that falls with the error, and a calibrated curve.

Where the detector marks points, the signal is how near the landmarks are to them. Elsewhere it is
how little the landmarks follow a displaced crop; a detector's box near them is evidence as well. A
checkpoint may carry curves from either signal to the share of fits that are good, measured on
labelled faces (``benchmarks/confidence_calibration.py``); without one the signal itself is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.core.landmarks import FIVE_POINTS
from mlx_faceau.errors import CheckpointError, UsageError

from .fitting import Agreement, Square

GOOD_NME = 0.08  # error over the outer eye corners' distance up to which a fit is good (300-W)
METADATA_KEY = "confidence"  # in a checkpoint and what is exported from it
_AGREEMENT_WIDTH = 0.6  # share of the displacement at which the signal is 1/e
_MARKS_WIDTH = 0.4  # distance from a detector's marks, in their spread, at which it is 1/e
_BOX_WIDTH = 0.5  # distance of a detector's square at which it counts 1/e


def agreement_signal(agreement: Agreement) -> float:
    """In [0, 1]: 1 where the landmarks do not move, 0.06 where they move with the crop."""
    return float(np.exp(-((agreement.share / _AGREEMENT_WIDTH) ** 2)))


def marks_signal(landmarks: np.ndarray, marks: np.ndarray) -> float:
    """How near (68, 2) landmarks are to the (5, 2) points that a detector marked, in [0, 1].

    1/e where they are a quarter of the eyes' distance away on average.
    """
    own = np.stack([landmarks[list(group)].mean(axis=0) for group in FIVE_POINTS])
    spread = float(np.sqrt(np.square(marks - marks.mean(axis=0)).sum(axis=1).mean()))
    distance = float(np.linalg.norm(own - marks, axis=1).mean())
    return float(np.exp(-((distance / max(_MARKS_WIDTH * spread, 1e-9)) ** 2)))


def box_signal(own: Square, detected: Square) -> float:
    """How near the landmarks' square is to a detector's, in [0, 1]."""
    return float(np.exp(-((own.distance(detected) / _BOX_WIDTH) ** 2)))


def share_inside(landmarks: np.ndarray, size: tuple[int, int]) -> float:
    """Share of (68, 2) landmarks inside a frame of a height and width."""
    inside = (landmarks >= -0.5) & (landmarks <= np.array(size[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


@dataclass(frozen=True)
class Curve:
    """A monotone map from a signal to a confidence: linear between its points, constant outside."""

    signal: tuple[float, ...] = (0.0, 1.0)  # ascending
    confidence: tuple[float, ...] = (0.0, 1.0)  # not descending, in [0, 1]

    def __call__(self, signal: float) -> float:
        return float(np.interp(signal, self.signal, self.confidence))


@dataclass(frozen=True)
class ConfidenceCurves:
    """The curves of one landmark net; the default takes each signal as it is."""

    marks: Curve = Curve()
    agreement: Curve = Curve()

    def to_json(self) -> dict[str, Any]:
        """The value under ``METADATA_KEY`` of a checkpoint's metadata."""
        rounded = {
            name: {key: np.round(values, 4).tolist() for key, values in vars(curve).items()}
            for name, curve in vars(self).items()
        }
        return {"good_nme": GOOD_NME, **rounded}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any] | None, source: str) -> "ConfidenceCurves":
        """The curves in a file's metadata, or the default; CheckpointError if malformed."""
        recorded = (metadata or {}).get(METADATA_KEY)
        if recorded is None:
            return cls()
        curves = {}
        try:
            for name in ("marks", "agreement"):
                points = recorded[name]
                both = np.array([points["signal"], points["confidence"]], np.float64)
                monotone = both.size > 0 and np.isfinite(both).all() and (np.diff(both) >= 0).all()
                if not (monotone and both[1, 0] >= 0 and both[1, -1] <= 1):
                    raise UsageError(name)
                curves[name] = Curve(*(tuple(values) for values in both.tolist()))
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{source}: malformed {METADATA_KEY!r} curves") from None
        return cls(**curves)
