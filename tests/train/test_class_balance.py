"""Weights of action units by rarity or from a file."""

from pathlib import Path

import numpy as np
import pytest

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.train.class_balance import loss_weights, read_weights, repeat_factors


def test_weights_fall_with_the_root_of_the_share_of_faces_and_have_mean_one() -> None:
    intensities = np.zeros((100, 17))
    intensities[:, :] = np.where(np.arange(100)[:, None] < 64, 3.0, 0.0)  # 64 % show most of them
    intensities[16:, 2] = 0.5  # 16 % show AU04
    weights = loss_weights(intensities)
    assert list(weights) == list(AU_NAMES)
    assert weights["AU04_r"] == pytest.approx(2 * weights["AU01_r"])
    assert np.mean(list(weights.values())) == pytest.approx(1.0)


def test_an_action_unit_that_nobody_shows_weighs_at_most_ten_times_the_most_common() -> None:
    intensities = np.full((50, 17), 4.0)
    intensities[:, 0] = 0.0
    weights = loss_weights(intensities)
    assert weights["AU01_r"] == pytest.approx(10 * weights["AU02_r"])


def test_a_face_repeats_by_the_rarest_action_unit_that_it_shows() -> None:
    intensities = np.zeros((100, 17))
    intensities[:64] = 3.0  # 64 % show all, so the median unit is as common
    intensities[:, [2, 6]] = 0.5
    intensities[:16, 2] = 3.0  # 16 % show AU04
    intensities[:4, 6] = 3.0  # 4 % show AU09 too
    repeats = repeat_factors(intensities)
    assert repeats[[0, 4, 16, 64]] == pytest.approx([4, 2, 1, 1])


def test_a_face_alone_with_its_action_unit_comes_at_most_ten_times() -> None:
    intensities = np.full((10_000, 17), 4.0)
    intensities[1:, 0] = 0.0
    assert repeat_factors(intensities)[:2] == pytest.approx([10, 1])


def test_a_file_names_the_weights_that_are_not_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"AU09_r": 2.5}')
    weights = read_weights(path)
    assert weights["AU09_r"] == 2.5
    assert sum(weights.values()) == 16 + 2.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "expected a JSON object"),
        ("AU09", "not a JSON file"),
        ('{"AU99_r": 1}', "unknown action unit AU99_r"),
        ('{"AU09_r": -1}', "the weight of AU09_r is -1, expected a number >= 0"),
        ('{"AU09_r": "much"}', "the weight of AU09_r is 'much'"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_weights(path)
