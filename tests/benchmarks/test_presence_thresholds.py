"""Thresholds of presence, found on some people, measured on others, and carried into the table."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from random_nets import AU, write_checkpoint

pytest.importorskip("h5py")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import presence_thresholds as benchmark

from mlx_faceau.convert.source_model import read_source
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.output.openface_csv import Layout, presence_thresholds

FACES = 400


def write_faces(path: Path) -> Path:
    """Two faces of each person: AU01 is there in every third person, AU02 in the first ten."""
    with TrainingDataWriter(path) as writer:
        for row in range(FACES):
            units = np.zeros(17, np.float32)
            units[0], units[1] = 2.0 * (row // 2 % 3 == 0), 2.0 * (row < 20)
            writer.add_sample(
                image=np.full((112, 112, 3), int(units[0] > 0), np.uint8),
                landmarks=np.full((68, 2), 50, np.float32),
                global_params=np.float32([3, 0, 0, 0, 55, 55]),
                local_params=np.zeros(34, np.float32),
                au_intensities=units,
                bbox=np.float32([15, 15, 80, 80]),
                video_name=f"{row}.png",
                frame_index=0,
                warp_matrix=np.eye(2, 3, dtype=np.float32),
                subject=f"person {row // 2}",
            )
    return path


def predict_batch(crops: np.ndarray) -> dict[str, np.ndarray]:
    """A net that reads AU01 as .7 where it is there and .2 elsewhere, and nothing else."""
    intensities = np.zeros((len(crops), 17))
    intensities[:, 0] = np.where(crops[:, 0, 0, 0] == 1, 0.7, 0.2)
    return {"au_intensities": intensities}


def test_thresholds_are_found_measured_stored_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "au.safetensors", AU)
    faces, output = write_faces(tmp_path / "faces.h5"), tmp_path / "presence.csv"
    net = SimpleNamespace(predict_batch=predict_batch)
    monkeypatch.setattr(benchmark, "load_au_predictor", lambda _: net)
    arguments = ["x", str(checkpoint), str(faces), "--write", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert benchmark.main() == 0
    rows = {row["unit"]: row for row in csv.DictReader(output.read_text().splitlines())}
    brow = rows["AU01"]
    assert 0.2 < float(brow["threshold"]) <= 0.7
    assert (brow["f1"], brow["balanced_accuracy"]) == ("1.000", "1.000")
    assert (brow["f1_at_1"], brow["balanced_accuracy_at_1"]) == ("0.000", "0.500")
    assert float(rows["AU02"]["threshold"]) == 1.0  # of too few faces
    assert rows["AU45"]["f1"] == "nan"
    exported = json.loads(json.dumps(read_source(checkpoint).metadata))  # as files carry it
    levels = presence_thresholds(exported)
    assert (levels[0], levels[1:]) == (float(brow["threshold"]), (1.0,) * 16)
    assert Layout(presence_thresholds=levels).presence_thresholds == levels


def test_scores_follow_their_definitions() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    assert benchmark.f1_score(truth, predicted) == pytest.approx(2 / 3)  # precision = recall = 2/3
    assert benchmark.balanced_accuracy(truth, predicted) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert np.isnan(benchmark.balanced_accuracy(np.ones(3, bool), np.ones(3, bool)))
