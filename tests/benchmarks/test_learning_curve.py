"""A recipe on ever fewer people, with as many steps."""

import csv
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py")

from conftest import REPOSITORY

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.format.dataset import FaceDataset

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import learning_curve
import reference

STAGE = {"framework": "torch", "device": "cpu", "width_mult": 0.1, "batch_size": 8, "epochs": 9}


def fake_training(command: list[str]) -> int:
    """In place of a training: the history of one, of as many epochs as its settings ask for."""
    settings, folder = Path(command[command.index("--config") + 1]), Path(command[-1])
    epochs = json.loads(settings.read_text())["epochs"]
    folder.mkdir(parents=True)
    history = {"epochs": [{"metrics": {"mae": 2.0}, "seconds": 60.0}] * epochs}
    (folder / "training_history.json").write_text(json.dumps(history))
    return 0


def test_half_the_people_get_twice_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "mlx_faceau", fake_training)
    train, dev, recipe = tmp_path / "train.h5", tmp_path / "dev.h5", tmp_path / "tiny.json"
    for path, seed in ((train, "1"), (dev, "2")):
        synth = ["data", "synth", "--output", str(path), "--count", "24", "--seed", seed]
        assert mlx_faceau(synth) == 0
    stages = [{**STAGE, "num_workers": 0}, {**STAGE, "num_workers": 0, "lr": 1e-4}, STAGE]
    recipe.write_text(json.dumps({"net": "landmark-pose", "stages": stages}))
    run = tmp_path / "run"
    arguments = [str(recipe), "--train", str(train), "--dev", str(dev), "--run", str(run)]
    arguments += ["--epochs", "1", "1", "--halvings", "1", "--results", str(tmp_path)]
    assert learning_curve.main(arguments) == 0
    with (tmp_path / "learning-curve-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole, half = FaceDataset(train), FaceDataset(run / "parts1" / "train.h5")
    found = [[int(row[name]) for name in ("stage", "faces", "epochs")] for row in rows]
    both = (len(whole), len(half))
    assert found == [[1, both[0], 1], [2, both[0], 1], [1, both[1], 2], [2, both[1], 2]]
    assert [(row["mae"], row["minutes"]) for row in rows] == [
        ("2.0", f"{n}.0") for n in (1, 1, 2, 2)
    ]
    folders = [run / f"half{halving}" / f"stage{stage}" for halving in (0, 1) for stage in (1, 2)]
    settings = [json.loads(Path(f"{folder}.settings.json").read_text()) for folder in folders]
    assert [of["patience"] for of in settings] == [of["epochs"] for of in settings]
    assert [(of.get("lr"), of.get("init")) for of in settings] == [
        (None, None),
        (1e-4, str(folders[0])),
        (None, None),
        (1e-4, str(folders[2])),
    ]
    assert {*half.subjects.tolist()} < {*whole.subjects.tolist()}
    assert len(half) == pytest.approx(len(whole) / 2, abs=8)


def test_more_numbers_of_epochs_than_stages_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps({"net": "landmark-pose", "stages": [STAGE]}))
    arguments = [str(recipe), "--train", "a.h5", "--dev", "b.h5", "--run", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"tiny.json: 1 stages; give fewer --epochs"):
        learning_curve.main([*arguments, "--epochs", "1", "1"])
