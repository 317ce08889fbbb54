"""Whole trainings at a tiny width: the files they leave, resuming to the bit, and bad input."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.core.architectures import weight_shapes
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.errors import CheckpointError, DatasetError, FaceauError, MissingDependency
from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig, TrainConfig
from mlx_faceau.train.dry_run import dry_run
from mlx_faceau.train.loop import TrainingLoop
from mlx_faceau.train.run import run_training


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


@pytest.fixture(scope="module")
def stopped(faces_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The last checkpoint of a short training in each framework."""
    found = {}
    for framework in ("torch", "mlx"):
        if importlib.util.find_spec(framework) is not None:
            folder = tmp_path_factory.mktemp(framework)
            train(AUTrainConfig, faces_file, folder, framework=framework, epochs=1)
            found[framework] = folder / "checkpoint_last.safetensors"
    return found


def settings(data: Path, output: Path | None = None, **more: Any) -> dict[str, Any]:
    values = {
        "data": str(data),
        "epochs": 2,
        "batch_size": 8,
        "val_split": 0.17,
        "width_mult": 0.1,
        "framework": "torch",
        "device": "cpu",
        "num_workers": 1,
        "no_export": True,
        **more,
    }
    return values if output is None else {**values, "output": str(output)}


def train(training: type[TrainConfig], data: Path, output: Path, **more: Any) -> TrainingLoop:
    return run_training(training, settings(data, output, **more))


def needs(framework: str) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")


def assert_same_arrays(one: Checkpoint, other: Checkpoint) -> None:
    names = {name for name in one.arrays if name != "loop.history"}  # it tells the time
    assert names == {name for name in other.arrays if name != "loop.history"}
    for name in names:
        np.testing.assert_array_equal(one.arrays[name], other.arrays[name], err_msg=name)


@pytest.mark.parametrize(
    ("training", "framework"), [(LandmarkPoseTrainConfig, "torch"), (AUTrainConfig, "mlx")]
)
def test_resuming_a_numbered_checkpoint_equals_not_stopping_to_the_bit(
    training: type[TrainConfig], framework: str, faces_file: Path, tmp_path: Path
) -> None:
    needs(framework)
    whole = tmp_path / "whole"
    train(training, faces_file, whole, framework=framework, save_every=1, ema=0.9)
    earlier = whole / "checkpoint_epoch_001.safetensors"
    with pytest.raises(CheckpointError, match=r"went on to epoch 2, .* name another --output"):
        run_training(training, {}, resume=earlier)  # which would replace what came after it
    resumed = run_training(
        training,
        {"output": str(tmp_path / "resumed")},
        resume=earlier,
    )
    assert resumed.state.epoch == 2
    final = "checkpoint_final.safetensors"
    assert_same_arrays(load_checkpoint(whole / final), load_checkpoint(resumed.folder.path / final))


def test_a_net_with_an_auxiliary_head_resumes_to_the_bit_and_leaves_the_head_behind(
    tmp_path: Path,
) -> None:
    """In one framework: test_trainers.py resumes the head's own state in both."""
    needs("torch")
    data, whole = tmp_path / "faces.h5", tmp_path / "whole"
    write_synthetic(data, 288, seed=0)
    taught = {"auxiliary_weight": 2.0, "initial_image_size": 48, "batch_size": 32, "save_every": 1}
    taught |= {"horizontal_flip": 0.5, "relabel_flipped": True}
    train(AUTrainConfig, data, whole, ema=0.9, num_workers=0, **taught)
    resumed = run_training(
        AUTrainConfig,
        {"output": str(tmp_path / "resumed")},
        resume=whole / "checkpoint_epoch_001.safetensors",
    )
    final = load_checkpoint(whole / "checkpoint_final.safetensors")
    assert_same_arrays(final, load_checkpoint(resumed.folder.path / "checkpoint_final.safetensors"))
    assert final.metadata["model"] == {"width_mult": 0.1, "dropout": 0.3}
    assert final.weights().keys() == weight_shapes(final.config).keys()
    history = json.loads((whole / "training_history.json").read_text())
    assert all(epoch["training"]["auxiliary"] > 0 for epoch in history["epochs"])
    assert "auxiliary" not in history["epochs"][0]["validation"]


def test_a_checkpoint_says_all_that_is_needed_to_use_and_resume_it(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    train(AUTrainConfig, faces_file, tmp_path, epochs=1, dropout=0.1)
    metadata = load_checkpoint(tmp_path).metadata
    assert metadata["model"] == {"width_mult": 0.1, "dropout": 0.1}
    assert metadata["training"]["batch_size"] == 8
    assert metadata["data"]["training"] == 20
    assert len(metadata["target_statistics"]["landmarks"]["mean"]) == 68
    assert metadata["versions"]["torch"]
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert len(history["epochs"][0]["metrics"]["aus"]) == 17
    assert (tmp_path / "training_curves.png").stat().st_size > 1000


@pytest.mark.parametrize("raw", [False, True], ids=["standardised", "raw"])
def test_parameters_are_standardised_by_the_training_side_unless_raw(
    faces_file: Path, raw: bool
) -> None:
    needs("torch")
    from mlx_faceau.train.datasets import open_data
    from mlx_faceau.train.run import build_trainer, first_weights

    config = LandmarkPoseTrainConfig(**settings(faces_file), raw_params=raw)
    faces = open_data(config)
    net = build_trainer(config, faces, first_weights(config, None, faces.statistics))
    targets = faces.validation_targets()
    spread = faces.dataset.labels["global_params"][faces.split.train].std(0)
    spread[0] = 1.0  # the scale is the same in all faces
    moved = targets["global_params"] + (2.0 if raw else 2.0 * spread)
    losses = net.losses({**targets, "global_params": moved}, targets)
    assert losses["global_params"] == pytest.approx(4.0, rel=1e-3)


def test_averaged_weights_are_evaluated_chosen_and_what_a_checkpoint_means(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    train(LandmarkPoseTrainConfig, faces_file, tmp_path, epochs=1, ema=0.9)
    checkpoint = load_checkpoint(tmp_path)
    averaged, raw = checkpoint.weights(), checkpoint.section("model.")
    changed = [name for name in averaged if not np.array_equal(averaged[name], raw[name])]
    assert "backbone.stem.norm.running_mean" in changed
    assert len(changed) > 0.9 * len(averaged)


def test_weights_of_action_units_are_recorded_and_kept_on_resume(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    given = tmp_path / "weights.json"
    given.write_text('{"AU45_r": 3}')
    train(AUTrainConfig, faces_file, tmp_path / "run", epochs=1, au_weights=str(given))
    given.write_text('{"AU45_r": 5}')
    again = {"epochs": 2, "au_weights": str(given)}
    with pytest.raises(CheckpointError, match=r"weights\.json: not the weights that .*run was"):
        run_training(AUTrainConfig, again, resume=tmp_path / "run")
    given.unlink()
    run_training(AUTrainConfig, again, resume=tmp_path / "run")
    metadata = load_checkpoint(tmp_path / "run/checkpoint_last.safetensors").metadata
    assert metadata["au_weights"]["AU45_r"] == 3
    history = json.loads((tmp_path / "run/training_history.json").read_text())
    assert history["au_weights"]["AU01_r"] == 1


def test_a_net_starts_at_the_mean_of_the_training_targets(faces_file: Path, tmp_path: Path) -> None:
    needs("torch")
    from mlx_faceau.train.datasets import open_data
    from mlx_faceau.train.run import build_trainer, first_weights

    config = LandmarkPoseTrainConfig(**settings(faces_file))
    faces = open_data(config)
    weights = first_weights(config, None, faces.statistics)
    start = build_trainer(config, faces, weights).predict(next(faces.validation_images()))
    for name, mean in faces.statistics.means.items():
        if name in start:
            np.testing.assert_allclose(start[name][0], mean, rtol=1e-3, atol=0.05)


def test_epochs_may_grow_on_resume(faces_file: Path, tmp_path: Path) -> None:
    needs("torch")
    train(LandmarkPoseTrainConfig, faces_file, tmp_path, epochs=1)
    result = run_training(LandmarkPoseTrainConfig, {"epochs": 2}, resume=tmp_path)
    assert (result.folder.path, result.state.epoch) == (tmp_path, 2)
    assert len(json.loads((tmp_path / "training_history.json").read_text())["epochs"]) == 2


def test_a_finished_training_resumed_elsewhere_leaves_its_files_there(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    train(LandmarkPoseTrainConfig, faces_file, tmp_path / "run", epochs=1)
    given = {"output": str(tmp_path / "copy")}
    result = run_training(LandmarkPoseTrainConfig, given, resume=tmp_path / "run")
    assert (result.stopped, result.folder.path) == ("finished", tmp_path / "copy")
    whole, copied = (load_checkpoint(tmp_path / name) for name in ("run", "copy"))
    assert_same_arrays(whole, copied)
    assert_same_arrays(whole, load_checkpoint(tmp_path / "copy/checkpoint_final.safetensors"))


def test_one_face_to_validate_on_is_refused_before_anything_is_trained(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    single = write_faces(tmp_path / "single.h5", people=1, each=1, name="other", seed=1)
    for more in ({"val_data": str(single)}, {"overfit": 1}):
        with pytest.raises(DatasetError, match=r"\.h5: one face to validate on, expected at least"):
            train(AUTrainConfig, faces_file, tmp_path / "run", **more)
        assert not (tmp_path / "run").exists()


def test_resuming_refuses_the_other_net_other_data_and_other_settings(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    run = tmp_path / "run"
    train(LandmarkPoseTrainConfig, faces_file, run, epochs=1)
    with pytest.raises(CheckpointError, match="kind landmark_pose, expected au_prediction"):
        run_training(AUTrainConfig, {}, resume=run)
    with pytest.raises(CheckpointError, match=r"--width-mult 0\.5 contradicts"):
        run_training(LandmarkPoseTrainConfig, {"width_mult": 0.5}, resume=run)
    other = write_faces(tmp_path / "other.h5", people=4)
    with pytest.raises(DatasetError, match="not the data"):
        run_training(LandmarkPoseTrainConfig, {"data": str(other)}, resume=run)


@pytest.mark.parametrize(
    ("framework", "damage", "words"),
    [
        ("torch", {"optimizer.step": None}, "optimizer.step is not the number of a step"),
        ("torch", {"optimizer.step": np.array([-1])}, "optimizer.step is not the number"),
        ("mlx", {"optimizer.m.backbone.stem.conv.weight": None}, "optimizer's m does not fit"),
        ("torch", {"optimizer.v.au_head.layers.0.bias": np.zeros(3, np.float32)}, "shape .3,., ex"),
        ("torch", {"rng.torch": np.zeros(3, np.uint8)}, "random state is not torch's"),
        ("mlx", {"rng.mlx": np.zeros(3, np.uint32)}, "random state is not MLX's"),
    ],
)
def test_a_damaged_training_state_is_refused_with_the_checkpoint_s_name(
    framework: str, damage: dict[str, Any], words: str, stopped: dict[str, Path], tmp_path: Path
) -> None:
    needs(framework)
    whole = load_checkpoint(stopped[framework])
    arrays = {
        name: array for name, array in {**whole.arrays, **damage}.items() if array is not None
    }
    save_checkpoint(path := tmp_path / "damaged.safetensors", arrays, whole.metadata)
    with pytest.raises(CheckpointError, match=rf"damaged\.safetensors: its .*{words}"):
        run_training(AUTrainConfig, {"output": str(tmp_path / "run")}, resume=path)
    assert not (tmp_path / "run").exists()


def test_a_resumed_training_needs_the_weights_that_it_was_given(
    stopped: dict[str, Path], tmp_path: Path
) -> None:
    needs("torch")
    whole = load_checkpoint(stopped["torch"])
    training = {**whole.metadata["training"], "au_weights": "weights.json"}
    metadata = {**whole.metadata, "training": training}
    path = tmp_path / "damaged.safetensors"
    for given, words in ((None, "lacks its au_weights"), ({"AU09_r": "2"}, "weight of AU09_r is")):
        save_checkpoint(path, whole.arrays, {**metadata, "au_weights": given})
        with pytest.raises(CheckpointError, match=words):
            run_training(AUTrainConfig, {"output": str(tmp_path / "run")}, resume=path)


def test_several_files_train_one_net_and_another_one_validates_it(
    faces_file: Path, tmp_path: Path
) -> None:
    needs("torch")
    more = write_faces(tmp_path / "more.h5", people=2)
    others = write_faces(tmp_path / "others.h5", people=2, name="other", seed=1)
    files = {"data": (str(faces_file), str(more)), "val_data": (str(others),)}
    run = tmp_path / "run"
    result = run_training(AUTrainConfig, {**settings(faces_file, run, epochs=1), **files})
    recorded = load_checkpoint(result.folder.path).metadata["data"]
    assert (recorded["training"], recorded["validation"]) == (32, 8)
    assert recorded["split_by"] == "file"
    assert run_training(AUTrainConfig, {"epochs": 2}, resume=run).state.epoch == 2
    for other in ({"val_data": str(more)}, {"val_data": ()}, {"data": (str(more),)}):
        with pytest.raises(DatasetError, match=r"not the data|share 2 subjects"):
            run_training(AUTrainConfig, other, resume=run)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"au_weights": "weights.json"}, "unknown action unit AU99_r"),
        ({"init": "nothing.safetensors"}, "no such file"),
        ({"device": "mps"}, "no mps device"),
        ({"framework": "mlx", "precision": "float16"}, "needs loss scaling"),
    ],
)
def test_what_is_wrong_with_other_settings_is_told_before_the_data_are_read(
    given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(given.get("framework", "torch"))
    if "device" in given:  # on Macs too
        monkeypatch.setattr("torch.mps.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    Path("weights.json").write_text('{"AU99_r": 2}')
    asked = settings(Path("unread.h5"), tmp_path / "run", **given)
    for start in (run_training, dry_run):
        with pytest.raises(FaceauError, match=words):
            start(AUTrainConfig, asked)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_already_holds_a_run_is_not_touched(faces_file: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint_best.safetensors").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match="already holds a training"):
        train(AUTrainConfig, faces_file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_best.safetensors"]


@pytest.mark.parametrize(
    ("people", "each", "batch", "words"),
    [
        (1, 8, 4, "one subject"),
        (3, 4, 32, "fewer than a batch of 32"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_before_anything_is_written(
    people: int, each: int, batch: int, words: str, tmp_path: Path
) -> None:
    data = write_faces(tmp_path / "few.h5", people=people, each=each)
    with pytest.raises(DatasetError, match=words):
        train(AUTrainConfig, data, tmp_path / "run", batch_size=batch)
    assert not (tmp_path / "run").exists()


def test_a_step_of_several_batches_that_the_data_do_not_fill_is_taken_apart(
    faces_file: Path, tmp_path: Path
) -> None:
    words = "fewer than the 24 of a step .--batch-size 8 by --accumulate 3 by 1 rank"
    with pytest.raises(DatasetError, match=words):
        train(AUTrainConfig, faces_file, tmp_path / "run", accumulate=3)


def test_a_framework_that_is_not_installed_is_named_with_its_extra(
    faces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("mlx_faceau.torch_fallback")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"mlx-faceau\[torch\]"):
        train(AUTrainConfig, faces_file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_export_that_cannot_be_made_is_recorded_and_does_not_fail_the_training(
    faces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("torch")
    from mlx_faceau.train import exports

    monkeypatch.setattr(exports, "FORMATS", {".onnx": ("tiny_training", "export_without_onnx")})
    result = train(LandmarkPoseTrainConfig, faces_file, tmp_path, epochs=1, no_export=False)
    assert result.stopped == "finished"
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert "mlx-faceau[export]" in history["exports"]["landmark_pose.onnx"]
    assert history["exports"]["MODEL_CARD.md"] == "written"
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert f"{history['epochs'][0]['metrics']['mae']:.3f}" in card
    assert f"{history['data']['faces']} faces of {history['data']['people']} subjects" in card
