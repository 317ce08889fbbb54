"""Nets with a HOG head: made of a training, alike in every format, refused where they must be."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_nets import AU, LANDMARK, TOLERANCE, random_crops, reference_outputs, write_checkpoint

pytest.importorskip("h5py")
pytest.importorskip("torch")

import torch

from mlx_faceau import load_au_predictor
from mlx_faceau.cli.main import main
from mlx_faceau.core.architectures import HOGHeadConfig
from mlx_faceau.core.auxiliary_head import AuxiliaryAUConfig, auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mlx_faceau.core.trainer import Trainer, TrainerSettings
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.errors import CheckpointError
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.hog_head import au_models_of, hog_head
from mlx_faceau.train.run import trainer_class
from mlx_faceau.train.target_statistics import TargetStatistics

HOG = HOGHeadConfig(width_mult=0.25)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with an auxiliary head."""
    folder = tmp_path_factory.mktemp("training")
    write_synthetic(folder / "faces.h5", 240, seed=3)
    command = ["train", "au", "--data", str(folder / "faces.h5"), "--output", str(folder / "run")]
    options = "--epochs 4 --batch-size 8 --lr 0.003 --width-mult 0.1 --auxiliary-weight 4"
    options += " --framework torch --device cpu"
    assert main([*command, *options.split(), "--no-export"]) == 0
    return folder


def exported(training: Path, to: str, *more: str) -> Path:
    suffix = {"safetensors": ".safetensors", "onnx": ".onnx", "coreml": ".mlpackage"}[to]
    path = training / f"hog{suffix}"
    command = ["export", str(training / "run"), "--hog-head", "--to", to, "--output", str(path)]
    assert main([*command, *more]) == 0
    return path


def expected_intensities(training: Path, images: np.ndarray) -> np.ndarray:
    """The labels' linear models, asked with what the auxiliary head says of RGB crops."""
    checkpoint = load_checkpoint(training / "run")
    found = auxiliary_outputs(checkpoint, images)
    values, start = {}, 0
    for name, size in (("landmarks", 136), ("local_params", 34)):
        known = checkpoint.metadata["target_statistics"][name]
        mean, deviation = (np.asarray(known[key]).ravel() for key in ("mean", "deviation"))
        # Four groups of targets weigh alike, each spread over its columns.
        columns = found[:, start : start + size] * np.sqrt(4 * size)
        values[name], start = columns * deviation + mean, start + size

    faces: Any = SimpleNamespace(
        labels={
            "landmarks": values["landmarks"].reshape(-1, 68, 2),
            "local_params": values["local_params"],
        },
        masks={"global_mask": np.ones(len(images))},
        read_images=lambda rows: images[rows],
    )
    assert faces.labels["landmarks"].std(axis=0).mean() > 0.2  # px: of each face its own
    models = au_models_of(checkpoint)
    assert models is not None
    scores = models._outputs(faces, np.arange(len(images)))[:, :17]
    return np.clip(scores, 0, 5)


def auxiliary_outputs(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    net = build(checkpoint.config, checkpoint.weights()).eval()
    weight, bias = (
        auxiliary_weights(checkpoint.arrays)[f"auxiliary_head.layers.0.{part}"]
        for part in ("weight", "bias")
    )
    with torch.inference_mode():
        features = net.backbone(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    return features.numpy() @ weight.T + bias


@pytest.mark.parametrize(
    ("form", "backend"), [("safetensors", "mlx"), ("safetensors", "torch"), ("onnx", "onnx")]
)
def test_it_says_what_the_models_say_of_the_landmarks_that_were_found(
    training: Path, form: str, backend: str
) -> None:
    pytest.importorskip({"mlx": "mlx.core", "onnx": "onnxruntime"}.get(backend, backend))
    images = FaceDataset(training / "faces.h5").read_images(np.arange(0, 240, 12))
    predictor = load_au_predictor(exported(training, form), backend=backend)
    found = predictor.predict_batch(np.ascontiguousarray(images[..., ::-1]))["au_intensities"]
    expected = expected_intensities(training, images)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert expected.std(axis=0).mean() > 0.1


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_training_goes_through_the_head_that_is_exported(training: Path, framework: str) -> None:
    pytest.importorskip({"mlx": "mlx.core"}.get(framework, framework))
    trainer = hog_trainer(training, framework)
    faces = FaceDataset(training / "faces.h5")
    images = faces.read_images(np.arange(0, 240, 12))
    auxiliary = auxiliary_outputs(load_checkpoint(training / "run"), images)
    crops = trainer.array(np.float32(images) / 255)
    found = trainer.with_hog_head({"auxiliary": trainer.array(auxiliary)}, crops)
    expected = expected_intensities(training, images)
    found = np.clip(found["hog_intensities"].tolist(), 0, 5)
    np.testing.assert_allclose(found, expected, atol=1e-3)

    batch = {
        "images": images,
        "au_intensities": faces.labels["au_intensities"][::12],
        "auxiliary": auxiliary,
    }
    terms = [trainer.step(batch, 1e-5) for _ in range(10)]
    first, last = (float(terms[step]["hog"]) for step in (0, -1))
    assert last < 0.98 * first
    assert np.isfinite(float(terms[-1]["loss"]))


def hog_trainer(training: Path, framework: str) -> Trainer:
    """A trainer of the run's net in which a HOG head's loss is all that weighs."""
    checkpoint = load_checkpoint(training / "run")
    shapes = {"landmarks": (68, 2), "local_params": (34,)}
    statistics = TargetStatistics.from_json(
        checkpoint.metadata["target_statistics"], checkpoint.path, shapes
    )
    config = AuxiliaryAUConfig(checkpoint.config.width_mult, 0.0)
    options = {"smooth_l1_weight": 0.0, "ccc_weight": 1.0, "auxiliary_weight": 0.01}
    settings = TrainerSettings(
        config,
        {**checkpoint.weights(), **auxiliary_weights(checkpoint.arrays)},
        loss_options={**options, "hog_weight": 10.0},
        device="cpu",
        hog_head=hog_head(au_models_of(checkpoint), statistics),
    )
    return trainer_class(framework)(settings, None)


def test_a_hog_weight_without_an_auxiliary_head_is_refused(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "au", "--data", str(training / "faces.h5"), "--hog-weight", "4"]
    assert main([*command, "--output", str(training / "none")]) == 2
    assert "--hog-weight needs --auxiliary-weight" in capsys.readouterr().err
    assert not (training / "none").exists()


def test_heads_and_models_of_another_version_are_named(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(exported(training, "safetensors"))
    older = {**checkpoint.metadata, "model": {**checkpoint.metadata["model"], "hog_head": 1}}
    save_checkpoint(tmp_path / "hog.safetensors", checkpoint.arrays, older)
    assert main(["info", str(tmp_path / "hog.safetensors")]) == 0
    with pytest.raises(CheckpointError, match=r"hog\.safetensors: has a HOG head of version 1"):
        load_au_predictor(tmp_path / "hog.safetensors", backend="torch")

    run = load_checkpoint(training / "run")
    arrays = {name: array for name, array in run.arrays.items() if "version" not in name}
    save_checkpoint(tmp_path / "run.safetensors", arrays, run.metadata)
    assert main(["export", str(tmp_path / "run.safetensors"), "--hog-head"]) == 2
    assert "run.safetensors: has models of another version" in capsys.readouterr().err


def test_the_file_says_what_it_is_and_where_it_comes_from(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(exported(training, "safetensors"))
    assert checkpoint.config == HOGHeadConfig(0.1, 0.3)
    # The trained net's accuracy is not its own.
    assert checkpoint.metadata["source_hash"] != load_checkpoint(training / "run").hash
    card = (training / "MODEL_CARD.md").read_text("utf-8")
    assert "AUPredictionNet with a HOG head" in card
    assert "Not measured." in card
    assert "`hog.safetensors`" in card
    assert checkpoint.metadata["training"]["auxiliary_weight"] == 4
    assert main(["info", str(checkpoint.path)]) == 0
    assert "hog_head 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "float16", "input": "uint8"},
        {"precision": "float16-weights", "batch": 1},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_onnx_files_pass_their_check(settings: dict, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from random_nets import random_source

    from mlx_faceau.convert.export_onnx import export_to_onnx

    check = export_to_onnx(random_source(HOG), tmp_path / "hog.onnx", **settings)
    assert check.passed


def test_a_core_ml_package_passes_its_check(tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    from random_nets import random_source

    from mlx_faceau.convert.export_coreml import export_to_coreml

    check = export_to_coreml(random_source(HOG), tmp_path / "hog.mlpackage", input="image")
    assert check.passed


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_both_frameworks_agree_with_float64(backend: str, tmp_path: Path) -> None:
    pytest.importorskip({"mlx": "mlx.core"}.get(backend, backend))
    crops = random_crops(5)
    predictor = load_au_predictor(write_checkpoint(tmp_path / "hog.safetensors", HOG), backend)
    found = predictor.predict_batch(crops)["au_intensities"]
    expected = reference_outputs(HOG, crops)["au_intensities"]
    tolerance = TOLERANCE["au_intensities"]
    np.testing.assert_allclose(found, np.minimum(expected, 5), atol=tolerance)
    assert (expected > 0.2).mean() > 0.5


def test_int8_keeps_the_means_of_both_heads() -> None:
    """The HOG head's bias is corrected for the landmarks that the corrected geometry gives."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from random_nets import random_source

    from mlx_faceau.convert.export_onnx import traced
    from mlx_faceau.convert.onnx_graph import _intermediate_values, last_layers, quantise
    from mlx_faceau.convert.variants import Variant
    from mlx_faceau.core.preprocess import to_network_input

    source = random_source(HOG)
    images = to_network_input(random_crops(24)).transpose(0, 3, 1, 2).copy()
    exact = traced(source, Variant("onnx", "int8"))
    rounded = quantise(deepcopy(exact), source, images)
    last = last_layers(exact.graph)
    names = [node.output[0] for node in exact.graph.node if node.name in last]
    assert len(names) == 2
    means = [
        [np.concatenate(values).mean(0) for values in zip(*found, strict=True)]
        for found in (_intermediate_values(graph, names, images) for graph in (exact, rounded))
    ]
    for one, other in zip(*means, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_the_plain_network_s_files_are_kept(training: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = str(training / "run")
    assert main(["export", run]) == 0
    before = (training / "run" / "au_prediction.onnx").read_bytes()
    assert main(["export", run, "--hog-head"]) == 0
    assert (training / "run" / "au_prediction.onnx").read_bytes() == before
    made = training / "run" / "au_prediction_hog.onnx"
    made.unlink()
    weights = str(exported(training, "safetensors"))  # the head by itself, beside the plain network
    assert main(["export", weights, "--output", run]) == 0
    assert (training / "run" / "au_prediction.onnx").read_bytes() == before
    assert made.is_file()


def test_the_original_tool_s_files_cannot_hold_it(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "hog.pt"
    assert main(["convert", str(exported(training, "safetensors")), "--output", str(output)]) == 2
    assert "the original tool has no HOG head" in capsys.readouterr().err
    assert not output.exists()


def test_both_nets_are_one_file_too(training: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    landmarks = write_checkpoint(tmp_path / "landmarks.safetensors", LANDMARK)
    both = tmp_path / "both.onnx"
    pair = ["--combine", str(landmarks), str(training / "run")]
    assert main(["export", *pair, "--hog-head", "--output", str(both)]) == 0
    crops = random_crops(2)
    alone = load_au_predictor(exported(training, "onnx")).predict_batch(crops)
    joined = load_au_predictor(both).predict_batch(crops)
    np.testing.assert_allclose(joined["au_intensities"], alone["au_intensities"], atol=1e-4)


@pytest.mark.parametrize("config", [LANDMARK, AU], ids=["landmarks", "no auxiliary head"])
def test_a_net_without_the_labels_models_is_refused(
    config: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_checkpoint(tmp_path / "net.safetensors", config)
    output = tmp_path / "hog.onnx"
    assert main(["export", str(path), "--hog-head", "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lacks the labels' models, which a HOG head takes" in line
    assert not output.exists()


def test_an_opset_without_sampling_is_refused(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = training / "old.onnx"
    command = ["export", str(training / "run"), "--hog-head", "--opset", "15"]
    assert main([*command, "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "from opset 16 on" in line
    assert not output.exists()


def test_it_is_not_trained_further(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exported(training, "safetensors")
    command = ["train", "au", "--data", str(training / "faces.h5"), "--width-mult", "0.1"]
    assert main([*command, "--init", str(path), "--output", str(training / "more")]) == 2
    assert "a HOG head is not trained" in capsys.readouterr().err
    assert not (training / "more").exists()
