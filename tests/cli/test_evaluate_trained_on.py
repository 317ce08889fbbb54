"""``mlx-faceau evaluate`` knows the faces that a net was trained on, in whatever file it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_nets import AU, random_weights

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("h5py")

from mlx_faceau.cli.main import main
from mlx_faceau.core.checkpoint import describe, save_checkpoint
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import face_digests, fingerprint
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.evaluation import report

WARNING = "THE NET WAS TRAINED ON FACES OF THIS FILE"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without their picture, which takes longer than all else."""
    monkeypatch.setattr(report, "draw_evaluation", lambda evaluation, path: None)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.h5"
    write_synthetic(path, 8, seed=0, people=4)
    return path


def save(path: Path, **metadata: Any) -> Path:
    arrays = {f"model.{name}": value for name, value in random_weights(AU).items()}
    save_checkpoint(path, arrays, describe(AU, **metadata))
    return path


def recorded(model: Path, faces: Path, folder: Path) -> dict[str, Any]:
    given = ["--data", str(faces), "--boxes", "none", "--output", str(folder)]
    assert main(["evaluate", str(model), *given]) == 0
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return content


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_an_exported_file_is_recognised_on_its_training_faces(
    faces: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"hash": "of both", "files": [FaceDataset(faces).hash, "another"], "faces": 16}
    data |= {"training": 14, "validation": 2, "split_by": "subject"}
    checkpoint = save(tmp_path / "run.safetensors", data=data)
    exported = tmp_path / f"au.{suffix}"
    assert main(["export", str(checkpoint), "--to", suffix, "--output", str(exported)]) == 0
    assert recorded(exported, faces, tmp_path)["trained_on"] is True
    assert WARNING in capsys.readouterr().out


def test_a_part_of_the_training_faces_is_recognised_and_the_part_held_out_is_not(
    tmp_path: Path,
) -> None:
    faces, parts = tmp_path / "faces.h5", tmp_path / "parts"
    write_synthetic(faces, 40, seed=5, people=20)
    dataset = FaceDataset(faces)
    rows = np.flatnonzero(np.isin(dataset.subjects, np.unique(dataset.subjects)[:15]))
    data = {
        "hash": "of all",
        "files": ["of all"],
        "fingerprint": fingerprint(face_digests(dataset)[rows]),
        "faces": 40,
    }
    data |= {"training": len(rows), "validation": 40 - len(rows), "split_by": "subject"}
    model = save(tmp_path / "run.safetensors", data=data)
    exported = tmp_path / "au.onnx"
    assert main(["export", str(model), "--to", "onnx", "--output", str(exported)]) == 0
    people = np.unique(dataset.subjects)
    lists = {"seen": people[:3], "unseen": people[15:], "rest": people[3:15]}
    lines = [f"{name},{part}" for part, names in lists.items() for name in names]
    (tmp_path / "who.csv").write_text("\n".join(lines) + "\n")
    split = ["data", "split", str(faces), "--output", str(parts)]
    assert main([*split, "--list", str(tmp_path / "who.csv")]) == 0
    joined = ["data", "merge", str(parts / "seen.h5"), str(parts / "unseen.h5")]
    assert main([*joined, "--output", str(parts / "both.h5")]) == 0
    for name, expected in (("seen", True), ("unseen", False), ("both", True)):
        for form in (model, exported):
            content = recorded(form, parts / f"{name}.h5", tmp_path)
            assert content["trained_on"] is expected


def test_the_faces_of_the_training_before_count_too(faces: Path, tmp_path: Path) -> None:
    init = {"hash": "1", "data": {"hash": FaceDataset(faces).hash}}
    for step in range(2):  # the one before, and the one before that
        tuned = save(tmp_path / f"{step}.safetensors", data={"hash": "mine"}, init=init)
        assert recorded(tuned, faces, tmp_path)["trained_on"] is True
        init = {"hash": "2", "data": {"hash": "theirs"}, "init": init}
    old = {"file": "run/checkpoint_best.safetensors", "hash": "3"}
    other = save(tmp_path / "other.safetensors", data={"hash": "mine"}, init=old)
    assert recorded(other, faces, tmp_path)["trained_on"] is False
