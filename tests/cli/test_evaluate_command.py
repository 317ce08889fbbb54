"""What ``mlx-faceau evaluate`` finds out about a model before it is opened."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from random_nets import AU, BOTH, LANDMARK, write_checkpoint
from wire import write_mlpackage, write_onnx

pytest.importorskip("torch")
pytest.importorskip("onnx")

from mlx_faceau.cli.main import main
from mlx_faceau.cli.model_metadata import read_model
from mlx_faceau.core.architectures import LandmarkPoseConfig
from mlx_faceau.core.checkpoint import describe
from mlx_faceau.errors import CheckpointError


def test_every_form_of_a_model_tells_its_kind(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = model_folders["au_prediction"]
    best, theirs = folder / "checkpoint_best.safetensors", tmp_path / "theirs.pt"
    exported = tmp_path / "exported" / "au_prediction.onnx"
    assert main(["convert", str(best), "--output", str(theirs)]) == 0
    exported.parent.mkdir()
    shutil.copy(folder / exported.name, exported)
    files = [best, folder, theirs, exported, exported.parent]
    assert {read_model(path)["kind"] for path in files} == {"au_prediction"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds neither checkpoint_best"):
        read_model(tmp_path / "empty")


@pytest.mark.parametrize("write", [write_onnx, write_mlpackage])
def test_other_exported_files_beside_the_net_s_own_do_not_matter(
    write: Callable[[Path, dict | None], Path], tmp_path: Path
) -> None:
    ending = ".onnx" if write is write_onnx else ".mlpackage"
    write(tmp_path / f"a_yunet{ending}", None)
    with pytest.raises(CheckpointError, match=r"nor an exported net \(landmark_pose\.onnx, "):
        read_model(tmp_path)
    write(tmp_path / f"landmark_pose{ending}", describe(LANDMARK))
    assert read_model(tmp_path)["kind"] == "landmark_pose"


def test_a_folder_of_both_nets_is_refused_with_the_names_of_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for config in BOTH:
        write_onnx(tmp_path / f"{config.kind}.onnx", describe(config))
    assert main(["evaluate", str(tmp_path), "--data", "faces.h5"]) == 2
    error = capsys.readouterr().err.strip()
    assert "landmark_pose.onnx and au_prediction.onnx; name one of these files" in error
    assert "\n" not in error
    assert read_model(tmp_path / "au_prediction.onnx")["kind"] == "au_prediction"


def test_a_pt_file_of_unusual_width_is_refused_with_a_way_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = write_checkpoint(tmp_path / "odd.safetensors", LandmarkPoseConfig(width_mult=0.3))
    theirs, ours = tmp_path / "odd.pt", tmp_path / "again.safetensors"
    assert main(["convert", str(odd), "--output", str(theirs)]) == 0
    assert main(["evaluate", str(theirs), "--data", "faces.h5"]) == 2
    assert "--width-mult of 'mlx-faceau convert'" in capsys.readouterr().err
    assert main(["convert", str(theirs), "--width-mult", "0.3", "--output", str(ours)]) == 0
    assert read_model(ours)["kind"] == "landmark_pose"


def test_a_checkpoint_stands_before_exported_files_of_another_net(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_onnx(folder / "landmark_pose.onnx", describe(LANDMARK))
    assert read_model(folder)["kind"] == "landmark_pose"
    shutil.copy(
        write_checkpoint(tmp_path / "au.safetensors", AU), folder / "checkpoint_best.safetensors"
    )
    assert read_model(folder)["kind"] == "au_prediction"


def test_what_cannot_be_written_is_told_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = "mlx_faceau.evaluation.evaluate.evaluate"
    monkeypatch.setattr(evaluation, lambda *_, **__: pytest.fail("evaluated first"))
    best = write_checkpoint(tmp_path / "checkpoint_best.safetensors", AU)
    assert main(["data", "synth", "--output", str(tmp_path / "faces.h5"), "--count", "8"]) == 0
    (tmp_path / "results" / "evaluation.png").mkdir(parents=True)
    (tmp_path / "file").touch()
    places = {"results": "evaluation.png", "file": "file: is a file", "file/below": "file"}
    for place, named in places.items():
        given = ["--data", str(tmp_path / "faces.h5"), "--output", str(tmp_path / place)]
        assert main(["evaluate", str(best), *given]) == 2
        error = capsys.readouterr().err.strip()
        assert named in error
        assert "\n" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_names_that_are_no_utf_8_are_evaluated_and_described(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    best, faces = folder / "checkpoint_best.safetensors", folder / "faces.h5"
    write_checkpoint(best, AU)
    assert main(["data", "synth", "--output", str(faces), "--count", "16"]) == 0
    assert main(["export", str(folder)]) == 0
    exported = folder / "au_prediction.onnx"
    assert main(["evaluate", str(exported), "--data", str(faces), "--output", str(folder)]) == 0
    assert "caf\\udce9" in (folder / "evaluation.txt").read_text("utf-8")
    assert (folder / "MODEL_CARD.md").is_file()
