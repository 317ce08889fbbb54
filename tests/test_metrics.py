"""Accuracy figures against hand arithmetic and textbook formulas."""

import numpy as np
import pytest

from mlx_faceau.core import metrics
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import Moments


def ccc(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return Moments.of(truth, prediction).ccc()


def icc31(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return Moments.of(truth, prediction).icc31()


@pytest.fixture
def raters() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 3))
    return truth, 0.6 * truth + 0.3 + 0.4 * rng.normal(size=(40, 3))


def test_pearson_equals_numpy(raters: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = raters
    expected = [np.corrcoef(truth[:, k], prediction[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(metrics.pearson(truth, prediction), expected, rtol=1e-12)


def test_ccc_of_four_numbers_by_hand() -> None:
    truth, prediction = np.array([[1.0], [2], [3], [4]]), np.array([[2.0], [2], [4], [4]])
    # means 2.5 and 3; variances 1.25 and 1; covariance 1: 2 / (1.25 + 1 + 0.25)
    assert ccc(truth, prediction)[0] == pytest.approx(0.8)


def test_ccc_is_pearson_times_lins_bias_correction(raters: tuple[np.ndarray, np.ndarray]) -> None:
    for k, value in enumerate(ccc(*raters)):
        x, y = (rater[:, k] for rater in raters)
        ratio, shift = y.std() / x.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
        correction = 2 / (ratio + 1 / ratio + shift**2)
        assert value == pytest.approx(np.corrcoef(x, y)[0, 1] * correction)


def test_a_constant_bias_lowers_ccc_and_leaves_icc31(
    raters: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, prediction = raters
    np.testing.assert_allclose(icc31(truth, prediction + 2), icc31(truth, prediction))
    assert (ccc(truth, prediction + 2) < ccc(truth, prediction)).all()


def test_icc31_equals_its_analysis_of_variance(raters: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = raters
    for k, value in enumerate(icc31(truth, prediction)):
        table = np.stack([truth[:, k], prediction[:, k]], axis=1)
        n, raters_count = table.shape
        rows, columns, grand = table.mean(1), table.mean(0), table.mean()
        between = raters_count * ((rows - grand) ** 2).sum() / (n - 1)
        residual = table - rows[:, None] - columns[None] + grand
        error = (residual**2).sum() / ((n - 1) * (raters_count - 1))
        assert value == pytest.approx((between - error) / (between + error))


def test_a_perfect_prediction_scores_one_everywhere(
    raters: tuple[np.ndarray, np.ndarray],
) -> None:
    for statistic in (metrics.pearson, ccc, icc31):
        np.testing.assert_allclose(statistic(raters[0], raters[0]), 1.0)


def test_a_constant_prediction_has_no_correlation_but_a_concordance_of_zero() -> None:
    truth = np.array([[1.0], [2], [3]])
    constant = np.full((3, 1), 2.0)
    assert np.isnan(metrics.pearson(truth, constant)[0])
    assert ccc(truth, constant)[0] == 0.0


def test_columns_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(4, 2\)"):
        metrics.pearson(np.zeros((3, 2)), np.zeros((4, 2)))


def test_the_mean_face_alone_correlates_with_any_face_until_it_is_removed() -> None:
    rng = np.random.default_rng(1)
    mean_face = rng.uniform(0, 112, (68, 2))
    truth = mean_face + rng.normal(0, 3, (20, 68, 2))
    constant = np.broadcast_to(mean_face, truth.shape)
    assert metrics.landmark_correlation(truth, constant) > 0.99
    assert metrics.landmark_correlation(truth, constant, mean_face) == 0.0


def test_removing_the_mean_face_is_pearson_of_the_differences() -> None:
    rng = np.random.default_rng(2)
    mean_face = rng.uniform(0, 112, (68, 2))
    truth = mean_face + rng.normal(0, 3, (5, 68, 2))
    prediction = truth + rng.normal(0, 2, truth.shape)
    expected = np.corrcoef((truth - mean_face).ravel(), (prediction - mean_face).ravel())[0, 1]
    value = metrics.landmark_correlation(truth, prediction, mean_face)
    assert value == pytest.approx(expected)


def test_nme_of_a_shifted_face_is_the_shift_over_the_eye_distance() -> None:
    truth = np.zeros((1, 68, 2))
    truth[0, 45] = (50.0, 0.0)  # outer corner of the other eye, 50 px away
    assert metrics.nme(truth, truth + np.array([3.0, 4.0])) == pytest.approx([0.1])


def test_an_error_in_one_group_shows_in_that_group_alone() -> None:
    truth = np.zeros((2, 68, 2))
    truth[:, 45] = (40.0, 0.0)
    prediction = truth.copy()
    prediction[:, :17, 0] += 4.0  # jaw, one of two coordinates
    errors = metrics.landmark_group_errors(truth, prediction)
    assert errors["jaw"] == {"mae": pytest.approx(2.0), "nme": pytest.approx(0.1)}
    assert errors["nose"] == {"mae": 0.0, "nme": 0.0}


def test_pose_errors_are_degrees_and_turn_the_short_way() -> None:
    truth, prediction = np.zeros((1, 6)), np.zeros((1, 6))
    prediction[0, 1:4] = np.radians([2.0, -4.0, 0.0])
    truth[0, 3] = np.radians(359.0)
    errors = metrics.pose_errors(truth, prediction)
    assert errors == {
        "pitch": pytest.approx(2.0),
        "yaw": pytest.approx(4.0),
        "roll": pytest.approx(1.0),
        "mean": pytest.approx(7.0 / 3),
    }


def test_the_mean_au_correlation_leaves_out_rare_aus_and_counts_dead_outputs_as_zero() -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros((100, 17))
    truth[:60, 0] = rng.uniform(1.1, 5, 60)  # supported, predicted perfectly
    truth[:60, 1] = rng.uniform(1.1, 5, 60)  # supported, predicted by a dead output
    truth[:49, 2] = rng.uniform(1.1, 5, 49)  # one face short of counting
    prediction = np.zeros((100, 17))
    prediction[:, 0] = truth[:, 0]
    assert metrics.mean_au_correlation(truth, prediction) == pytest.approx(0.5)
    assert metrics.constant_aus(prediction) == list(AU_NAMES[1:])


def test_an_output_that_wavers_by_rounding_alone_is_constant_in_every_figure() -> None:
    rng = np.random.default_rng(6)
    truth = rng.uniform(0, 5, (200, 17))
    prediction = truth.copy()
    prediction[:, 0] = 2.0 + 1e-7 * truth[:, 0]  # in step with the labels, over 5e-7
    prediction[:, 1] = 2.0 + 1e-6 * truth[:, 1]  # over 5e-6
    table = metrics.au_metrics(truth, prediction)
    assert table["constant"] == ["AU01_r"]
    assert np.isnan(table["aus"]["AU01_r"]["r"])
    assert table["aus"]["AU02_r"]["r"] == pytest.approx(1.0)
    assert table["correlation"] == pytest.approx(16 / 17)


def test_a_unit_of_constant_labels_does_not_count_in_the_mean_correlation() -> None:
    truth = np.random.default_rng(3).uniform(0, 5, (100, 17))
    truth[:, 2] = 3.0
    assert metrics.mean_au_correlation(truth, truth) == pytest.approx(1.0)


def test_without_a_supported_au_there_is_no_mean_correlation() -> None:
    assert np.isnan(metrics.mean_au_correlation(np.zeros((5, 17)), np.zeros((5, 17))))


def test_faces_without_a_known_pose_do_not_count_in_the_pose_error() -> None:
    rng = np.random.default_rng(4)
    truth = {
        "landmarks": rng.uniform(0, 112, (4, 68, 2)),
        "global_params": np.zeros((4, 6)),
        "local_params": rng.normal(size=(4, 34)),
        "global_mask": np.array([1.0, 1, 0, 0]),
    }
    prediction = {**truth, "global_params": np.zeros((4, 6))}
    prediction["global_params"][2:, 1] = 1.0
    means = {"landmarks": np.zeros((68, 2))}
    assert metrics.landmark_pose_metrics(truth, prediction, means)["pose"]["pitch"] == 0.0
    truth["global_mask"] = np.zeros(4)
    assert metrics.landmark_pose_metrics(truth, prediction, means)["pose"] == {}


def test_the_au_table_holds_the_figures_of_each_au() -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(0, 5, (80, 17))
    prediction = truth + rng.normal(0, 1, truth.shape)
    table = metrics.au_metrics(truth, prediction)
    assert list(table["aus"]) == list(AU_NAMES)
    assert table["aus"]["AU12_r"]["support"] == (truth[:, 8] > 1).sum()
    assert table["aus"]["AU12_r"]["mae"] == pytest.approx(abs(prediction - truth)[:, 8].mean())
    assert table["mae"] == pytest.approx(abs(prediction - truth).mean())
