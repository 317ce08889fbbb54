"""Each change of a recipe trained by itself, on synthetic faces."""

import csv
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")

from conftest import REPOSITORY

from mlx_faceau.cli.main import main as mlx_faceau

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import ablation

STAGE = {"framework": "torch", "device": "cpu", "width_mult": 0.1, "batch_size": 8, "epochs": 9}


def test_every_change_is_the_only_one_and_seeds_are_shared(tmp_path: Path) -> None:
    faces, recipe = tmp_path / "faces.h5", tmp_path / "tiny.json"
    assert mlx_faceau(["data", "synth", "--output", str(faces), "--count", "40"]) == 0
    recipe.write_text(json.dumps({"net": "au", "stages": [{**STAGE, "num_workers": 0}]}))
    arguments = [str(recipe), "--data", f"train={faces}", "--run", str(tmp_path / "run")]
    table = tmp_path / "tables" / "ablation.csv"
    arguments += ["--output", str(table), "--epochs", "1", "--seeds", "3", "4"]
    changes = ["--change", "dropout=0", "augment=none", "--with", "save_every=7"]
    assert ablation.main([*arguments, *changes]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    names = ["nothing", "dropout=0", "augment=none"]
    assert [(row["change"], row["seed"]) for row in rows] == [
        (name, seed) for seed in ("3", "4") for name in names
    ]
    for row in rows:
        folder = tmp_path / "run" / f"{row['change']}-seed{row['seed']}"
        history = json.loads((folder / "training_history.json").read_text())
        config = history["config"]
        assert config["epochs"] == len(history["epochs"]) == 1
        assert config["seed"] == int(row["seed"])
        assert config["save_every"] == 7
        assert config["dropout"] == (0 if row["change"] == "dropout=0" else 0.3)
        assert config["augment"] == ("none" if row["change"] == "augment=none" else "light")
        expected = history["epochs"][0]["metrics"]["mae"]
        assert float(row["mae"]) == pytest.approx(expected, abs=1e-4)


def test_several_settings_may_change_together() -> None:
    assert ablation.changed("mirror=0+relabel_mirrored=false+augment=strong") == {
        "mirror": 0,
        "relabel_mirrored": False,
        "augment": "strong",
    }


def test_a_plus_in_a_number_joins_nothing() -> None:
    assert ablation.changed("lr=1e+3") == {"lr": 1000.0}
    assert ablation.changed("lr=1e+3+ema=0") == {"lr": 1000.0, "ema": 0}


def test_a_change_without_a_value_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected SETTING=VALUE"):
        ablation.changed("ema")
