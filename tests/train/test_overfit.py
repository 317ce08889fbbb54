"""A few faces learned by heart: the quickest sign that net, loss and optimizer fit together."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.cli.main import main
from mlx_faceau.cli.train import OVERFIT_SHARE
from mlx_faceau.errors import DatasetError
from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig
from mlx_faceau.train.datasets import open_data
from mlx_faceau.train.dry_run import dry_run

TINY = ["--batch-size", "4", "--width-mult", "0.1", "--save-every", "100", "--no-export"]


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "mlx"])
@pytest.mark.parametrize(("net", "epochs"), [("landmark-pose", "24"), ("au", "12")])
def test_a_few_faces_are_learned_by_heart(
    net: str,
    epochs: str,
    framework: str,
    faces_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    arguments = ["train", net, "--data", str(faces_file), "--output", str(tmp_path), *TINY]
    arguments += ["--framework", framework, "--device", "cpu", "--overfit", "2"]
    arguments += ["--epochs", epochs, "--lr", "0.005"]
    assert main(arguments) == 0
    share = float(capsys.readouterr().out.split("the loss is ")[1].split(" %")[0])
    assert share < 100 * OVERFIT_SHARE


def test_what_is_not_learned_by_heart_is_exit_status_one_and_every_action_unit_is_told(
    faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    arguments = ["train", "au", "--data", str(faces_file), "--output", str(tmp_path), *TINY]
    arguments += ["--framework", "torch", "--device", "cpu", "--overfit", "8", "--epochs", "1"]
    assert main([*arguments, "--lr", "1e-9"]) == 1
    assert sum(line.startswith("AU") for line in capsys.readouterr().out.splitlines()) == 17


def test_the_few_faces_are_on_both_sides_and_unvaried(faces_file: Path) -> None:
    faces = open_data(LandmarkPoseTrainConfig(data=str(faces_file), batch_size=4, overfit=3))
    assert faces.split.train.tolist() == faces.split.validation.tolist() == [0, 11, 23]
    batch = next(faces.batches.epoch(0))
    expected = faces.dataset.read_images(batch["index"])
    assert (batch["images"] == expected).all()


def test_more_faces_than_there_are_cannot_be_asked_for(faces_file: Path) -> None:
    with pytest.raises(DatasetError, match="holds 24 faces, fewer than --overfit 25"):
        open_data(AUTrainConfig(data=str(faces_file), overfit=25))


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_a_dry_run_tells_size_speed_and_time_and_writes_nothing(
    framework: str, faces_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    arguments = ["train", "au", "--data", str(faces_file), "--output", str(tmp_path / "run")]
    arguments += ["--framework", framework, "--device", "cpu", "--val-split", "0.17"]
    assert main([*arguments, "--dry-run", "--batch-size", "4", "--width-mult", "0.25"]) == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert int(told["parameters"].replace(",", "")) > 400_000
    assert float(told["speed"].split()[0]) > 0
    assert told["estimate"].endswith("for 500 steps")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_of_full_images_and_counts_small_ones_by_their_pixels(
    faces_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []

    def step(_: object, batch: dict[str, np.ndarray], rate: float) -> dict[str, float]:
        sides.append(batch["images"].shape[1])
        return {"loss": 0.0}

    clock = SimpleNamespace(perf_counter=lambda: 0.05 * len(sides))  # a step's time, none between
    monkeypatch.setattr("mlx_faceau.train.dry_run.time", clock)

    pytest.importorskip("torch")
    trainer = importlib.import_module("mlx_faceau.torch_fallback.trainer").TorchTrainer
    monkeypatch.setattr(trainer, "step", step)
    given = {"data": [str(faces_file)], "framework": "torch", "device": "cpu", "batch_size": 4}
    given |= {"width_mult": 0.1, "val_split": 0.17, "epochs": 8, "output": "run"}
    whole, growing = (
        dry_run(AUTrainConfig, {**given, "initial_image_size": side}) for side in (112, 64)
    )
    assert set(sides) == {112}
    share = np.mean([(side / 112) ** 2 for side in (64, 80, 96, 112)])
    assert growing.steps == whole.steps
    assert whole.seconds == pytest.approx(0.05 * whole.steps)
    assert growing.seconds == pytest.approx(share * whole.seconds)
