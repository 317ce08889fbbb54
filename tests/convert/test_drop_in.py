"""Our ONNX files in the original tool's hands (its ``.pt`` files: test_pyfaceau)."""

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, random_crops, reference_outputs

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mlx_faceau.convert.export_onnx import export_to_onnx  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}


class OriginalPredictor:
    """Acts as the original does: first input by name, outputs by position, its own preprocessing.

    It takes a BGR crop, turns it to RGB, divides by 255, puts channels first and adds a batch.
    """

    def __init__(self, path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name

    def predict(self, crop: np.ndarray) -> list[np.ndarray]:
        rgb = crop[:, :, ::-1].astype(np.float32) / 255.0
        values = np.ascontiguousarray(rgb.transpose(2, 0, 1)[np.newaxis], np.float32)
        return [output[0] for output in self.session.run(None, {self.input_name: values})]


@pytest.mark.parametrize(
    "asked", [{}, {"batch": 1}, {"opset_version": 12}], ids=["plain", "batch1", "opset12"]
)
def test_its_landmark_predictor_finds_points_pose_and_shape_by_position(
    model_folders, onnx_file, asked
):
    plain = model_folders["landmark_pose"] / "landmark_pose.onnx"
    predictor = OriginalPredictor(onnx_file(LANDMARK, **asked) if asked else plain)
    crop = random_crops(1)[0]
    landmarks, global_params, local_params = predictor.predict(crop)
    assert (landmarks.shape, global_params.shape, local_params.shape) == ((68, 2), (6,), (34,))
    true = reference_outputs(LANDMARK, crop[np.newaxis])
    np.testing.assert_allclose(landmarks, true["landmarks"][0], atol=1e-3)
    np.testing.assert_allclose(global_params, true["global_params"][0], atol=1e-3)
    np.testing.assert_allclose(local_params, true["local_params"][0], atol=1e-3)


def test_its_action_unit_predictor_takes_the_first_output(model_folders):
    path = model_folders["au_prediction"] / "au_prediction.onnx"
    crop = random_crops(1)[0]
    intensities = OriginalPredictor(path).predict(crop)[0]
    assert intensities.shape == (17,)
    true = reference_outputs(AU, crop[np.newaxis])["au_intensities"][0]
    np.testing.assert_allclose(intensities, true, atol=1e-4)


@pytest.mark.parametrize("kind", BY_KIND)
def test_its_own_checkpoint_exported_by_us_gives_its_recorded_outputs(
    shared_folder, tmp_path, kind
):
    stem = shared_folder / "reference" / f"pyfaceau_{kind}_w025"
    export_to_onnx(stem.with_suffix(".pt"), tmp_path / "a.onnx")
    predictor = OriginalPredictor(tmp_path / "a.onnx")
    with np.load(f"{stem}_io.npz") as recorded:
        for index, crop in enumerate(recorded["images_bgr"]):
            outputs = predictor.predict(crop)
            for name, got in zip(BY_KIND[kind].output_shapes, outputs, strict=True):
                limit = 1e-4 if name == "au_intensities" else 1e-3
                np.testing.assert_allclose(got, recorded[name][index], rtol=0, atol=limit)
