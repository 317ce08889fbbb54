"""``mlx-faceau train`` and ``evaluate`` from their arguments to their exit status."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_nets import AU, write_checkpoint

pytest.importorskip("h5py")

import h5py
from tiny_training import write_faces

from mlx_faceau.cli.main import build_parser, main
from mlx_faceau.core.checkpoint import BEST_NAME, file_hash
from mlx_faceau.train.config import TRAIN_CONFIGS
from mlx_faceau.train.option_fields import flag

TINY = ["--epochs", "1", "--batch-size", "8", "--width-mult", "0.1", "--val-split", "0.17"]
CPU = ["--framework", "torch", "--device", "cpu", "--num-workers", "0", "--no-export"]


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


@pytest.fixture(scope="module")
def trained(faces_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("runs") / "landmarks"
    arguments = ["train", "landmark-pose", "--data", str(faces_file), "--output", str(folder)]
    assert main([*arguments, *TINY, *CPU]) == 0
    return folder


def flags_of(net: str) -> set[str]:
    parser = build_parser()
    for name in ("train", net):
        choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
        parser = choices[name]
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("training", TRAIN_CONFIGS)
def test_every_setting_is_a_flag(training: Any) -> None:
    flags = flags_of(training.model_name)
    assert {flag(item.name) for item in fields(training)} | {"--resume", "--config"} <= flags


def test_a_trained_net_is_evaluated_and_the_result_is_written(
    trained: Path, faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(trained), "--data", str(faces_file), "--backend", "torch"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "without the mean face" in shown
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["faces"] == 24
    assert written["means_from"] == "training"
    assert written["model"]["checkpoint"] == file_hash(trained / BEST_NAME)
    assert written["trained_on"]
    assert written["left_out"] == 0
    assert written["package_version"] == version("mlx-faceau")
    assert written["options"] == {"backend": "torch", "boxes": "auto", "keep_outside": False}
    # Shares of the side, radians.
    assert written["jitter"] == {"shift": 0.05, "scale": 0.1, "roll": math.pi / 18, "seed": 7}
    assert (tmp_path / "evaluation.txt").read_text().splitlines()[-1] in shown
    assert "THE NET WAS TRAINED ON FACES OF THIS FILE" in (tmp_path / "evaluation.html").read_text()
    assert (tmp_path / "evaluation.png").is_file()


def test_an_output_that_is_a_file_is_refused_before_anything_is_computed(
    trained: Path,
    faces_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["evaluate", str(trained), "--data", str(faces_file), "--output", str(faces_file)]
    assert main(arguments) == 2
    assert "is a file; name a folder with --output" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for words in (arguments[:-1], ["export", str(trained), "--output"],
                  ["data", "split", str(faces_file), "--output"],
                  ["train", "au", "--data", str(faces_file), "--output"]):  # fmt: skip
        assert main([*words, "Results.html"]) == 2
        assert "leave .html out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_of_both_nets_is_not_evaluated(
    faces_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlx_faceau.cli import model_metadata

    monkeypatch.setattr(model_metadata, "read_models", lambda model: [{"kind": "combined"}])
    assert main(["evaluate", "both.onnx", "--data", str(faces_file)]) == 2
    assert "both.onnx: a combined model; evaluate one net at a time" in capsys.readouterr().err


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough faces, of people whom no training saw, for action units to count."""
    path = tmp_path_factory.mktemp("strangers") / "strangers.h5"
    return write_faces(path, people=20, name="stranger", seed=1)


def test_a_missed_target_is_exit_status_one_where_targets_are_required(
    trained: Path, strangers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(trained), "--data", str(strangers), "--backend", "torch"]
    assert main(arguments) == 0
    assert main([*arguments, "--require-targets"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL" in shown
    assert "TRAINED ON" not in shown


class Knower:
    """In the place of an action unit predictor: it has the file's answers, off by so much."""

    backend = "torch"

    def __init__(self, file: Path, off: float = 0.0) -> None:
        with h5py.File(file) as content:
            images, units = content["images"][:], content["au_intensities"][:]
        self.answers = {
            image.tobytes(): unit for image, unit in zip(images, units + off, strict=True)
        }
        self.mean = units.mean(axis=0)

    def predict_batch(self, bgr_crops: np.ndarray) -> dict[str, np.ndarray]:
        rgb = bgr_crops[..., ::-1]
        known = [self.answers.get(image.tobytes(), self.mean) for image in rgb]
        return {"au_intensities": np.stack(known)}


@pytest.mark.parametrize(("off", "status"), [(0.0, 0), (0.6, 1)])
def test_targets_that_are_reached_are_exit_status_zero(
    off: float, status: int, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "net.safetensors", AU)
    monkeypatch.setattr(
        "mlx_faceau.inference.predictor.load_au_predictor",
        lambda path, backend: Knower(strangers, off),
    )
    arguments = ["evaluate", str(checkpoint), "--data", str(strangers)]
    assert main([*arguments, "--require-targets"]) == status


def test_a_training_is_resumed_by_its_folder_alone(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "landmark-pose", "--resume", str(trained)]) == 0
    assert "finished after 1 epoch;" in capsys.readouterr().out


@pytest.fixture
def ctrl_c_at_first_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("torch")
    from mlx_faceau.torch_fallback.trainer import TorchTrainer

    step = TorchTrainer.step

    def interrupted(self: TorchTrainer, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(TorchTrainer, "step", interrupted)
    return


@pytest.mark.usefixtures("ctrl_c_at_first_step")
def test_ctrl_c_is_exit_status_130_and_tells_how_to_go_on(
    faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "au", "--data", str(faces_file), "--output", str(tmp_path)]
    assert main([*arguments, *TINY, *CPU]) == 130
    assert f"mlx-faceau train au --resume {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / "checkpoint_last.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "au"], "--data is missing"),
        (["train", "au", "--data", "nothing.h5"], "nothing.h5: no such file"),
        (["train", "au", "--data", "x.h5", "--dropout", "1"], "--dropout is 1.0"),
        (["train", "au", "--resume", "nowhere"], "nowhere: no such file"),
        (["train", "au", "--config", "none.json"], "none.json"),
        (["evaluate", "nowhere", "--data", "x.h5"], "nowhere: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_two(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_flags_win_over_the_settings_file(
    faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"data": "elsewhere.h5", "batch_size": 64}))
    arguments = ["train", "au", "--config", str(recipe), "--data", str(faces_file)]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    assert "fewer than a batch of 64" in capsys.readouterr().err


def test_files_to_validate_on_must_not_hold_the_same_people(
    faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write_faces(tmp_path / "more.h5", people=2, name="other")
    arguments = ["train", "au", "--data", str(faces_file), "--data", str(more)]
    assert main([*arguments, "--val-data", str(faces_file), *TINY, *CPU]) == 2
    assert "--data and --val-data share 6 subjects (person0" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["train_landmark_pose", "train_au_prediction"])
def test_the_modules_are_the_command(module: str) -> None:
    command = [sys.executable, "-m", f"mlx_faceau.{module}", "--epochs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--data is missing" in done.stderr
