"""Confidence calibrated on faces whose fits are known to be good or bad."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blobs import Blob, BlobDetector, BlobLandmarks, draw_frame, template
from conftest import REPOSITORY

pytest.importorskip("h5py")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import confidence_calibration

from mlx_faceau.core.architectures import LandmarkPoseConfig, initial_weights
from mlx_faceau.core.checkpoint import describe, load_checkpoint, save_checkpoint
from mlx_faceau.core.landmarks import FIVE_POINTS
from mlx_faceau.core.provenance import carried_metadata
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.video.confidence import ConfidenceCurves
from mlx_faceau.video.detectors import Detection


class MarkingDetector(BlobDetector):
    def detect(self, frame: np.ndarray) -> list[Detection]:
        found = []
        for detection in super().detect(frame):
            x, y, width, height = detection.box
            points = template() * (width / 2) + (x + width / 2, y + height / 2)
            marks = np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINTS])
            found.append(replace(detection, marks=marks))
        return found


def write_faces(path: Path, count: int = 60) -> Path:
    blob = Blob(55.5, 55.5, 40)
    with TrainingDataWriter(path) as writer:
        for row in range(count):
            writer.add_sample(
                image=draw_frame([blob], (112, 112))[..., ::-1],
                landmarks=blob.landmarks.astype(np.float32),
                global_params=np.float32([3, 0, 0, 0, 55, 55]),
                local_params=np.zeros(34, np.float32),
                au_intensities=np.zeros(17, np.float32),
                bbox=np.float32([15, 15, 80, 80]),
                video_name=f"video{row}",
                frame_index=0,
                warp_matrix=np.float32([[1, 0, 0], [0, 1, 0]]),
            )
    return path


def test_curves_are_fitted_reported_and_stored_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LandmarkPoseConfig(width_mult=0.25)
    weights = {f"model.{k}": v for k, v in initial_weights(config, 0).items()}
    checkpoint, table = tmp_path / "net.safetensors", tmp_path / "confidence.csv"
    save_checkpoint(checkpoint, weights, describe(config))
    faces = write_faces(tmp_path / "faces.h5")
    monkeypatch.setattr(confidence_calibration, "load_predictor", lambda _: BlobLandmarks())
    monkeypatch.setattr(confidence_calibration, "open_detector", lambda _: MarkingDetector())
    arguments = [str(checkpoint), str(faces), "--detector", "x", "--write", "--output", str(table)]
    monkeypatch.setattr(sys, "argv", ["confidence_calibration.py", *arguments])
    assert confidence_calibration.main() == 0
    metadata = load_checkpoint(checkpoint).metadata
    curves = ConfidenceCurves.from_metadata(metadata, "net")
    assert curves.marks(1.0) > curves.marks(0.0)
    assert curves.agreement(1.0) > curves.agreement(0.0)
    assert carried_metadata(load_checkpoint(checkpoint))["confidence"] == metadata["confidence"]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {(row["signal"], row["curve"]) for row in rows} == {
        (signal, curve)
        for signal in ("marks", "agreement")
        for curve in ("signal itself", "calibrated")
    }


@pytest.mark.parametrize("case", confidence_calibration.CASES)
def test_fits_of_a_perfect_net_are_good_where_there_is_a_face(case: str) -> None:
    """Half sizes of a blob are its eyes' distance; shuffled blocks are no face."""
    image, points = draw_frame([Blob(55.5, 55.5, 40)], (112, 112)), Blob(55.5, 55.5, 40).landmarks
    generator = np.random.default_rng(0)
    frame, moved, square = confidence_calibration.make_case(case, image, points, generator)
    *_, good = confidence_calibration.fit_of(
        BlobLandmarks(), MarkingDetector(), frame, moved, square
    )
    if case in ("in place", "moved"):
        assert good
    if case == "no face":
        assert moved is None
        assert not good
    if case == "turned":
        np.testing.assert_allclose(moved.mean(axis=0), points.mean(axis=0) + 112, atol=1e-9)


def test_a_curve_recovers_the_probability_that_outcomes_were_drawn_with() -> None:
    generator = np.random.default_rng(1)
    signal = generator.uniform(size=20_000)
    curve = confidence_calibration.fitted_curve(signal, generator.uniform(size=20_000) < signal**3)
    for value in (0.2, 0.5, 0.8, 0.95):
        assert curve(value) == pytest.approx(value**3, abs=0.05)
    assert (np.diff(curve.confidence) > 0).all()
    assert (np.diff(curve.signal) > 0).all()
