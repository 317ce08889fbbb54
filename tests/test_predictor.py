"""The facade: what goes in, what comes out, and which models are refused."""

import json

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, TOLERANCE, random_crops, reference_outputs

import mlx_faceau
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.errors import BackendError, CheckpointError
from mlx_faceau.inference.predictor import AUPredictor, LandmarkPosePredictor

BY_KIND = {config.kind: config for config in BOTH}
PREDICTORS = {"landmark_pose": LandmarkPosePredictor, "au_prediction": AUPredictor}
LOADERS = {
    "landmark_pose": mlx_faceau.load_predictor,
    "au_prediction": mlx_faceau.load_au_predictor,
}
KINDS = pytest.mark.parametrize("kind", BY_KIND)
CROP = random_crops(1)[0]


class FirstPixel:
    """A backend whose outputs are each image's first pixel's red value times 255, minus 100."""

    max_batch = 256

    def __init__(self, config) -> None:
        self.config, self.sizes = config, []

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.sizes.append(len(images))
        red = np.round(images[:, 0, 0, 0] * 255) - 100
        return {
            name: np.broadcast_to(red.reshape(-1, *[1] * len(shape)), (len(images), *shape)).astype(
                np.float32
            )
            for name, shape in self.config.output_shapes.items()
        }

    def describe(self) -> dict:
        return {"backend": "fake", "kind": self.config.kind}


def predictor(kind):
    return PREDICTORS[kind](FirstPixel(BY_KIND[kind]))


def crops_with_red(*values: int) -> np.ndarray:
    crops = np.zeros((len(values), 112, 112, 3), np.uint8)
    crops[:, 0, 0, 2] = values  # BGR
    return crops


def test_landmarks_and_parameters_of_one_face_have_the_documented_shapes():
    outputs = predictor("landmark_pose").predict(crops_with_red(142)[0])
    assert {name: (v.shape, v.dtype.name) for name, v in outputs.items()} == {
        "landmarks": ((68, 2), "float32"),
        "global_params": ((6,), "float32"),
        "local_params": ((34,), "float32"),
    }
    assert all((value == 42).all() for value in outputs.values())


def test_intensities_are_clamped_and_named():
    outputs = predictor("au_prediction").predict_batch(crops_with_red(99, 102, 200))
    assert outputs["au_intensities"].dtype == np.float32
    np.testing.assert_array_equal(outputs["au_intensities"], [[0] * 17, [2] * 17, [5] * 17])
    assert outputs["au_dicts"][1] == dict.fromkeys(AU_NAMES, 2.0)
    one = predictor("au_prediction").predict(crops_with_red(103)[0])
    assert one["au_intensities"].shape == (17,)
    assert one["au_dict"] == dict.fromkeys(AU_NAMES, 3.0)
    assert json.loads(json.dumps(one["au_dict"])) == one["au_dict"]


def test_au_names_are_the_public_ones():
    assert AUPredictor.get_au_names() == list(mlx_faceau.AU_NAMES)


@KINDS
def test_an_empty_batch_gives_empty_arrays(kind):
    outputs = predictor(kind).predict_batch(np.empty((0, 112, 112, 3), np.uint8))
    shapes = {name: (0, *shape) for name, shape in BY_KIND[kind].output_shapes.items()}
    assert {n: v.shape for n, v in outputs.items() if n != "au_dicts"} == shapes
    assert outputs.get("au_dicts", []) == []


def test_a_large_batch_becomes_float32_in_pieces():
    runs = predictor("au_prediction")
    reds = np.arange(600) % 256
    outputs = runs.predict_batch(crops_with_red(*reds))
    assert runs._backend.sizes == [256, 256, 88]
    np.testing.assert_array_equal(outputs["au_intensities"][:, 0], np.clip(reds - 100, 0, 5))


@KINDS
@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (CROP.astype(np.float32), "are float32, expected uint8"),
        (CROP[..., 0], r"shape \(112, 112\), expected \(112, 112, 3\) BGR"),
        (CROP[:100], r"shape \(100, 112, 3\)"),
        (CROP[..., [0, 1, 2, 0]], r"shape \(112, 112, 4\)"),
        (CROP[np.newaxis], "use predict_batch"),
        (None, "NoneType; read images with cv2.imread"),
        ("face.png", "got str"),
    ],
)
def test_what_is_no_crop_is_refused_with_what_came(kind, crop, message):
    with pytest.raises(ValueError, match=message):
        predictor(kind).predict(crop)


@KINDS
@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (CROP, "use predict for one crop"),
        ([CROP, None], "got NoneType"),
        (np.zeros((2, 112, 112, 1), np.uint8), r"shape \(2, 112, 112, 1\)"),
        (np.zeros((2, 112, 112), np.uint8), r"shape \(2, 112, 112\), expected"),
        (np.zeros((0,)), r"shape \(0,\)"),
    ],
)
def test_what_is_no_batch_is_refused_with_what_came(kind, crops, message):
    with pytest.raises(ValueError, match=message):
        predictor(kind).predict_batch(crops)


@KINDS
def test_a_list_of_crops_is_a_batch(kind):
    one = predictor(kind)
    for crops in ([], [CROP], [CROP, CROP[::-1], CROP]):
        array = np.array(crops).reshape(-1, *CROP.shape).astype(np.uint8)
        listed, stacked = one.predict_batch(crops), one.predict_batch(array)
        for name, values in stacked.items():
            np.testing.assert_array_equal(listed[name], values)


@KINDS
def test_a_list_given_to_predict_is_pointed_to_predict_batch(kind):
    with pytest.raises(ValueError, match="use predict_batch for lists"):
        predictor(kind).predict([CROP, CROP])


# --- real models


def check_predictions(runs, config, backend) -> None:
    assert runs.backend == backend == runs.describe()["backend"]
    crops = random_crops(2)
    outputs, single = runs.predict_batch(crops), runs.predict(crops[1])
    for name, true in reference_outputs(config, crops).items():
        expected = np.clip(true, 0, 5) if name == "au_intensities" else true
        limit = TOLERANCE[name]
        np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=limit, err_msg=name)
        np.testing.assert_allclose(single[name], expected[1], rtol=0, atol=limit, err_msg=name)


@KINDS
def test_onnx_runs_a_folder_or_a_file(model_folders, kind):
    folder = model_folders[kind]
    for path in (folder, folder / f"{kind}.onnx", str(folder)):
        check_predictions(PREDICTORS[kind].from_onnx(path), BY_KIND[kind], "onnx")
    check_predictions(LOADERS[kind](folder, backend="onnx"), BY_KIND[kind], "onnx")


@KINDS
def test_torch_runs_a_folder_or_a_file(model_folders, kind):
    folder = model_folders[kind]
    made = PREDICTORS[kind].from_checkpoint(folder, device="cpu")
    check_predictions(made, BY_KIND[kind], "torch")
    path = folder / "checkpoint_best.safetensors"
    made = PREDICTORS[kind].from_checkpoint(path, device="cpu", width_mult=0.25)
    check_predictions(made, BY_KIND[kind], "torch")


@KINDS
def test_mlx_runs_a_folder_or_a_file(model_folders, kind):
    pytest.importorskip("mlx.core")
    folder = model_folders[kind]
    for path in (folder, folder / "checkpoint_best.safetensors"):
        check_predictions(PREDICTORS[kind].from_mlx(path), BY_KIND[kind], "mlx")


@KINDS
def test_auto_runs_what_the_machine_has(model_folders, kind):
    for runs in (
        PREDICTORS[kind].from_auto(model_folders[kind]),
        LOADERS[kind](model_folders[kind]),
    ):
        check_predictions(runs, BY_KIND[kind], runs.backend)


def test_dropout_of_an_original_file_is_taken_by_the_au_predictor_alone(tmp_path):
    pytest.importorskip("torch")
    from random_nets import random_weights

    from mlx_faceau.convert.pyfaceau import write_pyfaceau

    write_pyfaceau(tmp_path / "a.pt", AU, random_weights(AU))
    made = AUPredictor.from_checkpoint(tmp_path / "a.pt", width_mult=0.25, dropout=0.1)
    check_predictions(made, AU, "torch")
    with pytest.raises(TypeError, match="dropout"):
        LandmarkPosePredictor.from_checkpoint(tmp_path / "a.pt", dropout=0.1)


def test_a_net_of_the_other_kind_is_refused_with_the_right_loader(model_folders):
    folder = model_folders["au_prediction"]
    for path in (folder, folder / "au_prediction.onnx", folder / "checkpoint_best.safetensors"):
        with pytest.raises(CheckpointError, match="expected landmark_pose; open it with load_au_p"):
            mlx_faceau.load_predictor(path)
    with pytest.raises(CheckpointError, match="expected au_prediction; open it with load_predic"):
        AUPredictor.from_onnx(model_folders["landmark_pose"])


def test_a_backend_that_cannot_run_says_why(model_folders, tmp_path):
    folder = model_folders["landmark_pose"]
    with pytest.raises(BackendError, match=r"reads \.onnx, not checkpoint_best\.safetensors"):
        LandmarkPosePredictor.from_onnx(folder / "checkpoint_best.safetensors")
    with pytest.raises(ValueError, match="unknown backend 'cuda'"):
        mlx_faceau.load_predictor(folder, backend="cuda")
    with pytest.raises(CheckpointError, match="no such file"):
        mlx_faceau.load_predictor(tmp_path / "none")
    with pytest.raises(BackendError, match=r"no checkpoint_best\.safetensors in"):
        LandmarkPosePredictor.from_mlx(tmp_path)


def test_landmark_nets_of_other_sizes_keep_their_shapes_in_empty_batches():
    from dataclasses import replace

    runs = LandmarkPosePredictor(FirstPixel(replace(LANDMARK, num_landmarks=5)))
    outputs = runs.predict_batch(np.empty((0, 112, 112, 3), np.uint8))
    assert outputs["landmarks"].shape == (0, 5, 2)
