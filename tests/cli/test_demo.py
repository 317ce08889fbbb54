"""``mlx-faceau demo``: a portrait; with --train every step on a few faces."""

import re
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("h5py")
pytest.importorskip("matplotlib")

from mlx_faceau.cli import demo_training as demo
from mlx_faceau.cli.main import main
from mlx_faceau.core.facs import AU_NAMES

FEW = ["--train", "--faces", "64", "--epochs", "1", "--framework", "torch"]


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """A demo's folder, exit status and what it printed."""
    import contextlib
    import io

    folder, printed = tmp_path_factory.mktemp("demo") / "made", io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["demo", "--output", str(folder), *FEW])
    return folder, status, printed.getvalue()


def test_nets_that_did_not_learn_are_exit_status_one(demonstration):
    _, status, printed = demonstration
    assert status == 1
    assert printed.count("NOT LEARNED") == 2


def test_both_nets_their_exports_and_the_pictures_are_in_the_folder(demonstration):
    folder, _, printed = demonstration
    for kind in demo.TRAININGS:
        names = {path.name for path in (folder / kind).iterdir()}
        assert {"checkpoint_best.safetensors", "training_history.json", f"{kind}.onnx"} <= names
    assert (folder / "predictions.png").stat().st_size > 10_000
    for picture in folder.rglob("*.png"):
        assert f"  {picture.relative_to(folder)}" in printed


def test_every_backend_is_compared_or_its_obstacle_told(demonstration):
    _, _, printed = demonstration
    for kind in demo.TRAININGS:
        block = printed.partition(f"{kind}: every backend")[2].split("\n\n")[0]
        for name in ("torch", "onnx", "mlx", "coreml"):
            (line,) = re.findall(rf"^  {name} .*$", block, re.MULTILINE)
            if "predicts on" in line or "not installed" in line:
                continue
            gaps = [float(gap) for gap in re.findall(r" (\d\.\de[+-]\d\d)", line)]
            assert max(gaps) < (1e-3 if name != "coreml" else 1)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in ([], ["--force"]):
        assert main(["demo", "--output", str(tmp_path), *force, *FEW]) == 2
        assert "is not empty; name another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_missing_library_is_named_before_minutes_are_spent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", "--output", str(tmp_path / "new"), *FEW]) == 2
    assert 'h5py is not installed; run: pip install "mlx-faceau[train]"' in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


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
