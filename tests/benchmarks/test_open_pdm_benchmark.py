"""The benchmark of the open PDM: it sees a changed file, measures known pose, draws by depth."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from ict_like import ict_arrays, write_ict

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import head_renderer
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


def test_the_nearer_of_two_squares_hides_the_other(ict: Path) -> None:
    square = np.array([[-50, -50], [50, -50], [50, 50], [-50, 50]])
    far = np.column_stack([square, np.full(4, 100.0)])
    near = far + np.array([50, 0, -100])
    vertices = np.concatenate([far, near])
    model = replace(read_ict_facekit(ict), faces=np.array([[0, 1, 2, 3], [4, 5, 6, 7]]))
    seen = head_renderer.see(vertices, np.eye(3), 101, 1000.0, 202)
    np.testing.assert_allclose(seen[4], (50, 25, 1000))  # half a pixel a millimetre
    np.testing.assert_allclose(seen[0], (50 - 25 / 1.1, 50 - 25 / 1.1, 1100))
    colours = np.repeat([[200.0, 0, 0], [0, 0, 200.0]], 4, axis=0)
    picture = head_renderer.draw(model, vertices, colours, seen, 101)
    assert picture[50, 35].argmax() == 0
    for x in (53, 60, 97):  # in front of the other, and beyond it
        assert picture[50, x].argmax() == 2
    assert np.ptp(picture[10, 50]) == 0  # background
