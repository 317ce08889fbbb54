"""Two programs that write one result file; what a killed one leaves."""

import io
from pathlib import Path
from typing import BinaryIO

import pytest
from another_program import another_program

from mlx_faceau.output import row_file
from mlx_faceau.output.row_file import RowFile, is_complete, marker_of

HOLD = """
import sys
from mlx_faceau.output.row_file import RowFile
rows = RowFile(sys.argv[1], "a, b")
rows.write(["1, 2"])
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_program_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    refused = pytest.raises(OSError, match="another program is writing it")
    with another_program(HOLD, path), refused as caught:
        RowFile(path, "c, d")
    assert caught.value.filename == str(path)
    assert path.read_text() == "a, b\n1, 2\n"


def test_what_a_killed_program_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with another_program(HOLD, path):
        pass
    assert not is_complete(path)
    with RowFile(path, "c, d"):
        assert marker_of(path).exists()
    assert path.read_text() == "c, d\n"
    assert is_complete(path)


def test_an_unfinished_file_that_cannot_be_opened_stays_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with another_program(HOLD, path):
        pass
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        RowFile(path)
    assert marker_of(path).exists()


def test_a_file_that_cannot_be_made_leaves_no_marker(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        RowFile(tmp_path / "a.csv")
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        RowFile(tmp_path / "none" / "a.csv")
    assert caught.value.filename == str(tmp_path / "none")


def test_a_file_is_free_again_after_an_error_and_after_a_good_end(tmp_path: Path) -> None:
    def fail() -> None:
        with RowFile(tmp_path / "a.csv"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not is_complete(tmp_path / "a.csv")
    for _ in range(2):
        with RowFile(tmp_path / "a.csv"):
            pass
        assert is_complete(tmp_path / "a.csv")


def test_a_marker_that_its_last_holder_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / "a.csv", row_file._lock

    def removing(file: BinaryIO) -> None:
        monkeypatch.setattr(row_file, "_lock", lock)
        marker_of(path).unlink()
        lock(file)

    monkeypatch.setattr(row_file, "_lock", removing)
    with RowFile(path, "a, b"):
        assert not is_complete(path)
        with pytest.raises(OSError, match="another program is writing it"):
            RowFile(path)
    assert is_complete(path)


def test_a_notebook_s_output_without_bytes_does_not_matter_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with RowFile(tmp_path / "a.csv", "a, b") as rows:
        rows.write(["1, 2"])
    assert (tmp_path / "a.csv").read_text() == "a, b\n1, 2\n"
