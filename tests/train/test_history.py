"""The history file."""

import json
from pathlib import Path

import pytest

from mlx_faceau.core.atomic_io import write_json
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.train.history import epoch_line


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


def test_an_epoch_s_line_is_short_where_nothing_was_learned() -> None:
    metrics = {"aus": {}, "correlation": float("nan"), "mae": 1.2, "constant": list(AU_NAMES)}
    loss = {"training": {"loss": 1.0}, "validation": {"loss": 2.0}}
    entry = {"epoch": 1, "metrics": metrics, **loss, "images_per_second": 9.0, "seconds": 4.0}
    line = epoch_line(entry, 2, best=True)
    assert "mean r -  MAE 1.200  constant AUs 17 (all)  9 images/s" in line
    entry["metrics"] = metrics | {"constant": ["AU45_r"]}
    assert "constant AUs 1 (AU45_r)  9 images/s" in epoch_line(entry, 2, best=True)
