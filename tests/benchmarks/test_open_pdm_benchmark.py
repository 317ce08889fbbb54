"""The benchmark of the open PDM: it sees a changed file and measures known pose."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from ict_like import ict_arrays, write_ict

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import open_pdm

from mlx_faceau.core.pdm import OPEN_PDM, read_pdm, write_pdm
from mlx_faceau.data.labels.ict_facekit import read_ict_facekit
from mlx_faceau.data.labels.open_pdm import OPEN_VERTICES


@pytest.fixture(scope="module")
def ict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ict(tmp_path_factory.mktemp("ict") / "ict.npz", ict_arrays(OPEN_VERTICES))


def test_a_file_that_the_model_does_not_give_is_told(
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


@pytest.mark.parametrize("distance", [1e9, 1000.0])
def test_known_pose_is_found_in_projected_heads(
    ict: Path, distance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pdm, "HEADS", 100)
    points, angles = open_pdm.projected_heads(read_ict_facekit(ict), distance)
    errors = open_pdm.pose_errors(read_pdm(OPEN_PDM), points, angles, noise=0.5)
    assert np.degrees(np.ptp(angles, axis=0)).min() > 70
    assert max(values.mean() for values in errors.values()) < 2.5
    unturned = open_pdm.pose_errors(read_pdm(OPEN_PDM), points, 0 * angles, noise=0.5)
    assert min(values.mean() for values in unturned.values()) > 15
