"""Trainings that start from another one's weights."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.core.auxiliary_head import NUM_AUXILIARY, with_auxiliary_prefix
from mlx_faceau.core.checkpoint import describe, file_hash, load_checkpoint, save_checkpoint
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.checkpoints import AU_MODELS
from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig, TrainConfig
from mlx_faceau.train.run import first_weights, load_init, origin_of, run_training, saved_au_models
from mlx_faceau.train.target_statistics import TargetStatistics

LAST = "checkpoint_last.safetensors"


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


def settings(data: Path, output: Path, framework: str = "torch", **more: Any) -> dict[str, Any]:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    given = {"data": str(data), "output": str(output), "framework": framework, "device": "cpu"}
    tiny = {"epochs": 1, "batch_size": 8, "val_split": 0.17, "width_mult": 0.1, "num_workers": 0}
    return {**given, **tiny, "no_export": True, **more}


def start_weights(config: TrainConfig) -> dict[str, np.ndarray]:
    return first_weights(config, load_init(config), TargetStatistics(0, {}, {}))


@pytest.fixture(scope="module")
def trained(faces_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training, which nobody changes."""
    folder = tmp_path_factory.mktemp("trained")
    run_training(AUTrainConfig, settings(faces_file, folder))
    return folder


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_a_net_starts_from_the_averaged_weights_of_a_checkpoint_with_a_new_optimizer(
    faces_file: Path, tmp_path: Path, framework: str
) -> None:
    run_training(AUTrainConfig, settings(faces_file, tmp_path / "old", ema=0.9))
    new, old = tmp_path / "new", tmp_path / "old"
    more = {"init": str(old), "dropout": 0.1, "lr": 0.0}  # a rate of 0 leaves weights as they are
    run_training(AUTrainConfig, settings(faces_file, new, framework, **more))
    first, last = load_checkpoint(old), load_checkpoint(new / LAST)
    for name, value in first.weights().items():
        if "running" not in name:  # BatchNorm's statistics move whatever the rate
            np.testing.assert_array_equal(last.arrays[f"model.{name}"], value, err_msg=name)
    assert last.arrays["optimizer.step"] == 2
    assert last.metadata["progress"]["epoch"] == 1
    origin = last.metadata["init"]
    assert origin["file"] == str(first.path)
    assert origin["hash"] == file_hash(first.path)
    assert origin["data"] == first.metadata["data"]
    assert origin["training"]["epochs"] == 1
    assert json.loads((new / "training_history.json").read_text())["init"] == origin


def test_the_trainings_before_the_one_that_is_started_from_are_recorded_too(tmp_path: Path) -> None:
    config = AUTrainConfig(data="x", width_mult=0.1)
    drawn = start_weights(config)
    arrays = {f"model.{name}": value for name, value in drawn.items()}
    labels = [{"labeller": "OpenFace CSV", "licence": "for research only"}]
    told = {"data": {"hash": "a", "labellers": labels}, "training": {"epochs": 40, "output": "o"}}
    origin = None
    for name in ("first", "second"):
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, arrays, describe(config.model_config(), init=origin, **told))
        origin = origin_of(load_checkpoint(path))
    told = {"data": {"hash": "a", "labellers": labels}, "training": {"epochs": 40}}
    before = {"hash": file_hash(tmp_path / "first.safetensors"), **told}
    second = {"file": str(path), "hash": file_hash(path), **told}
    assert origin == {**second, "init": before}


def test_a_taught_training_starts_from_a_plain_net_and_a_fresh_auxiliary_head(
    trained: Path,
) -> None:
    config = AUTrainConfig(data="x", init=str(trained), width_mult=0.1, auxiliary_weight=1.0)
    plain = load_checkpoint(trained).weights()
    start, drawn = start_weights(config), start_weights(replace(config, init=None))
    assert start.keys() == drawn.keys() > plain.keys()
    for name, value in start.items():
        np.testing.assert_array_equal(value, plain.get(name, drawn[name]), err_msg=name)


@pytest.mark.parametrize("outputs", [NUM_AUXILIARY, 7])
def test_the_auxiliary_head_of_a_taught_checkpoint_comes_along_if_it_fits(
    trained: Path, tmp_path: Path, outputs: int
) -> None:
    checkpoint = load_checkpoint(trained)
    bias = {part: np.full(outputs, i + 1.0, np.float32) for i, part in enumerate(("model", "ema"))}
    apart = {f"{part}.auxiliary_head.layers.0.bias": value for part, value in bias.items()}
    taught = tmp_path / "taught.safetensors"
    save_checkpoint(
        taught, {**checkpoint.arrays, **with_auxiliary_prefix(apart)}, checkpoint.metadata
    )
    config = AUTrainConfig(data="x", init=str(taught), width_mult=0.1, auxiliary_weight=1.0)
    start, drawn = start_weights(config), start_weights(replace(config, init=str(trained)))
    name = "auxiliary_head.layers.0.bias"
    kept = bias["ema"] if outputs == NUM_AUXILIARY else drawn[name]
    np.testing.assert_array_equal(start[name], kept)
    plain = AUTrainConfig(data="x", init=str(taught), width_mult=0.1)
    assert name not in start_weights(plain)


def test_the_models_of_a_taught_checkpoint_comes_along_too(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = load_checkpoint(trained)
    rng = np.random.default_rng(0)
    pdm = PDM(rng.normal(size=(68, 3)), rng.normal(size=(68, 3, 34)), rng.random(34))
    alignment = {name: rng.normal(size=2) for name in ("template", "shift.weight", "shift.bias")}
    au_models = OpenFaceAUModels(
        pdm, alignment, *(rng.normal(size=n).astype(np.float32) for n in (5, 4, 3, 2))
    )
    apart = {AU_MODELS + name: array for name, array in au_models.arrays().items()}
    taught = tmp_path / "taught.safetensors"
    save_checkpoint(taught, {**checkpoint.arrays, **apart}, checkpoint.metadata)
    config = AUTrainConfig(data="x", init=str(taught), width_mult=0.1, auxiliary_weight=1.0)
    found = saved_au_models(config, None, load_init(config))
    assert found is not None
    np.testing.assert_array_equal(found.weights, au_models.weights)
    for plain in ({"init": str(trained)}, {"init": None}, {"auxiliary_weight": 0.0}):
        other = replace(config, **plain)
        assert saved_au_models(other, None, load_init(other)) is None
    with pytest.raises(CheckpointError, match=r"lacks teacher\."):
        saved_au_models(config, checkpoint, None)
    older = {name: array for name, array in apart.items() if "version" not in name}
    save_checkpoint(taught, {**checkpoint.arrays, **older}, checkpoint.metadata)
    assert saved_au_models(config, None, load_init(config)) is None
    with caplog.at_level("WARNING"):
        assert saved_au_models(config, load_checkpoint(taught), None) is None
    assert "of another version: they are fitted anew" in caplog.text


@pytest.mark.parametrize("older", [False, True])
def test_a_fine_tuned_net_is_resumed_without_the_file_that_it_started_from(
    trained: Path, faces_file: Path, tmp_path: Path, older: bool
) -> None:
    init = tmp_path / "start.safetensors"
    shutil.copy(trained / LAST, init)
    run_training(AUTrainConfig, settings(faces_file, tmp_path / "new", init=str(init)))
    init.unlink()
    saved = load_checkpoint(tmp_path / "new" / LAST)
    origin = saved.metadata["init"]
    if older:  # which recorded no more of it
        origin = {key: origin[key] for key in ("file", "hash")}
        save_checkpoint(saved.path, saved.arrays, {**saved.metadata, "init": origin})
    run_training(AUTrainConfig, {"epochs": 2}, resume=tmp_path / "new")
    resumed = load_checkpoint(tmp_path / "new" / LAST)
    assert resumed.metadata["init"] == origin
    assert origin["file"] == str(init)
    assert resumed.metadata["progress"]["epoch"] == 2
    with pytest.raises(CheckpointError, match="--init elsewhere contradicts"):
        run_training(AUTrainConfig, {"init": "elsewhere"}, resume=tmp_path / "new")


def test_another_net_and_another_width_are_refused_before_anything_is_written(
    trained: Path, faces_file: Path, tmp_path: Path
) -> None:
    wrong, new = str(trained), tmp_path / "new"
    with pytest.raises(CheckpointError, match="kind au_prediction, expected landmark_pose"):
        run_training(LandmarkPoseTrainConfig, settings(faces_file, new, init=wrong))
    with pytest.raises(CheckpointError, match=r"width 0\.1, .* 0\.25; use --width-mult 0\.1"):
        run_training(AUTrainConfig, settings(faces_file, new, init=wrong, width_mult=0.25))
    with pytest.raises(CheckpointError, match="no such file"):
        run_training(AUTrainConfig, settings(faces_file, new, init=str(tmp_path / "nothing")))
    assert not new.exists()
