"""The table of backends: what breaks a bound is found, and only files of the checkpoint count."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("onnx")

from conftest import REPOSITORY

from mlx_faceau.core.checkpoint import load_checkpoint, save_checkpoint
from mlx_faceau.core.provenance import carried_metadata
from mlx_faceau.core.tolerances import FLOAT16_MEAN_ERROR, INT8_CHANGE, MAX_ERROR
from mlx_faceau.data.synthetic.people import write_synthetic

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import backend_parity


@pytest.mark.parametrize(
    ("precision", "faces", "bound"),
    [
        ("float32", 1, MAX_ERROR["au_intensities"]),  # the largest
        ("float16", 1, 10 * FLOAT16_MEAN_ERROR["au_intensities"]),  # the mean of ten faces
        ("float16", 10, FLOAT16_MEAN_ERROR["au_intensities"]),
    ],
)
def test_a_precision_is_held_to_its_own_bound(precision: str, faces: int, bound: float) -> None:
    for share, expected in ((0.99, True), (1.01, False), (np.nan, False)):
        gap = np.zeros((10, 17))
        gap[:faces] = share * bound
        gaps = {"au_intensities": gap}
        assert backend_parity.is_within(precision, gaps, 0.0) == expected


def test_int8_is_held_to_the_change_of_its_error_in_either_direction() -> None:
    for output, bound in INT8_CHANGE.items():
        for share in (0.99, -0.99, 1.01, -1.01, float("nan")):
            found = backend_parity.is_within("int8", {output: np.ones(1)}, share * bound)
            assert found == (abs(share) < 1)


def table(
    model: Path, data: Path, output: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[dict[str, str]]]:
    asked = [str(model), "--data", str(data), "--files", str(files), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["backend_parity.py", *asked])
    status = backend_parity.main()
    with output.open() as file:
        return status, list(csv.DictReader(file))


def test_every_backend_and_file_of_the_checkpoint_is_compared(
    model_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_synthetic(tmp_path / "faces.h5", 8, seed=4)
    asked = (tmp_path / "faces.h5", tmp_path / "table.csv", model_folders["landmark_pose"])
    status, rows = table(model_folders["au_prediction"], *asked, monkeypatch)
    assert status == 0
    assert rows[0]["backend"] == "torch"
    assert {"onnx", "ONNX Runtime"} <= {row["backend"] for row in rows}
    assert {row["file"] for row in rows} == {"checkpoint_best.safetensors", "au_prediction.onnx"}
    assert {row["within"] for row in rows} == {"yes"}
    assert "landmark_pose.onnx: not of this checkpoint" in capsys.readouterr().out

    for row in rows[1:]:  # another library's arithmetic is near, and seldom the very same
        assert float(row["au_intensities_mean"]) < 1e-5
    assert max(float(row["au_intensities_max"]) for row in rows[1:]) > 0

    monkeypatch.setitem(backend_parity.MAX_ERROR, "au_intensities", 0.0)
    status, rows = table(model_folders["au_prediction"], *asked, monkeypatch)
    assert status == 1
    assert "no" in {row["within"] for row in rows}


def test_core_ml_files_in_half_precision_are_named_and_judged_as_such(
    core_ml_packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_synthetic(tmp_path / "faces.h5", 4, seed=4)
    package = core_ml_packages["au_prediction"]
    asked = (tmp_path / "faces.h5", tmp_path / "table.csv", package.parent)
    status, rows = table(package.parent / "net.safetensors", *asked, monkeypatch)
    assert status == 0
    half = {row["file"]: row for row in rows if row["precision"] == "float16"}
    assert {Path(name).suffix for name in half} == {".mlpackage"}
    for row in half.values():  # rounded, so further away than float32 is
        assert 1e-5 < float(row["au_intensities_mean"]) < FLOAT16_MEAN_ERROR["au_intensities"]


def test_files_exported_from_exported_weights_are_of_the_same_checkpoint(
    model_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(model_folders["au_prediction"])
    own = tmp_path / "au_prediction.safetensors"
    save_checkpoint(own, checkpoint.arrays, carried_metadata(checkpoint))
    (found,) = backend_parity.files(own, "au_prediction", [model_folders["au_prediction"]])
    assert found[1] == "au_prediction.onnx"
    assert "not of this checkpoint" not in capsys.readouterr().out
