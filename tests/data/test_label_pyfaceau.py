"""The labeller that runs pyfaceau's parts, with a fake of their interfaces."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_faceau.data.labels.pyfaceau import PyfaceauLabeller
from mlx_faceau.errors import BackendError
from mlx_faceau.video.results import Frame

AU_NAMES = [f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
MASKED = 7  # what the fake aligner paints a masked face with


class Packages:
    """The modules of pyfaceau, pyclnf, pymtcnn and pyfhog, and what was asked of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.boxes = np.array([[200.0, 40, 60, 70], [20, 30, 50, 60]])
        self.units = {name: 0.25 * i for i, name in enumerate(AU_NAMES)}
        self.installed = True

    def load(self, name: str) -> Any:
        homes = {
            "pyfaceau.models": SimpleNamespace(
                ensure_models=self.ensure_models,
                model_paths=lambda folder: {
                    "pdm_file": f"{folder}/pdm",
                    "au_models_dir": f"{folder}/aus",
                    "triangulation_file": f"{folder}/triangles",
                },
            ),
            "pymtcnn": SimpleNamespace(MTCNN=lambda: SimpleNamespace(detect=self.detect)),
            "pyclnf": SimpleNamespace(CLNF=self.open_fitter),
            "pyfhog": SimpleNamespace(extract_fhog_features=self.hog),
            "pyfaceau.features.pdm": SimpleNamespace(
                PDMParser=lambda path: SimpleNamespace(
                    extract_geometric_features=lambda shape: np.r_[np.full(204, 3.0), shape]
                )
            ),
            "pyfaceau.alignment.face_aligner": SimpleNamespace(
                OpenFace22FaceAligner=lambda path: SimpleNamespace(align_face=self.align)
            ),
            "pyfaceau.features.triangulation": SimpleNamespace(TriangulationParser=str),
            "pyfaceau.prediction.model_parser": SimpleNamespace(OF22ModelParser=self.parser),
            "pyfaceau.prediction.batched_au_predictor": SimpleNamespace(
                BatchedAUPredictor=lambda models: SimpleNamespace(predict=self.predict)
            ),
        }
        return homes[name]

    def ensure_models(self, accept_license: bool = False) -> Path:
        assert not accept_license
        if not self.installed:
            raise FileNotFoundError("the OpenFace model files\nare not installed yet")
        return Path("/models")

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.boxes, np.zeros((len(self.boxes), 5, 2))

    def open_fitter(self, detector: None) -> Any:
        self.calls.append("fitter")
        return SimpleNamespace(fit=self.fit)

    def fit(self, image: np.ndarray, box: tuple, return_params: bool) -> tuple[np.ndarray, dict]:
        assert return_params
        x, y, width, height = box
        turn = np.linspace(0, 2 * np.pi, 68)
        points = np.stack(
            [x + width * (1 + np.cos(turn)) / 2, y + height * (1 + np.sin(turn)) / 2], axis=1
        )
        params = np.r_[0.5, 0.1, 0.2, 0.3, x + width / 2, y + height / 2, np.arange(34)]
        return points, {"converged": x < 100, "params": params}

    def align(self, image: np.ndarray, landmarks: np.ndarray, **options: Any) -> np.ndarray:
        assert options["apply_mask"]
        assert options["triangulation"] == "/models/triangles"
        middle = np.ptp(landmarks, axis=0) / 2 + landmarks.min(axis=0)
        np.testing.assert_allclose([options["pose_tx"], options["pose_ty"]], middle, atol=0.2)
        assert options["p_rz"] == 0.3
        return np.full((112, 112, 3), MASKED, np.uint8)

    def hog(self, aligned: np.ndarray, cell_size: int) -> np.ndarray:
        assert cell_size == 8
        return np.full(4464, aligned.mean(), np.float64)

    def parser(self, folder: str) -> Any:
        def load_all_models(force_model_type: str, verbose: bool) -> str:
            self.calls.append(f"{folder} {force_model_type}")
            return "models"

        return SimpleNamespace(load_all_models=load_all_models)

    def predict(self, hog: np.ndarray, shape: np.ndarray, median: np.ndarray) -> dict[str, float]:
        assert (hog == MASKED).all()  # features of the aligned, masked face
        assert hog.dtype == shape.dtype == np.float32
        np.testing.assert_array_equal(shape, [3.0] * 204 + list(range(34)))
        assert median.shape == (4464 + 238,)
        assert not median.any()
        return self.units


@pytest.fixture
def packages() -> Packages:
    return Packages()


def label(packages: Packages) -> list:
    labels = PyfaceauLabeller(packages.load).begin(Path("clip.mp4"))
    return list(labels(Frame(0, 0.0, np.zeros((240, 320, 3), np.uint8))))


def test_labels_come_from_the_fit_and_the_aligned_masked_face(packages: Packages) -> None:
    left, right = label(packages)
    np.testing.assert_array_equal(left.box, [20, 30, 50, 60])
    np.testing.assert_array_equal(right.box, [200, 40, 60, 70])
    assert (left.face_id, right.face_id) == (0, 1)
    assert left.global_params.tolist() == [0.5, 0.1, 0.2, 0.3, 45, 60]
    assert left.local_params.tolist() == list(range(34))
    np.testing.assert_allclose(left.landmarks.min(axis=0), [20, 30], atol=0.1)
    np.testing.assert_allclose(left.au_intensities, 0.25 * np.arange(17))
    assert (left.hog == MASKED).all()
    assert left.confidence > right.confidence  # the right fit did not converge
    assert packages.calls == ["/models/aus static", "fitter"]


def test_a_frame_without_a_face_has_no_labels(packages: Packages) -> None:
    packages.boxes = np.zeros((0, 4))
    assert label(packages) == []


def test_the_licences_are_told() -> None:
    for words in ("CC BY-NC 4.0", "OpenFace", "non-commercial"):
        assert words in PyfaceauLabeller.licence


def test_missing_models_are_never_fetched_but_named(packages: Packages) -> None:
    packages.installed = False
    with pytest.raises(BackendError, match=r"no models \(the OpenFace model files are") as caught:
        PyfaceauLabeller(packages.load)
    assert "licences" in str(caught.value)


def test_a_missing_package_is_named() -> None:
    def load(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    with pytest.raises(BackendError, match=r"No module named 'pyfaceau\.models'"):
        PyfaceauLabeller(load)


def test_a_missing_unit_is_an_error_not_a_zero(packages: Packages) -> None:
    del packages.units["AU45_r"]
    with pytest.raises(BackendError, match="AU45_r"):
        label(packages)
