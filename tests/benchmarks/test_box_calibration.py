"""A detector whose boxes are known is measured to what they are."""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("h5py")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import box_calibration

from mlx_faceau.video.box_calibration import BoxCalibration
from mlx_faceau.video.detectors import Detection

SIDE = 80.0  # of the landmarks' bounding box; the standard crop's square has 112
# Right 12 and up 6 px of that square's middle, where boxes are 56 by 56 px: half the square.
BRIGHT = (40, 22, 56, 56)  # x, y, width, height
EXPECTED = (-12 / 56, 6 / 56, 2.0)


class Bright:
    """Finds the bright square."""

    name = "bright"
    calibration = BoxCalibration(0.0, 0.0, 1.0)

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return [Detection(tuple(map(float, cv2.boundingRect(np.uint8(frame[..., 0] > 127)))), 1.0)]


def label(model: Path, photograph: np.ndarray) -> np.ndarray:
    """Landmarks around the middle of every photograph."""
    landmarks = np.full((68, 2), 55.5)
    landmarks[0], landmarks[1] = 55.5 - SIDE / 2, 55.5 + SIDE / 2
    return landmarks


def write_photographs(folder: Path, count: int = 12) -> Path:
    """Dark red photographs with the bright square, and a grey one."""
    folder.mkdir()
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 2] = 60
    x, y, width, height = BRIGHT
    image[y : y + height, x : x + width] = 255
    for row in range(count):
        cv2.imwrite(str(folder / f"{row}.png"), image)
    cv2.imwrite(str(folder / "grey.png"), np.full_like(image, 200))
    with (folder / "subjects.csv").open("w") as file:
        file.writelines(f"{row}.png,person {row}\n" for row in range(count))
    return folder


def test_boxes_are_measured_to_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.csv"
    folder = write_photographs(tmp_path / "photographs")
    monkeypatch.setattr(box_calibration, "available", lambda _: [Bright()])
    monkeypatch.setattr(box_calibration, "FaceMesh", Path)
    monkeypatch.setattr(box_calibration, "label", label)
    arguments = ["box_calibration", str(folder), "--label-model", "none", "--output", str(result)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert box_calibration.main() == 0
    with result.open(newline="") as file:
        rows = {row["detector"]: row for row in csv.DictReader(file)}
    found = [float(rows["bright"][column]) for column in ("right", "down", "side")]
    np.testing.assert_allclose(found, EXPECTED, atol=0.02)
    assert 0 < int(rows["bright"]["val_faces"]) < 12
    assert float(rows["bright"]["val_shift_p95"]) < 0.02
    assert float(rows["bright"]["val_log_scale_p95"]) < 0.02
    assert "bright" in capsys.readouterr().out


def test_all_photographs_of_a_person_are_in_one_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sizes = write_photographs(tmp_path / "photographs"), []
    lines = "".join(f"{row}.png,{'anna' if row < 5 else 'bert'}\n" for row in range(12))
    (folder / "subjects.csv").write_text(lines)

    def halves(name: str, first: np.ndarray, second: np.ndarray) -> dict:
        sizes.append({len(first), len(second)})
        return {"detector": name}

    monkeypatch.setattr(box_calibration, "available", lambda _: [Bright()])
    monkeypatch.setattr(box_calibration, "FaceMesh", Path)
    monkeypatch.setattr(box_calibration, "label", label)
    monkeypatch.setattr(box_calibration, "result_row", halves)
    arguments = ["--label-model", "none", "--output", str(tmp_path / "result.csv")]
    monkeypatch.setattr(sys, "argv", ["box_calibration", str(folder), *arguments])
    assert box_calibration.main() == 0
    assert sizes in ([{5, 7}], [{0, 12}])


def test_detectors_that_do_not_run_here_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("dlib")
    names = [detector.name for detector in box_calibration.available(None)]
    assert "dlib" in names
    if sys.platform != "darwin":
        assert "vision: left out: the Vision detector runs on macOS" in capsys.readouterr().err
