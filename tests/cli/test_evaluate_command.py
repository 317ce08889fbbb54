"""What ``mlx-faceau evaluate`` finds out about a model before it is opened."""

import shutil
from pathlib import Path

import pytest
from lively import AU, LANDMARK, write_checkpoint

pytest.importorskip("torch")
pytest.importorskip("onnx")

from mlx_faceau.cli.evaluate import read_description
from mlx_faceau.cli.main import main
from mlx_faceau.errors import CheckpointError


def test_every_form_of_a_model_tells_its_kind(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    best = write_checkpoint(tmp_path / "run" / "checkpoint_best.safetensors", AU)
    theirs, exported = tmp_path / "theirs.pt", tmp_path / "exported"
    assert main(["convert", str(best), "--output", str(theirs)]) == 0
    assert main(["export", str(best), "--to", "onnx", "--output", str(exported)]) == 0
    files = [best, best.parent, theirs, exported / "au_prediction.onnx", exported]
    assert {read_description(path)["kind"] for path in files} == {"au_prediction"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds neither checkpoint_best"):
        read_description(tmp_path / "empty")


def test_a_checkpoint_stands_before_exported_files_of_another_net(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other.safetensors", LANDMARK)
    folder = tmp_path / "run"
    assert main(["export", str(other), "--to", "onnx", "--output", str(folder)]) == 0
    assert read_description(folder)["kind"] == "landmark_pose"
    shutil.copy(
        write_checkpoint(tmp_path / "au.safetensors", AU), folder / "checkpoint_best.safetensors"
    )
    assert read_description(folder)["kind"] == "au_prediction"
