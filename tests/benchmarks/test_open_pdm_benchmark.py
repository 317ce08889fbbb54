"""The script that builds the open PDM reports a changed file."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY
from ict_like import ict_arrays, write_ict

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import open_pdm

from mlx_faceau.core.pdm import read_pdm, write_pdm
from mlx_faceau.data.labels.open_pdm import OPEN_VERTICES


@pytest.fixture(scope="module")
def ict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ict(tmp_path_factory.mktemp("ict") / "ict.npz", ict_arrays(OPEN_VERTICES))


def test_a_file_that_the_model_does_not_give_is_reported(
    ict: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = tmp_path / "open_pdm.txt"
    monkeypatch.setattr(open_pdm, "OPEN_PDM", shipped)
    monkeypatch.setattr(sys, "argv", ["open_pdm.py", str(ict)])
    assert open_pdm.main() == 0
    monkeypatch.setattr(sys, "argv", ["open_pdm.py", str(ict), "--check"])
    assert open_pdm.main() == 0
    pdm = read_pdm(shipped)
    write_pdm(shipped, replace(pdm, mean=pdm.mean + 0.01))
    assert open_pdm.main() == 1
    assert "open_pdm.txt: mean differs by 0.01\n" in capsys.readouterr().out
