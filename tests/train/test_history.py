"""The history file."""

import json
from pathlib import Path

import pytest

from mlx_faceau.train.history import write_json


def test_a_number_that_is_none_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "history.json", {"epochs": [{"r": float("nan"), "n": 3}]})
    assert json.loads((tmp_path / "history.json").read_text()) == {"epochs": [{"r": None, "n": 3}]}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    write_json(path, {"epochs": []})
    with pytest.raises(TypeError):
        write_json(path, {"epochs": [object()]})
    assert json.loads(path.read_text()) == {"epochs": []}
    assert list(tmp_path.iterdir()) == [path]
