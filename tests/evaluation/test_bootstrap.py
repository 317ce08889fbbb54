"""Confidence intervals over subjects, against resampling written out as a loop."""

from functools import partial

import numpy as np
import pytest

from mlx_faceau.core.metrics import (
    Moments,
    au_metrics,
    au_support,
    landmark_correlation,
    mean_absolute_error,
    mean_au_correlation,
    nme,
    pearson,
    pose_errors,
)
from mlx_faceau.evaluation.bootstrap import (
    au_intervals,
    confidence_interval,
    landmark_pose_intervals,
    resampled_means,
)

RESAMPLES = 300  # instead of 2000, which a loop draws slowly
PEOPLE = np.repeat(["ann", "bob", "cyd", "dee", "eve", "fay"], [1, 2, 3, 4, 5, 6])


def ccc(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return Moments.of(truth, prediction).ccc()


def icc31(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return Moments.of(truth, prediction).icc31()


@pytest.fixture
def aus() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 5, (len(PEOPLE), 17))
    return truth, 0.7 * truth + 0.4 + rng.normal(0, 0.8, truth.shape)


@pytest.fixture
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = partial(resampled_means, resamples=RESAMPLES)
    monkeypatch.setattr("mlx_faceau.evaluation.bootstrap.resampled_means", fewer)


def drawn_rows(resamples: int, seed: int) -> list[np.ndarray]:
    """Rows of the faces of the people whom the same generator draws, person by person."""
    names = np.unique(PEOPLE)
    counts = np.random.default_rng(seed).multinomial(
        len(names), [1 / len(names)] * len(names), size=resamples
    )
    faces = [np.flatnonzero(name == PEOPLE) for name in names]
    return [
        np.concatenate([rows for rows, times in zip(faces, row, strict=True) for _ in range(times)])
        for row in counts.tolist()
    ]


def test_resampled_means_are_the_means_of_the_drawn_peoples_faces() -> None:
    values = np.random.default_rng(1).normal(size=(len(PEOPLE), 3))
    expected = [values[rows].mean(0) for rows in drawn_rows(50, 4)]
    np.testing.assert_allclose(resampled_means(values, PEOPLE, 50, 4), expected)


def test_moments_of_means_give_the_statistics_of_the_drawn_faces(
    aus: tuple[np.ndarray, np.ndarray],
) -> None:
    products = Moments.products(*aus)
    means = resampled_means(np.concatenate(products, axis=1), PEOPLE, 40, 5)
    moments = Moments.of_means(np.stack(np.split(means, 5, axis=1)))
    for values, statistic in (
        (moments.pearson(), pearson),
        (moments.ccc(), ccc),
        (moments.icc31(), icc31),
    ):
        expected = [statistic(aus[0][rows], aus[1][rows]) for rows in drawn_rows(40, 5)]
        np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_a_resample_in_which_a_column_is_constant_has_no_correlation() -> None:
    truth = np.full((4, 1), 0.1)
    truth[3] = 3.0  # the last person's face alone differs
    means = np.stack(Moments.products(truth, truth))[:, :3].mean(1)
    assert np.isnan(Moments.of_means(means).pearson()[0])


def test_an_output_that_wavers_by_rounding_alone_has_no_interval_of_its_correlation(
    aus: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, prediction = aus
    prediction[:, 0] = truth[:, 0].mean() + 1e-7 * truth[:, 0]
    prediction[:, 1] = truth[:, 1].mean() + 1e-5 * truth[:, 1]
    found = au_intervals(truth, prediction, PEOPLE)["aus"]
    assert np.isnan(found["AU01_r"]["r"]).all()
    np.testing.assert_allclose(found["AU02_r"]["r"], 1.0, atol=1e-5)


@pytest.mark.usefixtures("_fewer_resamples")
def test_au_intervals_are_percentiles_of_the_resampled_statistics(
    aus: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_faceau.evaluation.bootstrap.MINIMUM_SUPPORT", 3)
    monkeypatch.setattr("mlx_faceau.core.metrics.MINIMUM_SUPPORT", 0)
    found = au_intervals(*aus, PEOPLE)
    rows = drawn_rows(RESAMPLES, 11)
    for key, statistic in (("r", pearson), ("mae", mean_absolute_error)):
        samples = [statistic(aus[0][r], aus[1][r])[8] for r in rows]
        expected = np.nanpercentile(samples, [2.5, 97.5])
        np.testing.assert_allclose(found["aus"]["AU12_r"][key], expected, rtol=1e-9)
    means = [mean_au_correlation(aus[0][r], aus[1][r]) for r in rows]
    np.testing.assert_allclose(found["correlation"], np.nanpercentile(means, [2.5, 97.5]))
    whole = au_metrics(*aus)
    assert found["mae"][0] < whole["mae"] < found["mae"][1]


@pytest.mark.usefixtures("_fewer_resamples")
def test_a_unit_that_is_constant_in_a_resample_does_not_lower_its_mean_correlation(
    aus: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_faceau.evaluation.bootstrap.MINIMUM_SUPPORT", 3)
    truth, prediction = aus
    truth[PEOPLE != "fay", :9] = 0.0  # coded in one person
    counted = au_support(truth) >= 3
    assert 0 < counted[:9].sum() < counted.sum()
    pairs = truth[:, counted], prediction[:, counted]
    samples = [pearson(pairs[0][r], pairs[1][r]) for r in drawn_rows(RESAMPLES, 11)]
    expected = np.percentile(np.nanmean(samples, axis=1), [2.5, 97.5])
    assert np.isnan(samples).any()
    found = au_intervals(truth, prediction, PEOPLE)
    np.testing.assert_allclose(found["correlation"], expected, rtol=1e-9)


@pytest.mark.usefixtures("_fewer_resamples")
def test_landmark_intervals_are_percentiles_of_the_resampled_statistics() -> None:
    rng = np.random.default_rng(2)
    count, mean_face = len(PEOPLE), rng.uniform(30, 80, (68, 2))
    truth = {
        "landmarks": mean_face + rng.normal(0, 4, (count, 68, 2)),
        "global_params": rng.normal(0, 0.2, (count, 6)),
        "global_mask": (np.arange(count) % 5 > 0).astype(float),
    }
    answer = {
        "landmarks": truth["landmarks"] + rng.normal(0, 2, (count, 68, 2)),
        "global_params": truth["global_params"] + rng.normal(0, 0.1, (count, 6)),
    }
    found = landmark_pose_intervals(truth, answer, mean_face, PEOPLE)
    sides = [side["landmarks"] for side in (truth, answer)]
    rows = drawn_rows(RESAMPLES, 11)
    expected = {
        "correlation": [landmark_correlation(*(s[r] for s in sides)) for r in rows],
        "correlation_without_mean": [
            landmark_correlation(*(s[r] for s in sides), mean_face) for r in rows
        ],
        "mae": [np.abs(sides[1][r] - sides[0][r]).mean() for r in rows],
        "nme": [nme(*(s[r] for s in sides)).mean() for r in rows],
    }
    for key, samples in expected.items():
        np.testing.assert_allclose(found[key], np.percentile(samples, [2.5, 97.5]), rtol=1e-9)
    known = [r[truth["global_mask"][r] > 0] for r in rows]
    yaws = [
        pose_errors(truth["global_params"][r], answer["global_params"][r])["yaw"] for r in known
        if len(r)
    ]  # fmt: skip
    np.testing.assert_allclose(found["pose"]["yaw"], np.percentile(yaws, [2.5, 97.5]), rtol=1e-9)


def test_faces_that_repeat_a_person_do_not_narrow_the_interval() -> None:
    """Ten copies of each person's face tell nothing new: the interval stays."""
    values = np.random.default_rng(6).normal(size=(40, 1))
    once = confidence_interval(resampled_means(values, np.arange(40))[:, 0])
    copied = np.repeat(values, 10, axis=0)
    by_person = confidence_interval(resampled_means(copied, np.repeat(np.arange(40), 10))[:, 0])
    by_face = confidence_interval(resampled_means(copied, np.arange(400))[:, 0])
    np.testing.assert_allclose(by_person, once)
    assert np.ptp(by_face) < 0.5 * np.ptp(by_person)


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(7).normal(0, 3, (200, 1))
    low, high = confidence_interval(resampled_means(values, np.arange(200))[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.08)


def test_one_person_gives_no_interval(aus: tuple[np.ndarray, np.ndarray]) -> None:
    assert au_intervals(*aus, np.full(len(PEOPLE), "ann")) == {}
