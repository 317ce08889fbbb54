"""Reading in a process of its own: results, errors, deaths and hangs."""

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("h5py")

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.check import run_in_subprocess
from mlx_faceau.errors import DatasetError


def process_and(path: Path, more: str) -> tuple[int, str, str]:
    return os.getpid(), path.name, more


def refuse(path: Path) -> None:
    raise DatasetError(f"{path}: refused")


def die(path: Path, against: None) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(path: Path) -> None:
    os._exit(3)


def sleep(path: Path) -> None:
    time.sleep(60)


def test_the_result_comes_from_another_process(tmp_path: Path) -> None:
    process, name, more = run_in_subprocess(process_and, tmp_path / "faces.h5", "more")
    assert (name, more) == ("faces.h5", "more")
    assert process != os.getpid()


def test_errors_arrive_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"faces\.h5: refused$"):
        run_in_subprocess(refuse, tmp_path / "faces.h5")


def test_an_early_end_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"faces\.h5: .* died \(exit status 3\)"):
        run_in_subprocess(leave, tmp_path / "faces.h5")


def test_a_hang_is_one_clear_error(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DatasetError, match=r"faces\.h5: .* hung for 1 seconds"):
        run_in_subprocess(sleep, tmp_path / "faces.h5", seconds=1)
    assert time.monotonic() - started < 20


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_data_check_outlives_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlx_faceau.data.format.check.check_file", die)
    assert main(["data", "check", str(tmp_path / "faces.h5")]) == 2
    error = capsys.readouterr().err
    assert "faces.h5: the process that read it died (SIGSEGV)" in error
    assert error.endswith("write it again\n")
    assert error.count("\n") == 1
