"""A recipe on ever fewer people, with as many steps, on synthetic faces."""

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("matplotlib")

from conftest import REPOSITORY

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.hdf5 import FaceDataset

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import learning_curve

STAGE = {"framework": "torch", "device": "cpu", "width_mult": 0.1, "batch_size": 8, "epochs": 9}


def test_half_the_people_are_shown_twice_as_often(tmp_path: Path) -> None:
    train, dev, recipe = tmp_path / "train.h5", tmp_path / "dev.h5", tmp_path / "tiny.json"
    for path, seed in ((train, "1"), (dev, "2")):
        synth = ["data", "synth", "--output", str(path), "--count", "48", "--seed", seed]
        assert mlx_faceau(synth) == 0
    recipe.write_text(json.dumps({"net": "landmark-pose", "stages": [{**STAGE, "num_workers": 0}]}))
    run = tmp_path / "run"
    arguments = [str(recipe), "--train", str(train), "--dev", str(dev), "--run", str(run)]
    arguments += ["--epochs", "1", "--halvings", "1", "--results", str(tmp_path)]
    arguments += ["--with", "seed=7"]
    assert learning_curve.main(arguments) == 0
    with (tmp_path / "learning-curve-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole, half = FaceDataset(train), FaceDataset(run / "parts1" / "train.h5")
    assert [int(row["faces"]) for row in rows] == [len(whole), len(half)]
    assert [int(row["epochs"]) for row in rows] == [1, 2]
    settings = [json.loads((run / f"half{i}.settings.json").read_text()) for i in (0, 1)]
    assert [of["seed"] for of in settings] == [7, 7]
    assert {*half.subjects.tolist()} < {*whole.subjects.tolist()}
    assert len(half) == pytest.approx(len(whole) / 2, abs=8)
    histories = [run / f"half{i}" / "training_history.json" for i in (0, 1)]
    assert learning_curve.main([*arguments, "--histories", *map(str, histories)]) == 0
    picture = cv2.imread(str(tmp_path / "learning-curve-tiny.png"))
    assert np.ptp(picture) == 255


def test_hours_of_several_stages_add_up(tmp_path: Path) -> None:
    for name, seconds in (("a", 3600.0), ("b", 1800.0)):
        epochs = [{"seconds": seconds, "metrics": {"correlation": 0.5}}]
        (tmp_path / name).write_text(json.dumps({"epochs": epochs}))
    rows = learning_curve.over_time([tmp_path / "a", tmp_path / "b"])
    assert [row["hours"] for row in rows] == [1.0, 1.5]
