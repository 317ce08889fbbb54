"""A HOG head fitted once more: the least-squares solution, computed here in another way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("torch")

import torch

from mlx_faceau.cli.main import main
from mlx_faceau.core.architectures import HOGHeadConfig
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.core.hog import hog_constants, hog_features, to_units
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.openface_au_models import shape_scale
from mlx_faceau.data.loading.augment import JITTER, change_appearance, draw_stretch
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.checkpoints import AU_MODELS
from mlx_faceau.train.hog_head import au_models_of, with_hog_head
from mlx_faceau.train.refit import RidgeRegression, refitted

FACES = 240


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training whose faces stay as they are."""
    folder = tmp_path_factory.mktemp("training")
    write_synthetic(folder / "faces.h5", FACES, seed=3)
    write_synthetic(folder / "others.h5", 24, seed=4)
    write_synthetic(folder / "wrong.h5", 24, seed=5)
    command = ["train", "au", "--data", str(folder / "faces.h5"), "--output", str(folder / "run")]
    options = "--epochs 4 --batch-size 8 --lr 0.003 --width-mult 0.1 --auxiliary-weight 4 "
    options += "--augment none --horizontal-flip 0 --framework torch --device cpu --no-export"
    assert main([*command, "--val-data", str(folder / "others.h5"), *options.split()]) == 0
    return folder


@pytest.fixture(scope="module")
def refit(training: Path) -> Checkpoint:
    """That training, fitted once more to standard crops alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_faceau.train.refit._AUGMENTS", (None,))
        return refitted(load_checkpoint(training / "run"))


def ridge(inputs: np.ndarray, outputs: np.ndarray, penalty: float) -> np.ndarray:
    """Fitted outputs, through the products of faces with each other."""
    inputs, mean = inputs - inputs.mean(axis=0), outputs.mean(axis=0)
    products = inputs @ inputs.T
    strength = penalty * inputs.var(axis=0).mean() * len(inputs) * np.eye(len(inputs))
    return products @ np.linalg.solve(products + strength, outputs - mean) + mean


def features_of(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    net = build(checkpoint.config, checkpoint.weights()).eval()
    with torch.inference_mode():
        return net.backbone(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).double().numpy()


def intensities(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    net = build(HOGHeadConfig(0.1), weights).eval()
    with torch.inference_mode():
        return net(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)["au_intensities"].numpy()


def test_batches_add_up_to_the_regression_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(2, 1, (50, 7)) * np.arange(1, 8)
    outputs = inputs @ rng.normal(size=(7, 3)) + rng.normal(size=(50, 3)) + 5
    regression = RidgeRegression()
    for rows in np.split(np.arange(50), [1, 20, 37]):
        regression.add(inputs[rows], outputs[rows])
    weights, bias = regression.solve(0.3)
    np.testing.assert_allclose(inputs @ weights + bias, ridge(inputs, outputs, 0.3), atol=1e-9)


def test_both_linear_parts_are_least_squares_solutions(training: Path, refit: Checkpoint) -> None:
    found, run = with_hog_head(refit)[1], load_checkpoint(training / "run")
    models, data = au_models_of(run), FaceDataset(training / "faces.h5")
    assert models is not None
    images, labels = data.read_images(np.arange(FACES)), data.labels

    points, shape = to_units(labels["landmarks"]), labels["local_params"] * shape_scale(models.pdm)
    target = np.concatenate([points.reshape(FACES, -1), shape], axis=1)
    features = features_of(run, images)
    geometry = ridge(features, target, 0.01)
    head = [found[f"geometry_head.layers.0.{part}"] for part in ("weight", "bias")]
    given = features @ head[0].T + head[1]
    # Features of so short a training hardly differ, so float32 leaves few digits of differences.
    assert np.abs(given - geometry).mean() < 2e-4
    assert np.abs(ridge(features, target, 0.02) - geometry).mean() > 2e-3

    def inputs(geometry: np.ndarray) -> np.ndarray:
        grey = images @ (hog_constants()["luminance"] / np.float32(255))
        points = geometry[:, :136].reshape(-1, 68, 2).astype(np.float32)
        hog = hog_features(grey, points, models.alignment, hog_constants())
        return np.concatenate([hog, geometry[:, 136:]], axis=1).astype(np.float64)

    def scores(inputs: np.ndarray) -> np.ndarray:
        return (inputs - models.centre) @ models.weights[:, :17] + models.means[:17]

    true, limits = scores(inputs(target)), labels["au_intensities"]
    true = np.where(limits <= 0, np.minimum(true, 0), limits)  # no label is at 5
    assert limits.max() < 5
    seen = inputs(geometry)
    missed = true - scores(seen)
    expected = scores(seen) + ridge(seen, missed, 1.0)
    head = [found[f"hog_head.layers.0.{part}"] for part in ("weight", "bias")]
    assert np.abs(seen @ head[0].T + head[1] - expected).mean() < 3e-3
    assert np.abs(scores(seen) + ridge(seen, missed, 2.0) - expected).mean() > 3e-2
    errors = [np.square(values - true).mean() for values in (expected, scores(seen))]
    assert errors[0] < 0.9 * errors[1]


def test_jitter_moves_a_face_and_leaves_its_colours() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    for _ in range(50):
        np.testing.assert_array_equal(change_appearance(image, JITTER, rng), image)
        assert draw_stretch(JITTER.stretch, rng) is None
    assert (JITTER.rotation, JITTER.scale, JITTER.shift) == (np.radians(10), 1.1, 5.6)


def test_what_is_no_part_of_the_head_stays(training: Path, refit: Checkpoint) -> None:
    run, arrays = load_checkpoint(training / "run").arrays, refit.arrays
    changed = {name for name in arrays if not np.array_equal(arrays[name], run[name])}
    heads = {name for name in changed if "auxiliary_head" in name}
    assert len(heads) == 2
    assert changed - heads == {AU_MODELS + "weights", AU_MODELS + "means"}
    for name in heads:
        np.testing.assert_array_equal(arrays[name][170:], run[name][170:])


def test_mlx_fits_as_torch_does(
    training: Path, refit: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx.core")
    monkeypatch.setattr("mlx_faceau.train.refit._AUGMENTS", (None,))
    monkeypatch.setattr("mlx_faceau.train.refit.default_framework", lambda: "mlx")
    run = load_checkpoint(training / "run")
    images = FaceDataset(training / "faces.h5").read_images(np.arange(48))
    found = [intensities(with_hog_head(each)[1], images) for each in (refit, refitted(run), run)]
    differences = [np.abs(values - found[0]).mean() for values in found[1:]]
    assert differences[0] < 0.02
    assert differences[1] > 10 * differences[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--refit", "--refit is for --hog-head"),
        ("--hog-head --refit wrong.h5 others.h5", "not the data that"),
        ("--hog-head --refit missing.h5", "missing.h5"),
    ],
)
def test_what_cannot_be_refitted_is_said_in_one_line(
    training: Path,
    options: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(training)
    before = sorted(training.rglob("*"))
    assert main(["export", "run", "--to", "safetensors", *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(training.rglob("*")) == before


def test_jittered_crops_count_too_and_settings_of_training_alone_do_not(
    training: Path, refit: Checkpoint
) -> None:
    run = load_checkpoint(training / "run")
    settings = {"initial_image_size": 64, "precision": "float16"}
    metadata = {**run.metadata, "training": {**run.metadata["training"], **settings}}
    both = with_hog_head(refitted(replace(run, metadata=metadata)))[1]
    standard, images = with_hog_head(refit)[1], FaceDataset(training / "faces.h5").read_images
    crops = images(np.arange(FACES))
    assert 0.01 < np.abs(intensities(both, crops) - intensities(standard, crops)).mean() < 0.5


def test_moved_files_are_named_and_the_result_says_that_it_is_refitted(
    training: Path,
    refit: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mlx_faceau.train.refit._AUGMENTS", (None,))
    moved, path = [tmp_path / "moved.h5", tmp_path / "val.h5"], tmp_path / "hog.safetensors"
    for file, name in zip(moved, ("faces.h5", "others.h5"), strict=True):
        file.write_bytes((training / name).read_bytes())
    command = ["export", str(training / "run"), "--hog-head", "--to", "safetensors"]
    assert main([*command, "--output", str(path)]) == 0
    assert not is_said_to_be_refitted(path, capsys)
    assert main([*command, "--output", str(path), "--refit", *map(str, moved)]) == 0
    assert is_said_to_be_refitted(path, capsys)
    found, expected = load_checkpoint(path).weights(), with_hog_head(refit)[1]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert main(["export", str(path), "--output", str(tmp_path / "again.onnx")]) == 0
    assert is_said_to_be_refitted(tmp_path / "again.onnx", capsys)


def is_said_to_be_refitted(path: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether ``info`` says so of a file, and the model card beside it just as well."""
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    found = "refitted" in capsys.readouterr().out
    card = (path.parent / "MODEL_CARD.md").read_text("utf-8")
    assert ("with a refitted HOG head" in card) is found
    return found
