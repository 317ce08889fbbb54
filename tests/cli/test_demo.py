"""``mlx-faceau demo``: a portrait, measured with the built-in pair."""

import re
import sys

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")

from mlx_faceau.cli.main import main
from mlx_faceau.core.facs import AU_NAMES


def test_a_portrait_is_measured_with_the_built_in_pair(stand_in, tmp_path, capsys, monkeypatch):
    pytest.importorskip("skimage")
    from mlx_faceau.output.openface_csv import read_openface_csv
    from mlx_faceau.video import detectors
    from mlx_faceau.weights import builtin

    monkeypatch.setattr(builtin, "FOLDER", stand_in)
    face = detectors.CallableDetector(lambda image: [(180.0, 80.0, 90.0, 90.0)])
    monkeypatch.setattr(detectors, "_open_first", lambda folders: face)
    folder = tmp_path / "made"
    for _ in range(2):  # a second one replaces the first
        assert main(["demo", "--output", str(folder)]) == 0
    names = {
        f"astronaut{end}" for end in (".png", ".csv", ".overlay.png", ".report.html", ".run.json")
    }
    assert {path.name for path in folder.iterdir()} == names
    printed = capsys.readouterr().out
    columns = read_openface_csv(folder / "astronaut.csv")
    for name in AU_NAMES:
        assert (f"    {name[:4]} " in printed) == (columns[name][0] > 1)
    assert re.search(r"head pose: pitch -?\d+, yaw -?\d+, roll -?\d+ degrees", printed)


def test_no_face_is_exit_status_one_and_no_library_is_named(
    stand_in, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("skimage")
    from mlx_faceau.video import detectors
    from mlx_faceau.weights import builtin

    monkeypatch.setattr(builtin, "FOLDER", stand_in)
    nobody = detectors.CallableDetector(lambda image: [])
    monkeypatch.setattr(detectors, "_open_first", lambda folders: nobody)
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert "no face was found" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert 'skimage is not installed; run: pip install "mlx-faceau[demo]"' in (
        capsys.readouterr().err
    )
