"""The page for boxes without this package: its script measures as the package does."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY

skimage = pytest.importorskip("skimage")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from mlx_faceau import load_au_predictor, load_predictor  # noqa: E402
from mlx_faceau.cli.main import main  # noqa: E402
from mlx_faceau.core.facs import AU_NAMES  # noqa: E402
from mlx_faceau.core.geometry import invert, standard_crop_matrix, transform_points  # noqa: E402
from mlx_faceau.video.align import crop_frame  # noqa: E402
from mlx_faceau.video.box_calibration import CALIBRATIONS  # noqa: E402

BLOCKED = ("mlx_faceau", "safetensors", "av", "PIL", "torch", "h5py", "mlx")
BOX = (170.0, 60.0, 105.0, 110.0)  # around the astronaut's landmarks, roughly


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    command = "export --combine builtin builtin --input uint8 --output"
    assert main([*command.split(), str(folder)]) == 0
    return folder


def test_the_page_s_script_measures_as_the_package_does(exported: Path, tmp_path: Path) -> None:
    frame = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
    cv2.imwrite(str(tmp_path / "photo.png"), frame)
    page = (REPOSITORY / "docs/onnx-only.md").read_text(encoding="utf-8")
    (tmp_path / "measure.py").write_text(page.split("```python\n")[1].split("```")[0])
    (tmp_path / "run.py").write_text(
        f"import sys\nsys.modules |= dict.fromkeys({BLOCKED})\n"
        "import json, cv2, onnxruntime, measure\n"
        f"session = onnxruntime.InferenceSession({str(exported / 'combined.onnx')!r})\n"
        f"boxes = json.load(open({str(exported / 'detector_boxes.json')!r}))\n"
        f"found = measure.measure(session, cv2.imread('photo.png'), {BOX}, boxes['landmarks'])\n"
        "print(json.dumps([part.tolist() for part in found]))\n"
    )
    run = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    landmarks, aus = (np.array(part) for part in json.loads(run.stdout))

    matrix = square(BOX)
    for _ in range(2):
        crop = crop_frame(frame, matrix)
        expected = transform_points(invert(matrix), load_predictor().predict(crop)["landmarks"])
        matrix = standard_crop_matrix(expected)
    np.testing.assert_allclose(landmarks, expected, atol=0.05)
    intensities = load_au_predictor().predict(crop)["au_intensities"]
    np.testing.assert_allclose(aus, intensities, atol=0.01)


def test_every_detector_s_box_is_exported(exported: Path) -> None:
    boxes = json.loads((exported / "detector_boxes.json").read_text())
    assert boxes == {name: vars(each) for name, each in CALIBRATIONS.items()}


def test_the_script_names_the_units_in_the_networks_order() -> None:
    page = (REPOSITORY / "docs/onnx-only.md").read_text(encoding="utf-8")
    numbers = page.split('AUS = "')[1].split('"')[0].split()
    assert [f"AU{int(number):02}_r" for number in numbers] == list(AU_NAMES)


def square(box: tuple[float, ...]) -> np.ndarray:
    from mlx_faceau.core.geometry import square_crop_matrix

    return square_crop_matrix(*CALIBRATIONS["landmarks"].square(box))
