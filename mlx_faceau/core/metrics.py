"""How good predictions are: landmarks, head pose, action units.

Everything is computed in float64; shapes other than those named, and fewer than two rows where
columns are correlated, raise ValueError. A correlation needs variation on both sides: per column
it is NaN where one side is constant; in the summaries a net whose output is constant scores 0, as
a predictor that never moves explains nothing.

References:
    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 1989.
    Shrout and Fleiss, Intraclass correlations, Psychological Bulletin 1979.
    Sagonas et al., 300 Faces in-the-Wild Challenge, ICCV Workshops 2013 (NME).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mlx_faceau.errors import UsageError

from .facs import AU_NAMES
from .landmarks import GROUPS, OUTER_EYE_CORNERS

Arrays = Mapping[str, np.ndarray]

# An action unit counts in the mean correlation when at least this many faces exceed intensity 1.
MINIMUM_SUPPORT = 50
SUPPORT_THRESHOLD = 1.0
ANGLES = ("pitch", "yaw", "roll")
# A column is constant if its values lie within this: a net whose output is dead
# still differs by float32's rounding from one batch to the next.
_CONSTANT = 1e-6  # of an intensity, a pixel, a radian
_CONSTANT_VARIANCE = (_CONSTANT / 2) ** 2  # the largest of values that do
_ROUNDING = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True)
class Moments:
    """Population moments (divide by N) of columns of labels and predictions, (..., K) each."""

    shift: np.ndarray  # mean prediction minus mean label
    truth_variance: np.ndarray
    prediction_variance: np.ndarray
    covariance: np.ndarray
    truth_moves: np.ndarray  # bool, whether the column is not constant
    prediction_moves: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray) -> Self:
        """Moments of the columns of two (N, K) arrays, N >= 2."""
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

        Of (N, K) arrays (5, N, K) float64: label, prediction, their squares and their product, all
        less the mean label.
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
        """(..., K) Lin's concordance (1989) in [-1, 1]; NaN where both columns are constant."""
        spread = self.truth_variance + self.prediction_variance + self.shift**2
        return _ratio(2 * self.covariance, spread, self.truth_moves | self.prediction_moves)

    def icc31(self) -> np.ndarray:
        """(..., K) ICC(3,1), the consistency of two fixed raters (Shrout and Fleiss 1979).

        In [-1, 1]; NaN where both columns are constant.
        """
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


def pearson(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pearson's r of each column of two (N, K) arrays, (K,); NaN where either is constant."""
    return Moments.of(truth, prediction).pearson()


def mean_absolute_error(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Mean absolute error of each column: (N, K) and (N, K) in, (K,) float64 out."""
    if np.shape(truth) != np.shape(prediction):
        raise UsageError(f"shapes {np.shape(truth)} and {np.shape(prediction)} differ")
    gap = np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)
    return np.asarray(np.abs(gap).mean(0))


def landmark_correlation(
    truth: np.ndarray, prediction: np.ndarray, mean_face: np.ndarray | None = None
) -> float:
    """Pearson's r over all coordinates of (N, P, 2) landmarks at once; 0 where one is constant.

    Without a mean face this is dominated by where landmarks sit on any face: the mean face alone
    reaches 0.97. With one, (P, 2) of the training faces, it measures what differs between faces.
    """
    offset = 0.0 if mean_face is None else np.asarray(mean_face, np.float64)
    flat = [(np.asarray(side, np.float64) - offset).reshape(-1, 1) for side in (truth, prediction)]
    return float(np.nan_to_num(pearson(*flat)[0]))


def nme(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Normalised mean error of each face, (N,), of landmarks (N, 68, 2).

    The mean point distance over that of the outer eye corners (Sagonas et al. 2013).
    """
    return np.asarray(_point_errors(truth, prediction).mean(1) / _interocular(truth))


def landmark_group_errors(truth: np.ndarray, prediction: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each part of the face ``mae`` (mean absolute coordinate error, px) and :func:`nme`."""
    coordinates = np.abs(np.asarray(prediction, np.float64) - np.asarray(truth, np.float64))
    relative = _point_errors(truth, prediction) / _interocular(truth)[:, None]
    return {
        name: {
            "mae": float(coordinates[:, points].mean()),
            "nme": float(relative[:, points].mean()),
        }
        for name, points in GROUPS.items()
    }


def angle_errors(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Absolute errors (N, 3) in degrees of pitch, yaw and roll, of global parameters (N, 6)."""
    turn = np.asarray(prediction, np.float64)[:, 1:4] - np.asarray(truth, np.float64)[:, 1:4]
    return np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))


def pose_errors(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Mean of :func:`angle_errors`: ``pitch``, ``yaw``, ``roll`` and their mean, in degrees."""
    errors = angle_errors(truth, prediction).mean(0)
    named = {name: float(error) for name, error in zip(ANGLES, errors, strict=True)}
    return {**named, "mean": float(errors.mean())}


def au_support(truth: np.ndarray) -> np.ndarray:
    """Number of faces whose intensity exceeds 1, of each action unit: (N, 17) in, (17,) out."""
    return np.asarray((np.asarray(truth) > SUPPORT_THRESHOLD).sum(0))


def counted_aus(truth: np.ndarray) -> np.ndarray:
    """Which action units the mean correlation counts: (N, 17) intensities in, (17,) bool out."""
    return np.asarray((au_support(truth) >= MINIMUM_SUPPORT) & moves(truth))


def mean_au_correlation(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean of the per-AU Pearson r over the action units with at least 50 faces above 1.

    Both sides are intensities (N, 17) in [0, 5]. A constant prediction counts as 0, an action unit
    of constant labels not at all; the result is NaN where none is left.
    """
    counted = counted_aus(truth)
    if not counted.any():
        return float("nan")
    return float(np.nan_to_num(pearson(truth, prediction)[counted]).mean())


def constant_aus(prediction: np.ndarray) -> list[str]:
    """Names of the action units whose prediction never changes, and has no r: (N, 17) in.

    A ReLU output that died predicts 0 for every face and receives no gradient any more.
    """
    return [name for name, varies in zip(AU_NAMES, moves(prediction), strict=True) if not varies]


def landmark_pose_metrics(truth: Arrays, prediction: Arrays, means: Arrays) -> dict[str, Any]:
    """All figures of a landmark and pose net, from its outputs and their training means.

    ``correlation``, ``correlation_without_mean``, ``mae`` (px), ``nme``, ``pose`` (degrees by
    angle), ``groups``, ``global_correlation`` and ``local_correlation`` (by parameter),
    ``local_mae``; plain numbers, ready for JSON. Where the truth's ``global_mask`` (N,) is 0 the
    pose is unknown; ``pose`` and ``global_correlation`` are empty if it is for all faces.
    """
    landmarks = truth["landmarks"], prediction["landmarks"]
    known = np.asarray(truth.get("global_mask", np.ones(len(landmarks[0])))) > 0
    global_params = truth["global_params"][known], prediction["global_params"][known]
    local_params = truth["local_params"], prediction["local_params"]
    gap = np.asarray(landmarks[1], np.float64) - np.asarray(landmarks[0], np.float64)
    return {
        "correlation": landmark_correlation(*landmarks),
        "correlation_without_mean": landmark_correlation(*landmarks, means["landmarks"]),
        "mae": float(np.abs(gap).mean()),
        "nme": float(nme(*landmarks).mean()),
        "pose": pose_errors(*global_params) if known.any() else {},
        "groups": landmark_group_errors(*landmarks),
        "global_correlation": pearson(*global_params).tolist() if known.sum() > 1 else [],
        "local_correlation": pearson(*local_params).tolist(),
        "local_mae": float(mean_absolute_error(*local_params).mean()),
    }


def au_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """All figures of an action unit net, of intensities (N, 17) in [0, 5].

    ``correlation`` (mean over AUs with support), ``mae``, ``constant`` (names) and ``aus``: by
    name ``r``, ``ccc``, ``icc31``, ``mae``, ``support``; plain numbers, ready for JSON.
    """
    moments = Moments.of(truth, prediction)
    statistics = {
        "r": moments.pearson(),
        "ccc": moments.ccc(),
        "icc31": moments.icc31(),
        "mae": mean_absolute_error(truth, prediction),
        "support": au_support(truth),
    }
    return {
        "correlation": mean_au_correlation(truth, prediction),
        "mae": float(statistics["mae"].mean()),
        "constant": constant_aus(prediction),
        "aus": {
            name: {key: values[index].item() for key, values in statistics.items()}
            for index, name in enumerate(AU_NAMES)
        },
    }


def _point_errors(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if truth.shape != prediction.shape or truth.shape[1:] != (68, 2):
        raise UsageError(
            f"truth has shape {truth.shape} and prediction {prediction.shape}, expected "
            "(N, 68, 2) twice"
        )
    return np.asarray(np.linalg.norm(prediction - truth, axis=-1))


def _interocular(landmarks: np.ndarray) -> np.ndarray:
    right, left = (np.asarray(landmarks, np.float64)[:, corner] for corner in OUTER_EYE_CORNERS)
    return np.asarray(np.linalg.norm(left - right, axis=-1))
