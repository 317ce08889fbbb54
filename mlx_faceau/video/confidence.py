"""How far a fit can be trusted: a signal that falls with the error, and a calibrated curve.

Where the detector marks points, the signal is how near the landmarks are to them. Elsewhere it is
how little the landmarks follow a displaced crop; a detector's box near them may vouch as well. A
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
_BOX_WIDTH = 0.5  # distance of a detector's square at which its word counts 1/e
_BINS = 40  # of equal size, before the curve is made monotone


def agreement_signal(agreement: Agreement) -> float:
    """In [0, 1]: 1 where landmarks stay, 0.06 for the mean face of a net that sees nothing."""
    return float(np.exp(-((agreement.share / _AGREEMENT_WIDTH) ** 2)))


def marks_signal(landmarks: np.ndarray, marks: np.ndarray) -> float:
    """How near landmarks are to the points that a detector marked, in [0, 1].

    1/e where they are a quarter of the eyes' distance away on average.

    Args:
        landmarks: (68, 2) frame pixels.
        marks: (5, 2) frame pixels, see :class:`mlx_faceau.video.detectors.Detection`.
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
    """A monotone map from a signal to a confidence: linear between its points, constant outside.

    Args:
        signal: (K,) ascending.
        confidence: (K,) not descending, in [0, 1].
    """

    signal: tuple[float, ...] = (0.0, 1.0)
    confidence: tuple[float, ...] = (0.0, 1.0)

    def __call__(self, signal: float) -> float:
        return float(np.interp(signal, self.signal, self.confidence))

    @classmethod
    def fit(cls, signal: np.ndarray, good: np.ndarray) -> "Curve":
        """Isotonic regression of bins of equal size (pool adjacent violators).

        Args:
            signal: (N,) of labelled fits.
            good: (N,) whether their error is at most ``GOOD_NME``.

        Raises:
            ValueError: if there are no fits, or the shapes differ.

        Reference:
            Zadrozny, Elkan, Transforming classifier scores into accurate multiclass probability
            estimates, KDD 2002. Ayer et al., Ann. Math. Stat. 26, 1955.
        """
        if signal.shape != good.shape or signal.ndim != 1 or len(signal) == 0:
            raise UsageError(f"signal {signal.shape} and good {good.shape}: expected (N,), N > 0")
        order = np.argsort(signal, kind="stable")
        blocks: list[tuple[float, float, int]] = []  # mean signal, mean outcome, weight
        for part in np.array_split(order, min(_BINS, len(order))):
            block = (float(signal[part].mean()), float(good[part].mean()), len(part))
            while blocks and (blocks[-1][1] >= block[1] or blocks[-1][0] >= block[0]):
                block = _pooled(blocks.pop(), block)
            blocks.append(block)
        return cls(tuple(b[0] for b in blocks), tuple(b[1] for b in blocks))


def _pooled(one: tuple[float, float, int], other: tuple[float, float, int]) -> Any:
    weights = (one[2], other[2])
    means = [float(np.average(pair, weights=weights)) for pair in zip(one, other, strict=True)]
    return means[0], means[1], sum(weights)


@dataclass(frozen=True)
class ConfidenceCurves:
    """The curves of one landmark net; the default takes each signal as it is."""

    marks: Curve = Curve()
    agreement: Curve = Curve()

    def to_json(self) -> dict[str, Any]:
        """The value under ``METADATA_KEY`` of a checkpoint's metadata."""
        curves = {"marks": self.marks, "agreement": self.agreement}
        plain = {
            name: {
                "signal": np.round(curve.signal, 4).tolist(),
                "confidence": np.round(curve.confidence, 4).tolist(),
            }
            for name, curve in curves.items()
        }
        return {"good_nme": GOOD_NME, **plain}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any] | None, source: str) -> "ConfidenceCurves":
        """The curves in a file's metadata, or the default.

        Raises:
            CheckpointError: if they are malformed.
        """
        recorded = (metadata or {}).get(METADATA_KEY)
        if recorded is None:
            return cls()
        try:
            curves = {}
            for name in ("marks", "agreement"):
                signal, confidence = (
                    np.array(recorded[name][key], np.float64) for key in ("signal", "confidence")
                )
                if signal.shape != confidence.shape or signal.ndim != 1 or not len(signal):
                    raise UsageError(name)
                if (np.diff(signal) < 0).any() or (np.diff(confidence) < 0).any():
                    raise UsageError(name)
                if not (np.isfinite(signal).all() and 0 <= confidence[0] <= confidence[-1] <= 1):
                    raise UsageError(name)
                curves[name] = Curve(tuple(signal.tolist()), tuple(confidence.tolist()))
            return cls(**curves)
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{source}: malformed {METADATA_KEY!r} curves") from None


def reliability(confidence: np.ndarray, good: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean confidence and measured share of good fits in bins of equal width.

    Args:
        confidence: (N,) in [0, 1].
        good: (N,) whether the fits are good.
        bins: how many; empty ones are left out.

    Returns:
        One row a bin: ``low``, ``high``, ``fits``, ``confidence``, ``good``.
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "fits": int((which == i).sum()),
            "confidence": float(confidence[which == i].mean()),
            "good": float(good[which == i].mean()),
        }
        for i in np.unique(which)
    ]
