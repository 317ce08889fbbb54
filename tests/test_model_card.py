"""The model card tells what is recorded, about this checkpoint, and nothing about others."""

import json
import re
from pathlib import Path

import pytest
from random_nets import AU, LANDMARK, random_weights, write_checkpoint
from wire import write_onnx

from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.checkpoint import BEST_NAME, describe, file_hash, save_checkpoint
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.errors import CheckpointError
from mlx_faceau.output.model_card import EVALUATION_NAME, write_model_card

LABELLER = {"labeller": "OpenFace CSV", "licence": "for research only"}
DATA = {"hash": "feed", "files": ["feed"], "faces": 10816, "people": 6138, "training": 9734}
DATA |= {"validation": 1082, "split_by": "subject", "labellers": [LABELLER]}
ANGLES = ("pitch", "yaw", "roll", "mean")


def figures(r: float) -> dict:
    unit = {"r": r, "ccc": r - 0.01, "icc31": r - 0.02, "mae": 0.3, "support": 70}
    return {"correlation": r, "mae": 0.3, "aus": dict.fromkeys(AU_NAMES, unit)}


def save(path: Path, config: ModelConfig = AU, **told: object) -> Path:
    arrays = {f"model.{name}": value for name, value in random_weights(config).items()}
    save_checkpoint(path, arrays, describe(config, **told))
    return path


def write_history(folder: Path, data_hash: str = "feed") -> None:
    """Three epochs, of which the second is the best."""
    epochs = [
        {"epoch": number, "validation": {"loss": loss}, "metrics": figures(r)}
        for number, loss, r in ((1, 0.9, 0.125), (2, 0.5, 0.432), (3, 0.7, 0.25))
    ]
    content = {"data": {"hash": data_hash}, "epochs": epochs}
    (folder / "training_history.json").write_text(json.dumps(content))


def write_evaluation(folder: Path, checkpoint: Path, r: float, **changes: object) -> None:
    model = {"file": "runs/au/au_prediction.onnx", "backend": "onnx", "precision": "int8"}
    content = {
        "model": model | {"checkpoint": file_hash(checkpoint)},
        "data": {"hash": "abc123"},
        "kind": "au_prediction",
        "trained_on": False,
        "summary": "1,054 faces of 423 subjects",
        "tables": [
            {"columns": ["accuracy", "net", "constant"], "rows": [["mean r", f"{r:.3f}", "0.000"]]},
            {"columns": ["part of the faces", "faces"], "rows": [["group a|b", "1"]]},
        ],
        "notes": ["yunet boxes: simulated"],
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
    assert (
        "1,054 faces of 423 subjects. SHA-256 of the labels and of eight images: `abc123`" in text
    )
    assert (
        "| accuracy | net | constant |\n| --- | ---: | ---: |\n| mean r | 0.637 | 0.000 |" in text
    )
    assert "| group a\\|b | 1 |" in text
    assert "- yunet boxes: simulated\n" in text
    assert "of these very faces" not in text


def test_the_measured_file_its_precision_and_backend_are_named(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637)
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "`au_prediction.onnx` (int8), run by the onnx backend" in text
    model = {"checkpoint": file_hash(checkpoint), "backend": "mlx"}  # of an older version
    for file, precision in ((BEST_NAME, "float32"), ("net.mlpackage", "precision not recorded")):
        write_evaluation(checkpoint.parent, checkpoint, 0.637, model=model | {"file": file})
        text = write_model_card(checkpoint, checkpoint.parent).read_text()
        assert f"`{file}` ({precision}), run by the mlx backend" in text


def test_an_evaluation_of_an_older_version_is_quoted_in_main_figures(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637)
    path = checkpoint.parent / EVALUATION_NAME
    content = json.loads(path.read_text())
    for name in ("summary", "tables", "notes"):
        del content[name]
    content |= {"faces": 1054, "net": figures(0.637), "jittered": figures(0.5)}
    content |= {"constant": figures(0.0), "intervals": {"correlation": [0.61, 0.66]}}
    path.write_text(json.dumps(content))
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "By `mlx-faceau evaluate`: 1,054 faces." in text
    assert "| AU correlation (mean r) | 0.637 [0.610, 0.660] | 0.500 | 0.000 |" in text
    assert "| AU12 Lip Corner Puller | 0.637 | 0.627 | 0.617 | 0.300 | 0.500 | 0.300 | 70 |" in text


def test_weights_taken_out_of_a_checkpoint_have_its_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    checkpoint = write_checkpoint(tmp_path / BEST_NAME, AU)
    exported = save(tmp_path / "net.safetensors", source_hash=file_hash(checkpoint))
    write_evaluation(tmp_path, checkpoint, 0.637)
    text = write_model_card(exported, tmp_path).read_text()
    assert "| mean r | 0.637 | 0.000 |" in text
    assert f"| `net.safetensors` | weights | float32 | `{file_hash(exported)}` |" in text


def test_an_evaluation_of_another_checkpoint_is_not_quoted(checkpoint: Path) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637, model={"checkpoint": "0" * 64})
    assert "Not measured." in write_model_card(checkpoint, checkpoint.parent).read_text()


@pytest.mark.parametrize("noticed", [True, False])
def test_an_evaluation_on_training_faces_is_called_that(tmp_path: Path, noticed: bool) -> None:
    """Of any stage, whether ``evaluate`` noticed or not."""
    pytest.importorskip("safetensors")
    before = {"file": "run", "hash": "1", "data": DATA | {"hash": "both", "files": ["abc123", "x"]}}
    checkpoint = save(tmp_path / BEST_NAME, data=DATA, init=before)
    write_evaluation(tmp_path, checkpoint, 0.99, trained_on=noticed)
    text = write_model_card(checkpoint, tmp_path).read_text()
    assert "**The net was trained on some of these very faces**" in text


DAMAGED = {
    "cut short": '{"model": ',
    "a list": "[1, 2]",
    "no text": b"\xff\xfe\x00",
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_evaluation_is_said_and_does_not_stop_the_card(
    checkpoint: Path, content: str | bytes
) -> None:
    data = content.encode() if isinstance(content, str) else content
    (checkpoint.parent / EVALUATION_NAME).write_bytes(data)
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert text.count("`evaluation.json` is damaged (") == 1
    assert "Not measured." in text


@pytest.mark.parametrize(
    "changes",
    [
        {"tables": 3},
        {"tables": [{"columns": ["a"], "rows": [[1]]}]},
        {"tables": [{"columns": ["a"], "rows": [], "sort": True}]},
        {"notes": 5},
        {"model": "net.onnx"},
    ],
)
def test_an_evaluation_of_other_types_is_damaged(checkpoint: Path, changes: dict) -> None:
    write_evaluation(checkpoint.parent, checkpoint, 0.637, **changes)
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "`evaluation.json` is damaged (" in text
    assert "Not measured." in text


def test_a_damaged_history_is_said(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    told = {"data": DATA, "training": {}, "progress": {"epoch": 2, "batch": 0}}
    checkpoint = save(tmp_path / BEST_NAME, **told)
    (tmp_path / "training_history.json").write_text('{"epochs": 3}')
    text = write_model_card(checkpoint, tmp_path).read_text()
    assert "`training_history.json` is damaged (" in text


@pytest.mark.parametrize(
    ("epoch", "r", "said"),
    [
        (1, "0.125", "after epoch 1; the best epoch was 2."),
        (2, "0.432", "after epoch 2, the faces that chose the epoch: expect a little less"),
        (3, "0.250", "after epoch 3; the best epoch was 2."),
    ],
)
def test_the_validation_after_the_checkpoints_own_epoch_stands_in(
    tmp_path: Path, epoch: int, r: str, said: str
) -> None:
    pytest.importorskip("safetensors")
    told = {"data": DATA, "training": {"overfit": 0}, "progress": {"epoch": epoch, "batch": 0}}
    checkpoint = save(tmp_path / f"checkpoint_epoch_{epoch:03d}.safetensors", **told)
    write_history(tmp_path)
    text = write_model_card(checkpoint, tmp_path).read_text()
    assert said in text
    assert f"| AU correlation (mean r) | {r} |" in text


@pytest.mark.parametrize(
    ("progress", "data_hash"),
    [
        ({"epoch": 2, "batch": 5}, "feed"),  # saved amid the third epoch
        ({"epoch": 4, "batch": 0}, "feed"),  # an epoch that the history does not have
        ({"epoch": 2, "batch": 0}, "another file's"),
        (None, "feed"),
    ],
)
def test_a_history_without_the_checkpoints_epoch_is_not_quoted(
    tmp_path: Path, progress: dict | None, data_hash: str
) -> None:
    pytest.importorskip("safetensors")
    told = {"data": DATA, "training": {}} | ({} if progress is None else {"progress": progress})
    checkpoint = save(tmp_path / BEST_NAME, **told)
    write_history(tmp_path, data_hash)
    assert "Not measured." in write_model_card(checkpoint, tmp_path).read_text()


def test_faces_that_were_overfitted_are_called_that(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    told = {"data": DATA, "training": {"overfit": 8}, "progress": {"epoch": 2, "batch": 0}}
    checkpoint = save(tmp_path / BEST_NAME, **told)
    write_history(tmp_path)
    text = write_model_card(checkpoint, tmp_path).read_text()
    assert "**it was trained on them**" in text


def test_what_the_checkpoint_records_of_its_training_is_told(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    pose = {"mean": [3, 0.1, 0, -0.001, 55, 55], "deviation": [1, 0.1, 0.2, 0.05, 2, 2]}
    path = save(
        tmp_path / "net.safetensors",
        LANDMARK,
        data=DATA,
        training={"framework": "mlx", "epochs": 40, "lr": 0.001, "ema": None},
        target_statistics={"count": 9734, "global_params": pose},
    )
    text = write_model_card(path, tmp_path).read_text()
    assert "10,816 faces of 6,138 subjects, as far as they are named: 9,734 to train on" in text
    assert "pitch 6 ± 6, yaw 0 ± 11, roll 0 ± 3" in text
    assert "Trained with framework mlx, epochs 40, lr 0.001." in text
    assert "- OpenFace CSV: for research only\n" in text
    assert "Stage" not in text
    assert "ask" not in text


def test_every_stage_is_listed_with_the_licences_of_all_labels(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    other = {"labeller": "pyfaceau", "licence": "CC BY-NC 4.0"}
    first = {"hash": "1" * 64, "data": DATA | {"labellers": [other, LABELLER], "faces": 20816}}
    first["training"] = {"epochs": 40}
    second = {"file": "run", "hash": "2" * 64, "data": DATA | {"labellers": []}, "init": first}
    told = {"data": DATA | {"faces": 300}, "training": {"epochs": 7}, "init": second}
    text = write_model_card(save(tmp_path / BEST_NAME, **told), tmp_path).read_text()
    stages = [line for line in text.splitlines() if line.startswith("**Stage ")]
    assert [line.split()[:3] for line in stages] == [
        ["**Stage", "1.**", "20,816"],
        ["**Stage", "2.**", "10,816"],
        ["**Stage", "3.**", "300"],
    ]
    assert stages[0].endswith("Trained with epochs 40.")
    assert "- OpenFace CSV: for research only\n- pyfaceau: CC BY-NC 4.0\n" in text
    assert "Some of the training files do not say who labelled them" in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"data": {"hash": "feed"}}, "Not recorded: the weights were imported, or trained by"),
        ({"data": {**DATA, "faces": None}}, "Not recorded: the weights were imported"),
        ({"target_statistics": {"au_intensities": 5}}, "Mean and deviation of its labels are dam"),
        ({"package_version": None}, "unknown"),
    ],
)
def test_what_a_checkpoint_records_in_part_stops_no_card(
    tmp_path: Path, told: dict[str, object], words: str
) -> None:
    path = save(tmp_path / BEST_NAME, **told)
    assert words in write_model_card(path, tmp_path).read_text()


def test_of_an_older_checkpoints_start_the_hash_is_told(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    start = {"file": "run/checkpoint_best.safetensors", "hash": "1" * 64}
    path = save(tmp_path / BEST_NAME, data=DATA, training={"epochs": 7}, init=start)
    text = write_model_card(path, tmp_path).read_text()
    assert f"**Stage 1.** Not recorded: the weights (SHA-256 `{start['hash']}`) were" in text
    assert "**Stage 2.** 10,816 faces" in text
    assert "An earlier stage is not recorded: ask where its weights come from." in text


def test_the_exported_files_of_this_net_are_listed_with_their_hash(checkpoint: Path) -> None:
    folder = checkpoint.parent
    own = write_onnx(folder / "au_prediction.onnx", describe(AU, source_hash=file_hash(checkpoint)))
    write_onnx(folder / "landmark_pose.onnx", describe(LANDMARK, source_hash="0" * 64))
    (folder / "other.onnx").write_bytes(b"\x00" * 40)
    (folder / ".au_prediction.onnx.k1l.onnx").write_bytes(own.read_bytes())  # of a killed export
    text = write_model_card(checkpoint, folder).read_text()
    assert f"| `au_prediction.onnx` | ONNX | float32 | `{file_hash(own)}` |" in text
    assert "landmark_pose.onnx" not in text
    assert "other.onnx" not in text
    assert "k1l" not in text


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
    assert "was written by another program" in caplog.text


def test_a_folder_in_the_card_s_place_stops_no_export(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "MODEL_CARD.md").mkdir()
    write_model_card(checkpoint, tmp_path)
    assert "was written by another program" in caplog.text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_somebody_wrote_around_the_sections_stays(
    checkpoint: Path, tmp_path: Path, end: str
) -> None:
    landmarks = write_checkpoint(tmp_path / "landmarks.safetensors", LANDMARK)
    for net in (checkpoint, landmarks):
        card = write_model_card(net, tmp_path)
    section = re.compile("<!-- mlx-faceau .*?<!-- end of .*? -->", re.DOTALL)
    first, second = section.findall(card.read_text())
    mine = [f"# Caf\u00e9{end}{end}", f"{end}between{end}", f"{end}after, \\1, no newline"]
    edited = second.replace("# AUPredictionNet", "# Mine").replace("\n", end)
    card.write_bytes(f"{mine[0]}{first}{mine[1]}{edited}{mine[2]}".encode())
    write_model_card(checkpoint, tmp_path)
    expected = f"{mine[0]}{first}{mine[1]}{second}{mine[2]}"
    assert card.read_bytes().decode() == expected
    assert "every export rewrites this part" in second.splitlines()[0]


def test_a_second_nets_section_stands_beside_the_first_and_what_was_written_around_it_stays(
    checkpoint: Path, tmp_path: Path
) -> None:
    landmarks = write_checkpoint(tmp_path / "landmarks.safetensors", LANDMARK)
    for nets in ((checkpoint, landmarks), (landmarks, checkpoint)):
        card = write_model_card(nets[0], tmp_path)
        card.write_text(f"# Mine\n{card.read_text()}# The end\n")
        text = write_model_card(nets[1], tmp_path).read_text()
        order = ("# Mine", "# UnifiedLandmarkPoseNet", "# AUPredictionNet", "# The end")
        assert [text.count(title) for title in order] == [1] * 4
        assert sorted(order, key=text.index) == list(order)
        card.unlink()


def test_a_card_of_an_older_version_is_renewed_in_its_place(checkpoint: Path) -> None:
    card = checkpoint.parent / "MODEL_CARD.md"
    card.write_text("<!-- mlx-faceau au_prediction -->\nold\n<!-- end of au_prediction -->\n")
    text = write_model_card(checkpoint, checkpoint.parent).read_text()
    assert "old\n" not in text
    assert text.count("# AUPredictionNet") == 1


def test_a_card_that_is_no_text_is_left_alone_with_one_line(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = tmp_path / "MODEL_CARD.md"
    card.write_bytes("# Caf\u00e9\n".encode("latin-1"))
    assert write_model_card(checkpoint, tmp_path) == card
    assert card.read_bytes() == b"# Caf\xe9\n"
    assert [
        record.message.count("was written by another program") for record in caplog.records
    ] == [1]


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        write_model_card(tmp_path / "none.safetensors", tmp_path)
