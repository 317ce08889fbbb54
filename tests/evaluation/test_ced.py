"""The distribution of errors, by hand and against numerical integration."""

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.evaluation.evaluate import error_distribution, failure_rates

ERRORS = np.array([0.02, 0.04, 0.08, 0.12])


def test_the_curve_counts_faces_at_or_under_each_bound() -> None:
    shares = error_distribution(ERRORS, np.array([0.0, 0.02, 0.05, 0.2]))
    np.testing.assert_array_equal(shares, [0, 0.25, 0.5, 1])


def test_failures_are_over_the_bound_not_at_it() -> None:
    assert failure_rates(ERRORS)["failure_rate_8"] == 0.25


def test_the_area_of_four_errors_by_hand() -> None:
    # (0.06 + 0.04 + 0 + 0) / 0.08 / 4
    assert failure_rates(ERRORS)["auc_8"] == pytest.approx(0.3125)


def test_the_area_is_the_integral_of_the_curve() -> None:
    errors = np.random.default_rng(0).gamma(4, 0.015, 300)
    steps = (np.arange(20000) + 0.5) / 20000 * 0.1
    integral = error_distribution(errors, steps).mean()
    assert failure_rates(errors)["auc_10"] == pytest.approx(integral, abs=1e-4)


def test_the_summary_names_both_bounds() -> None:
    assert failure_rates(ERRORS) == pytest.approx(
        {"failure_rate_8": 0.25, "auc_8": 0.3125, "failure_rate_10": 0.25, "auc_10": 0.4}
    )
