"""Moments of paired columns, and the agreement statistics that they determine."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from mlx_faceau.errors import UsageError

# A column is constant if its values lie within this: a net whose output is dead
# still differs by float32's rounding from one batch to the next.
_CONSTANT = 1e-6  # of an intensity, a pixel, a radian
_CONSTANT_VARIANCE = (_CONSTANT / 2) ** 2  # the largest of values that do
_ROUNDING = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True)
class Moments:
    """Population moments (divide by N) of columns of labels and predictions.

    Attributes:
        shift: (..., K) mean prediction minus mean label.
        truth_variance, prediction_variance, covariance: (..., K).
        truth_moves, prediction_moves: (..., K) bool, whether the column is not constant.
    """

    shift: np.ndarray
    truth_variance: np.ndarray
    prediction_variance: np.ndarray
    covariance: np.ndarray
    truth_moves: np.ndarray
    prediction_moves: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray) -> Self:
        """Moments of the columns of two arrays.

        Args:
            truth: (N, K), N >= 2.
            prediction: (N, K).

        Raises:
            ValueError: for other shapes.
        """
        truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
        if truth.shape != prediction.shape or truth.ndim != 2 or len(truth) < 2:
            raise UsageError(
                f"truth has shape {truth.shape} and prediction {prediction.shape}, expected "
                "(N, K) twice with N >= 2"
            )
        centred = truth - truth.mean(0), prediction - prediction.mean(0)
        return cls(
            shift=prediction.mean(0) - truth.mean(0),
            truth_variance=(centred[0] ** 2).mean(0),
            prediction_variance=(centred[1] ** 2).mean(0),
            covariance=(centred[0] * centred[1]).mean(0),
            truth_moves=moves(truth),
            prediction_moves=moves(prediction),
        )

    @staticmethod
    def products(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """The values whose means :meth:`of_means` takes, near zero so that nothing cancels.

        Args:
            truth: (N, K).
            prediction: (N, K).

        Returns:
            (5, N, K) float64: label, prediction, their squares and their product, all less the
            mean label.
        """
        origin = np.mean(truth, axis=0, dtype=np.float64)
        truth, prediction = truth - origin, prediction - origin
        return np.stack([truth, prediction, truth**2, prediction**2, truth * prediction])

    @classmethod
    def of_means(cls, means: np.ndarray) -> Self:
        """Moments from means over some faces of what :meth:`products` gave: (5, ..., K)."""
        truth, prediction, truth_square, prediction_square, product = means
        variances = truth_square - truth**2, prediction_square - prediction**2
        return cls(
            shift=prediction - truth,
            truth_variance=np.maximum(variances[0], 0),
            prediction_variance=np.maximum(variances[1], 0),
            covariance=product - truth * prediction,
            truth_moves=_varies(variances[0], truth_square),
            prediction_moves=_varies(variances[1], prediction_square),
        )

    def pearson(self) -> np.ndarray:
        """(..., K) Pearson's r; NaN where either column is constant."""
        spread = np.sqrt(self.truth_variance * self.prediction_variance)
        return _ratio(self.covariance, spread, self.truth_moves & self.prediction_moves)

    def ccc(self) -> np.ndarray:
        """(..., K) Lin's concordance; NaN where both columns are constant."""
        spread = self.truth_variance + self.prediction_variance + self.shift**2
        return _ratio(2 * self.covariance, spread, self.truth_moves | self.prediction_moves)

    def icc31(self) -> np.ndarray:
        """(..., K) ICC(3,1) of two raters; NaN where both columns are constant."""
        # With two raters (between - residual) / (between + residual) reduces to these sums.
        spread = self.truth_variance + self.prediction_variance
        return _ratio(2 * self.covariance, spread, self.truth_moves | self.prediction_moves)


def moves(values: np.ndarray) -> np.ndarray:
    """Whether a column is not constant, its values within 1e-6: (N, K) in, (K,) bool out."""
    return np.asarray(np.ptp(values, axis=0) > _CONSTANT)


def _varies(variance: np.ndarray, mean_square: np.ndarray) -> np.ndarray:
    return np.asarray(variance > np.maximum(_ROUNDING * mean_square, _CONSTANT_VARIANCE))


def _ratio(above: np.ndarray, below: np.ndarray, defined: np.ndarray) -> np.ndarray:
    quotient = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=quotient, where=defined & (below > 0))
    return quotient
