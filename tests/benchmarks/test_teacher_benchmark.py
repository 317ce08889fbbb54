"""What a linear teacher explains of synthetic people's labels."""

import csv
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py")

import h5py
import numpy as np
from conftest import REPOSITORY

from mlx_faceau.data.joined import open_datasets
from mlx_faceau.data.synthetic import write_synthetic

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import teacher

COUNT = 240


def test_faces_without_pose_are_left_out_and_a_constant_unit_leaves_the_mean_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(paths: list[Path]):
        faces = open_datasets(paths)
        faces.masks["global_mask"][:4] = 0
        faces.labels["landmarks"][:4] += 40
        return faces

    train, people = tmp_path / "train.h5", tmp_path / "people.h5"
    write_synthetic(train, COUNT, seed=1)
    write_synthetic(people, 40, seed=2)
    with h5py.File(people, "r+") as file:
        file["au_intensities"][:, 6] = 0.0  # AU09
    monkeypatch.setattr(teacher, "open_datasets", opened)
    asked = [str(train), "--people", str(people), "--output", str(tmp_path / "teacher.csv")]
    monkeypatch.setattr(sys, "argv", ["teacher.py", *asked])
    assert teacher.main() == 0
    with (tmp_path / "teacher.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["faces"]) for row in rows] == [23, 59, 118, 236, 236, 236, 236, 236]
    assert all(row["AU09_r"] == "nan" for row in rows)
    assert float(rows[3]["mean"]) > 0.3
    assert [row["features"] for row in rows[4:]] == [
        "shape",
        "gradients",
        "gradients, mirrored",
        "gradients, both",
    ]


def test_a_mirror_image_has_its_own_landmarks_and_pose(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "people.h5", 4, seed=2)
    people = teacher.FaceDataset(tmp_path / "people.h5")
    mirrored = teacher.Mirrored(people)
    turned = mirrored.read_images(np.arange(4))
    np.testing.assert_array_equal(turned, people.read_images(np.arange(4))[:, :, ::-1])
    left_eye, right_eye = people.labels["landmarks"][:, 45], mirrored.labels["landmarks"][:, 36]
    np.testing.assert_allclose(right_eye, left_eye * [-1, 1] + [111, 0], atol=1e-4)
    yaw, roll = people.labels["global_params"][:, 2:4].T
    np.testing.assert_allclose(mirrored.labels["global_params"][:, 2:4].T, [-yaw, -roll])
