"""A recipe on ever fewer people, with as many steps, on synthetic faces."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("matplotlib")

from conftest import REPOSITORY

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.output.matplotlib_figure import new_figure

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import learning_curve

STAGE = {"framework": "torch", "device": "cpu", "width_mult": 0.1, "batch_size": 8, "epochs": 9}


def test_half_the_people_are_shown_twice_as_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, dev, recipe = tmp_path / "train.h5", tmp_path / "dev.h5", tmp_path / "tiny.json"
    for path, seed in ((train, "1"), (dev, "2")):
        synth = ["data", "synth", "--output", str(path), "--count", "48", "--seed", seed]
        assert mlx_faceau(synth) == 0
    stages = [{**STAGE, "num_workers": 0}, {**STAGE, "num_workers": 0, "lr": 1e-4}, STAGE]
    recipe.write_text(json.dumps({"net": "landmark-pose", "stages": stages}))
    run = tmp_path / "run"
    arguments = [str(recipe), "--train", str(train), "--dev", str(dev), "--run", str(run)]
    arguments += ["--epochs", "1", "2", "--halvings", "1", "--results", str(tmp_path)]
    arguments += ["--with", "seed=7"]
    assert learning_curve.main(arguments) == 0
    with (tmp_path / "learning-curve-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole, half = FaceDataset(train), FaceDataset(run / "parts1" / "train.h5")
    found = [[int(row[name]) for name in ("stage", "faces", "epochs")] for row in rows]
    both = (len(whole), len(half))
    assert found == [[1, both[0], 1], [2, both[0], 2], [1, both[1], 2], [2, both[1], 4]]
    folders = [run / f"half{halving}" / f"stage{stage}" for halving in (0, 1) for stage in (1, 2)]
    settings = [json.loads(Path(f"{folder}.settings.json").read_text()) for folder in folders]
    assert [of["patience"] for of in settings] == [of["epochs"] for of in settings]
    assert [(of["seed"], of.get("lr"), of.get("init")) for of in settings] == [
        (7, None, None),
        (7, 1e-4, str(folders[0])),
        (7, None, None),
        (7, 1e-4, str(folders[2])),
    ]
    assert {*half.subjects.tolist()} < {*whole.subjects.tolist()}
    assert len(half) == pytest.approx(len(whole) / 2, abs=8)
    histories = [folder / "training_history.json" for folder in folders[:2]]
    figures = []
    monkeypatch.setattr(
        learning_curve, "new_figure", lambda *size: figures.append(new_figure(*size)) or figures[0]
    )
    assert learning_curve.main([*arguments, "--histories", *map(str, histories)]) == 0
    by_faces, by_time = figures[0].axes
    for stage, line in enumerate(by_faces.get_lines(), 1):
        of_stage = [row for row in rows if row["stage"] == str(stage)]
        expected = [[float(row[n]) for n in ("faces", "correlation_without_mean")]
                    for row in of_stage]  # fmt: skip
        np.testing.assert_allclose(line.get_xydata(), expected, atol=1e-4)
    recorded = [json.loads(path.read_text())["epochs"] for path in histories]
    epochs = [epoch for of_stage in recorded for epoch in of_stage]
    hours = np.cumsum([epoch["seconds"] for epoch in epochs]) / 3600
    shown = [epoch["metrics"]["correlation_without_mean"] for epoch in epochs]
    np.testing.assert_allclose(by_time.get_lines()[0].get_xydata(), np.stack([hours, shown], 1))
    assert (tmp_path / "learning-curve-tiny.png").stat().st_size > 10_000


def test_hours_of_several_stages_add_up(tmp_path: Path) -> None:
    for name, seconds in (("a", 3600.0), ("b", 1800.0)):
        epochs = [{"seconds": seconds, "metrics": {"correlation": 0.5}}]
        (tmp_path / name).write_text(json.dumps({"epochs": epochs}))
    rows = learning_curve.over_time([tmp_path / "a", tmp_path / "b"])
    assert [row["hours"] for row in rows] == [1.0, 1.5]


def test_more_numbers_of_epochs_than_stages_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps({"net": "landmark-pose", "stages": [STAGE]}))
    arguments = [str(recipe), "--train", "a.h5", "--dev", "b.h5", "--run", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"tiny.json: 1 stages; give fewer --epochs"):
        learning_curve.main([*arguments, "--epochs", "1", "1"])
