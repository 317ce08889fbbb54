"""What a linear teacher explains of synthetic people's labels."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from conftest import REPOSITORY
from lively import LANDMARK, write_checkpoint

from mlx_faceau.core.architectures import AUPredictionConfig
from mlx_faceau.data.loading.concat_dataset import open_datasets
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.inference.predictor import load_predictor

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
    net = write_checkpoint(tmp_path / "net.safetensors", AUPredictionConfig(width_mult=0.1))
    asked = [str(train), "--people", str(people), "--output", str(tmp_path / "teacher.csv")]
    finder = write_checkpoint(tmp_path / "finder.safetensors", LANDMARK)
    asked += ["--net", str(net), "--landmark-model", str(finder)]
    monkeypatch.setattr(sys, "argv", ["teacher.py", *asked])
    assert teacher.main() == 0
    with (tmp_path / "teacher.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = ["23", "59", "118", *["236"] * 10, "", "", ""]
    assert [row["faces"] for row in rows] == counts
    assert all(row["AU09_r"] == "nan" for row in rows[:-1])  # the last is not about labels
    assert float(rows[3]["mean"]) > 0.3
    mean = {row["features"]: float(row["mean"]) for row in rows[3:]}
    assert list(mean) == [
        "all",
        "shape",
        "gradients",
        *[name for name in mean if "px off" in name],
        "all, mirrored",
        "all, both",
        "all, shape mirrored twice",
        "net",
        "net, mirrored",
        "net, mirrored, relabelled",
    ]
    there, *elsewhere = [name for name in mean if "px off" in name]
    assert there == "all, landmarks 0.00 px off"
    assert mean[there] == pytest.approx(mean["all"], abs=0.03)  # but for the shapes' fit
    assert [mean[name] for name in elsewhere] == sorted((mean[n] for n in elsewhere), reverse=True)
    truth = open_datasets([people]).labels["landmarks"]
    seen = teacher.landmarks_of(load_predictor(finder), open_datasets([people]), np.arange(40))
    assert elsewhere[-1] == f"all, landmarks {np.abs(seen - truth).mean():.2f} px off"
    # synthetic people, their labels and their shape model are symmetric
    assert mean["all, mirrored"] == pytest.approx(mean["all"], abs=0.03)
    assert mean["all, shape mirrored twice"] == pytest.approx(mean["all"], abs=0.01)
