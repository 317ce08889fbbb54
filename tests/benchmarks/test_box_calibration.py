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

from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.video.box_calibration import BoxCalibration
from mlx_faceau.video.detectors import Detection

# Right 12 and up 6 px of the crop's middle, where boxes are 56 by 56 px: half the square.
BRIGHT = (40, 22, 56, 56)  # x, y, width, height
EXPECTED = (-12 / 56, 6 / 56, 2.0)


class Bright:
    """Finds the bright square."""

    name = "bright"
    calibration = BoxCalibration(0.0, 0.0, 1.0)

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return [Detection(tuple(map(float, cv2.boundingRect(np.uint8(frame[..., 0] > 127)))), 1.0)]


def write_faces(path: Path, count: int = 12) -> Path:
    """Dark crops with the bright square; the stored box is the square in a frame of 3 px a px."""
    landmarks = np.full((68, 2), 55.5, np.float32)
    landmarks[0], landmarks[1] = 55.5 - 40, 55.5 + 40
    image = np.zeros((112, 112, 3), np.uint8)
    x, y, width, height = BRIGHT
    image[y : y + height, x : x + width] = 255
    with TrainingDataWriter(path) as writer:
        for row in range(count):
            writer.add_sample(
                image=image,
                landmarks=landmarks,
                global_params=np.float32([3, 0, 0, 0, 55, 55]),
                local_params=np.zeros(34, np.float32),
                au_intensities=np.zeros(17, np.float32),
                bbox=np.float32([3 * x + 100, 3 * y + 50, 3 * width, 3 * height]),
                video_name=f"video{row}",
                frame_index=0,
                warp_matrix=np.float32([[1 / 3, 0, -100 / 3], [0, 1 / 3, -50 / 3]]),
            )
    return path


def test_boxes_are_measured_to_what_they_are_and_other_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.csv"
    names = "detector,right,down,side,val_faces,val_missed,val_shift_median,val_shift_p95,"
    names += "val_log_scale_median,val_log_scale_p95"
    result.write_text(f"{names}\nvision,1,2,3,4,5,6,7,8,9\nfile,0,0,0,0,0,0,0,0,0\n")
    faces = write_faces(tmp_path / "faces.h5")
    monkeypatch.setattr(box_calibration, "RESULT", result)
    monkeypatch.setattr(box_calibration, "available", lambda _: [Bright()])
    monkeypatch.setattr(sys, "argv", ["box_calibration", str(faces), str(faces), "--boxes", "file"])
    assert box_calibration.main() == 0
    with result.open(newline="") as file:
        rows = {row["detector"]: row for row in csv.DictReader(file)}
    assert rows["vision"]["side"] == "3"
    for name, tolerance in (("bright", 0.02), ("file", 0.001)):
        found = [float(rows[name][column]) for column in ("right", "down", "side")]
        np.testing.assert_allclose(found, EXPECTED, atol=tolerance)
        assert float(rows[name]["val_shift_p95"]) < 0.02
        assert float(rows[name]["val_log_scale_p95"]) < 0.02
    assert "bright" in capsys.readouterr().out


def test_what_does_not_run_here_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("dlib")
    names = [detector.name for detector in box_calibration.available(None)]
    assert "dlib" in names
    if sys.platform != "darwin":
        assert "vision: left out: the Vision detector runs on macOS" in capsys.readouterr().err
