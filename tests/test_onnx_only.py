"""The page for boxes without this package: its script measures as the package does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY

skimage = pytest.importorskip("skimage")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from mlx_faceau import load_au_predictor, load_predictor  # noqa: E402
from mlx_faceau.cli.main import main  # noqa: E402
from mlx_faceau.core.facs import AU_NAMES  # noqa: E402
from mlx_faceau.core.geometry import invert, standard_crop_matrix, transform_points  # noqa: E402
from mlx_faceau.video.align import crop_frame  # noqa: E402
from mlx_faceau.video.box_calibration import CALIBRATIONS  # noqa: E402

BLOCKED = ("mlx_faceau", "safetensors", "av", "PIL", "torch", "h5py", "mlx")
OPENCV_HEADERS = "/usr/include/opencv4"
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

    expected, intensities = measured_by_the_package(frame)
    np.testing.assert_allclose(landmarks, expected, atol=0.05)
    np.testing.assert_allclose(aus, intensities, atol=0.01)


def test_the_page_s_program_in_cpp_compiles_and_measures_alike(
    exported: Path, tmp_path: Path
) -> None:
    # ONNX_INCLUDE: the folder of onnxruntime_cxx_api.h, which ONNX Runtime's wheel lacks.
    headers = next(
        (
            folder
            for folder in (os.environ.get("ONNX_INCLUDE"), "/usr/include/onnxruntime")
            if folder and (Path(folder) / "onnxruntime_cxx_api.h").exists()
        ),
        None,
    )
    if headers is None or shutil.which("g++") is None or not Path(OPENCV_HEADERS).exists():
        pytest.skip("needs g++ and the headers of OpenCV and of ONNX Runtime (ONNX_INCLUDE)")
    frame = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
    cv2.imwrite(str(tmp_path / "photo.png"), frame)
    page = (REPOSITORY / "docs/onnx-only.md").read_text(encoding="utf-8")
    (tmp_path / "measure.cpp").write_text(page.split("```cpp\n")[1].split("```")[0])
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so").symlink_to(library)
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    build = (
        f"g++ -std=c++17 -Wall -Wextra -Werror measure.cpp -o measure -isystem {OPENCV_HEADERS} "
        f"-isystem {headers} -L. -lonnxruntime -lopencv_core -lopencv_imgproc -lopencv_imgcodecs"
    )
    subprocess.run(build.split(), cwd=tmp_path, check=True)
    files = (exported / "combined.onnx", exported / "detector_boxes.json")
    run = subprocess.run(
        ["./measure", "photo.png", *map(str, files), "landmarks", *map(str, BOX)],
        cwd=tmp_path,
        env={"LD_LIBRARY_PATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    numbers = np.array(run.stdout.split(), float)
    expected, intensities = measured_by_the_package(frame)
    np.testing.assert_allclose(numbers[:136].reshape(68, 2), expected, atol=0.05)
    # OpenCV before 5 rounds the places that a crop's pixels are read from to 1/32.
    np.testing.assert_allclose(numbers[136:], intensities, atol=0.06)


def measured_by_the_package(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks in the frame and intensities of the face in BOX."""
    matrix = square(BOX)
    for _ in range(2):
        crop = crop_frame(frame, matrix)
        landmarks = transform_points(invert(matrix), load_predictor().predict(crop)["landmarks"])
        matrix = standard_crop_matrix(landmarks)
    return landmarks, load_au_predictor().predict(crop)["au_intensities"]


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
