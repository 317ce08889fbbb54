"""One training in a folder at a time."""

import os
from pathlib import Path

import pytest
from another_program import another_program

pytest.importorskip("filelock")

from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.checkpoints import RunFolder

HOLD = """
import sys
from pathlib import Path
from mlx_faceau.train.checkpoints import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_is_kept_out_while_the_first_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another_program(HOLD, folder):
        with pytest.raises(CheckpointError, match="another training runs in this folder"):
            RunFolder(folder).locked().__enter__()
        with RunFolder(folder, writes=False).locked():  # a rank of the first one
            pass
    with RunFolder(folder).locked():  # a killed one holds nothing
        pass


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        assert (tmp_path / "run").is_dir()
    if os.name != "nt":
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_is_used_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with RunFolder(tmp_path / "empty").locked():
        pass
    with RunFolder(tmp_path / "used").locked():
        (tmp_path / "used" / "training_history.json").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "used"}


def test_a_file_in_the_folder_s_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError, match="name a folder"):
        RunFolder(tmp_path / "run").locked().__enter__()
