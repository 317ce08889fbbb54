"""Weights of action units from a file."""

import json
from pathlib import Path

import pytest

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.train.config import read_au_weights


def test_a_file_names_the_weights_that_are_not_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"AU09_r": 2.5}')
    weights = read_au_weights(path)
    assert weights["AU09_r"] == 2.5
    assert sum(weights.values()) == 16 + 2.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "expected a JSON object"),
        ("AU09", "not a JSON file"),
        ('{"AU99_r": 1}', "unknown action unit AU99_r"),
        ('{"AU09_r": -1}', "the weight of AU09_r is -1, expected a number >= 0"),
        (json.dumps(dict.fromkeys(AU_NAMES, 0)), "all action units weigh 0"),
        ('{"AU09_r": "much"}', "the weight of AU09_r is 'much'"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_au_weights(path)
