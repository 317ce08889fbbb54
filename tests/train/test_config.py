"""Settings: values that are refused, and what a resumed run may change."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig, read_settings, resolve


def test_the_defaults_are_the_documented_ones() -> None:
    settings = asdict(AUTrainConfig(data="x.h5"))
    expected = {
        "epochs": 100,
        "batch_size": 32,
        "lr": 0.001,
        "weight_decay": 0.0001,
        "width_mult": 1.0,
        "val_split": 0.1,
        "patience": 30,
        "save_every": 10,
        "augment": "light",
        "num_workers": 2,
        "seed": 42,
        "device": "auto",
        "l1_weight": 1.0,
        "ccc_weight": 0.5,
        "dropout": 0.3,
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("system", "machine", "installed", "framework"),
    [
        ("Darwin", "arm64", ("mlx", "torch"), "mlx"),
        ("Darwin", "x86_64", ("torch",), "torch"),
        ("Linux", "aarch64", ("mlx", "torch"), "torch"),
        ("Linux", "x86_64", ("mlx",), "mlx"),
        ("Linux", "x86_64", (), "torch"),  # whose extra the error then names
    ],
)
def test_mlx_trains_by_default_on_apple_silicon_and_where_torch_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    installed: tuple[str, ...],
    framework: str,
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    found = "mlx_faceau.train.config.find_spec"
    monkeypatch.setattr(found, lambda name: name if name in installed else None)
    assert AUTrainConfig(data="x.h5").framework == framework


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("epochs", 0, "--epochs is 0, expected at least 1"),
        ("epochs", 1.5, "--epochs is 1.5, expected a whole number"),
        ("lr", float("nan"), "--lr is nan, expected a number"),
        ("lr", "fast", "--lr is 'fast', expected a number"),
        ("val_split", 1.0, "--val-split is 1.0, expected less than 1.0"),
        ("framework", "jax", "--framework is 'jax', expected one of mlx, torch"),
        (
            "initial_image_size",
            100,
            "--initial-image-size is 100, expected one of 48, 64, 80, 96, 112",
        ),
        ("initial_image_size", 64.5, "--initial-image-size is 64.5, expected a whole number"),
        ("raw_params", 1, "--raw-params is 1, expected true or false"),
        ("width_mult", 0.01, "leaves a stage without channels"),
        ("data", None, "--data is missing"),
        ("data", (), "--data is missing"),
        ("data", ["x.h5", 3], "--data is .*, expected a text or several"),
        ("val_data", 3, "--val-data is 3, expected a text or several"),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_is_expected(
    setting: str, value: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        resolve(LandmarkPoseTrainConfig, {"data": "x.h5", setting: value})


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown setting learning_rate"):
        resolve(AUTrainConfig, {"data": "x.h5", "learning_rate": 0.1})


@pytest.mark.parametrize("files", ["x.h5", ["x.h5"], ("x.h5",)], ids=("text", "list", "tuple"))
def test_one_file_may_be_written_as_a_text_or_as_a_list(files: Any) -> None:
    assert AUTrainConfig(data=files).data == ("x.h5",)


def test_overfit_takes_no_other_faces_to_validate_on() -> None:
    with pytest.raises(ValueError, match="leave --val-data out"):
        AUTrainConfig(data=("x.h5",), val_data=("y.h5",), overfit=4)


def test_processes_need_a_thread_that_feeds_them() -> None:
    with pytest.raises(ValueError, match="--num-processes needs --num-workers"):
        AUTrainConfig(data=("x.h5",), num_workers=0, num_processes=2)


def test_a_resumed_run_keeps_the_recorded_settings() -> None:
    recorded = asdict(AUTrainConfig(data="x.h5", batch_size=16, epochs=5))
    resumed = resolve(AUTrainConfig, {"epochs": 9}, recorded)
    assert (resumed.batch_size, resumed.epochs) == (16, 9)


def test_a_resumed_run_may_repeat_but_not_contradict_a_setting() -> None:
    recorded = asdict(AUTrainConfig(data="x.h5", batch_size=16))
    assert resolve(AUTrainConfig, {"batch_size": 16}, recorded).batch_size == 16
    with pytest.raises(CheckpointError, match="--batch-size 32 contradicts the checkpoint's 16"):
        resolve(AUTrainConfig, {"batch_size": 32}, recorded)


def test_settings_come_from_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"epochs": 3}')
    assert read_settings(path) == {"epochs": 3}
    path.write_text('{"epochs": 3}', "utf-8-sig")  # as Windows' editors write it
    assert read_settings(path) == {"epochs": 3}
    path.write_text("[3]")
    with pytest.raises(ValueError, match="expected a JSON object"):
        read_settings(path)
    path.write_text("epochs: 3")
    with pytest.raises(ValueError, match="not a JSON file"):
        read_settings(path)


def test_the_settings_import_nothing_heavy() -> None:
    check = "import sys, mlx_faceau.train.config; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_dropout_reaches_the_heads_of_both_nets() -> None:
    for training, usual in ((LandmarkPoseTrainConfig, 0.2), (AUTrainConfig, 0.3)):
        for given, expected in (({}, usual), ({"dropout": 0.0}, 0.0)):
            config = training(data="x", **given).model_config()
            assert {head.dropouts[0] for head in config.heads} == {expected}
        with pytest.raises(ValueError, match="--dropout"):
            training(data="x", dropout=1.0)


def test_recipes_of_earlier_versions_are_read_under_todays_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(
        '{"data": "x.h5", "first_side": 64, "mirror": 0.5, "relabel_mirrored": true, '
        '"compose": 0, "save_minutes": 3, "au_table": true, "sync_bn": false, '
        '"auxiliary_weight": 4.0}'
    )
    settings = resolve(AUTrainConfig, read_settings(path))
    assert (settings.initial_image_size, settings.horizontal_flip) == (64, 0.5)
    assert (settings.relabel_flipped, settings.save_every_minutes) == (True, 3)
    path.write_text('{"data": "x.h5", "sync_bn": true}')
    with pytest.raises(ValueError, match="unknown setting sync_bn"):
        resolve(AUTrainConfig, read_settings(path))
    path.write_text('{"data": "x.h5", "compose": 10, "auxiliary_weight": 4.0}')
    with pytest.raises(ValueError, match="unknown setting cutmix_faces"):
        resolve(AUTrainConfig, read_settings(path))
