"""The distribution of landmark errors over faces: CED curve, failure rate, area under the curve."""

import numpy as np

# Failures of the 300-W and of the WFLW benchmark: NME over the inter-ocular distance.
BOUNDS = (0.08, 0.10)
CURVE_END = 0.20


def ced(errors: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Cumulative error distribution: share of (N,) errors that are at most each bound (K,)."""
    return np.searchsorted(np.sort(errors), bounds, side="right") / len(errors)


def failure_rate(errors: np.ndarray, bound: float) -> float:
    """Share of the (N,) faces whose NME exceeds the bound.

    Reference:
        Sagonas et al., 300 Faces In-The-Wild Challenge, IVC 2016 (inter-ocular, 0.08).
        Wu et al., Look at Boundary, CVPR 2018 (WFLW: inter-ocular, 0.10).
    """
    return float((np.asarray(errors) > bound).mean())


def area_under_ced(errors: np.ndarray, bound: float) -> float:
    """Area under the CED curve of (N,) errors up to the bound, over the bound; 1 is perfect.

    Exact: a face with error e adds max(0, 1 - e / bound) / N.
    """
    return float(np.clip(1 - np.asarray(errors, np.float64) / bound, 0, None).mean())


def ced_summary(errors: np.ndarray) -> dict[str, float]:
    """``failure_rate_8``, ``auc_8``, ``failure_rate_10``, ``auc_10`` (percent of NME)."""
    figures = {}
    for bound in BOUNDS:
        percent = round(100 * bound)
        figures[f"failure_rate_{percent}"] = failure_rate(errors, bound)
        figures[f"auc_{percent}"] = area_under_ced(errors, bound)
    return figures
