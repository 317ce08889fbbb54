"""The model card tells what is recorded, about this checkpoint, and nothing about others."""

import json
from pathlib import Path

import pytest
from lively import AU, LANDMARK, lively_weights, write_checkpoint

from mlx_faceau.checkpoint import BEST_NAME, describe, file_hash, save_checkpoint
from mlx_faceau.errors import CheckpointError
from mlx_faceau.facs import AU_NAMES
from mlx_faceau.model_card import write_model_card
from mlx_faceau.recorded_accuracy import EVALUATION_NAME

LABELLER = {"labeller": "OpenFace CSV", "licence": "for research only"}


def figures(r: float) -> dict:
    unit = {"r": r, "ccc": r - 0.01, "icc31": r - 0.02, "mae": 0.3, "support": 70}
    return {"correlation": r, "mae": 0.3, "aus": dict.fromkeys(AU_NAMES, unit)}


def write_evaluation(folder: Path, checkpoint: Path, r: float, **changes: object) -> None:
    content = {
        "model": {"checkpoint": file_hash(checkpoint)},
        "data": {"hash": "abc123"},
        "kind": "au_prediction",
        "faces": 1054,
        "people": 423,
        "people_by": "subject",
        "trained_on": False,
        "net": figures(r),
        "jittered": figures(0.5),
        "boxes": {"name": "yunet boxes", "about": "simulated", "metrics": figures(0.45)},
        "constant": figures(0.0) | {"mae": 0.515},
        "intervals": {"correlation": [0.61, 0.66], "aus": {"AU12_r": {"r": [0.85, 0.93]}}},
    }
    (folder / EVALUATION_NAME).write_text(json.dumps(content | changes))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    pytest.importorskip("safetensors")
    return write_checkpoint(tmp_path / BEST_NAME, AU)


def test_without_figures_the_card_says_so_and_how_to_get_them(checkpoint: Path) -> None:
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "# AUPredictionNet" in text
    assert f"SHA-256: `{file_hash(checkpoint)}`" in text
    assert "Not measured. `mlx-faceau evaluate`" in text
    assert "Not recorded: the weights were imported" in text
    for title in ("Training data", "Accuracy", "Intended use", "Limits", "Licence"):
        assert f"## {title}\n" in text


def test_an_evaluation_of_this_checkpoint_is_quoted(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637)
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "1,054 faces of 423 subjects (data SHA-256 `abc123`)" in text
    line = next(line for line in text.splitlines() if line.startswith("| AU correlation"))
    assert "| 0.637 [0.610, 0.660] | 0.500 | 0.450 | 0.000 |" in line
    assert "| AU12 Lip Corner Puller | 0.637 [0.850, 0.930] | 0.627 | 0.617 | 0.300 |" in text
    assert "yunet boxes: simulated" in text


def test_an_evaluation_of_another_checkpoint_is_not_quoted(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637, model={"checkpoint": "0" * 64})
    assert "Not measured." in write_model_card(checkpoint, checkpoint.parent).read_text()


def test_an_evaluation_on_the_training_file_is_called_that(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.99, trained_on=True)
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "**that the net was trained on**" in text


def test_a_damaged_evaluation_does_not_stop_the_card(checkpoint: Path) -> None:
    (checkpoint.parent / EVALUATION_NAME).write_text('{"model": ')
    assert "Not measured." in write_model_card(checkpoint, checkpoint.parent).read_text()


def test_the_historys_best_epoch_stands_in_and_is_called_optimistic(checkpoint: Path) -> None:
    epochs = [
        {"epoch": number, "validation": {"loss": loss}, "metrics": figures(r)}
        for number, loss, r in ((1, 0.9, 0.1), (2, 0.5, 0.432), (3, 0.7, 0.2))
    ]
    history = checkpoint.parent / "training_history.json"
    history.write_text(json.dumps({"epochs": epochs}))
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "(epoch 2), the faces that chose the epoch" in text
    assert "0.432" in text


def test_what_the_checkpoint_records_of_its_training_is_told(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    pose = {"mean": [3, 0.1, 0, 0, 55, 55], "deviation": [1, 0.1, 0.2, 0.05, 2, 2]}
    metadata = describe(
        LANDMARK,
        data={"hash": "feed", "faces": 10816, "people": 6138, "training": 9734,
              "validation": 1082, "split_by": "subject", "labellers": [LABELLER]},
        training={"framework": "mlx", "epochs": 40, "lr": 0.001, "ema": None},
        target_statistics={"count": 9734, "global_params": pose},
    )  # fmt: skip
    arrays = {f"model.{name}": value for name, value in lively_weights(LANDMARK).items()}
    save_checkpoint(tmp_path / "net.safetensors", arrays, metadata)
    text = write_model_card(tmp_path / "net.safetensors", tmp_path).read_text()
    assert "10,816 faces of 6,138 people, as far as they are named: 9,734 to train on" in text
    assert "pitch 6 ± 6, yaw 0 ± 11, roll 0 ± 3" in text
    assert "Trained with framework mlx, epochs 40, lr 0.001." in text
    assert "- OpenFace CSV: for research only\n" in text


def test_the_exported_files_of_this_net_are_listed_with_their_hash(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    for folder in model_folders.values():
        for file in folder.glob("*.onnx"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other.onnx").write_bytes(b"\x00" * 40)
    text = write_model_card(model_folders["au_prediction"], tmp_path).read_text()
    digest = file_hash(tmp_path / "au_prediction.onnx")
    assert f"| `au_prediction.onnx` | ONNX | float32 | `{digest}` |" in text
    assert "landmark_pose.onnx" not in text
    assert "other.onnx" not in text


def test_both_nets_in_one_folder_get_one_card_and_renewing_one_keeps_the_other(
    checkpoint: Path, tmp_path: Path
) -> None:
    landmarks = write_checkpoint(tmp_path / "landmarks.safetensors", LANDMARK)
    first = write_model_card(checkpoint, tmp_path).read_text()
    both = write_model_card(landmarks, tmp_path).read_text()
    assert first in both
    assert both.index("# UnifiedLandmarkPoseNet") < both.index("# AUPredictionNet")
    assert write_model_card(checkpoint, tmp_path).read_text() == both


def test_a_card_somebody_else_wrote_is_left_alone(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("# Mine\n")
    write_model_card(checkpoint, tmp_path)
    assert card.read_text() == "# Mine\n"
    assert "is not ours and stays as it is" in caplog.text


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        write_model_card(tmp_path / "none.safetensors", tmp_path)
