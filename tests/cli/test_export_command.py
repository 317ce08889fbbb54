"""``mlx-faceau export``: files, figures and exit status."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from random_nets import AU, random_weights

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mlx_faceau.cli.main import main
from mlx_faceau.convert import check as accuracy
from mlx_faceau.convert import check as check_module
from mlx_faceau.convert import export_coreml
from mlx_faceau.convert.check import Check, Row
from mlx_faceau.core.checkpoint import load_checkpoint


@pytest.fixture
def run_folder(model_folders, tmp_path) -> Path:
    """A run's folder that holds a checkpoint alone."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(model_folders["au_prediction"] / "checkpoint_best.safetensors", folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_onnx_goes_beside_the_checkpoint_with_its_check_printed(run_folder, model_folders, capsys):
    assert main(["export", str(run_folder)]) == 0
    assert names(run_folder) == [
        "MODEL_CARD.md",
        "au_prediction.onnx",
        "checkpoint_best.safetensors",
        "detector_boxes.json",
    ]
    same = model_folders["au_prediction"] / "au_prediction.onnx"
    assert (run_folder / "au_prediction.onnx").read_bytes() == same.read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{run_folder}/au_prediction.onnx: ")
    assert lines[2].split()[:3] == ["ONNX", "Runtime", "au_intensities"]
    assert lines[2].endswith("ok")


def test_several_formats_go_to_a_folder_that_is_made(run_folder, tmp_path, monkeypatch):
    given = {}

    def fake(source, path, **options):
        given.update(kind=source.kind, path=path, **options)
        path.mkdir()
        return Check(path, options["precision"], ())

    monkeypatch.setattr(export_coreml, "export_to_coreml", fake)
    target = tmp_path / "new" / "out"
    arguments = ["--to", "safetensors,coreml", "--precision", "float32", "--output", str(target)]
    assert main(["export", str(run_folder), *arguments]) == 0
    assert names(target) == [
        "MODEL_CARD.md",
        "au_prediction.mlpackage",
        "au_prediction.safetensors",
        "detector_boxes.json",
    ]
    package = target / "au_prediction.mlpackage"
    assert given == {
        "kind": "au_prediction",
        "path": package,
        "precision": "float32",
        "input": "tensor",
        "batch": 1,
        "faces": None,
        "force": False,
    }


def test_plain_weights_are_the_net_s_and_name_their_source(run_folder):
    assert main(["export", str(run_folder), "--to", "safetensors"]) == 0
    exported = load_checkpoint(run_folder / "au_prediction.safetensors")
    for name, value in random_weights(AU).items():
        np.testing.assert_array_equal(exported.weights()[name], value)
    assert set(exported.arrays) == {f"model.{name}" for name in random_weights(AU)}
    assert exported.metadata["source_hash"] == load_checkpoint(run_folder).hash


def test_output_can_be_the_one_file_and_the_opset_another(run_folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    target = tmp_path / "mine.onnx"
    options = ["--to", "onnx,onnx", "--opset", "15"]  # named twice, it is one all the same
    assert main(["export", str(run_folder), *options, "--output", str(target)]) == 0
    assert onnx.load(target).opset_import[0].version == 15


def test_a_failed_check_exits_with_1_prints_the_table_and_leaves_nothing(
    run_folder, monkeypatch, capsys
):
    def failing(path, source, crops):
        row = Row("ONNX Runtime", "au_intensities", 0.5, 0.2, 0.3, 1e-6, 1e-4, "max")
        return Check(path, "float32", (row,))

    monkeypatch.setattr(accuracy, "check_export", failing)
    assert main(["export", str(run_folder)]) == 1
    assert names(run_folder) == ["checkpoint_best.safetensors"]
    printed = capsys.readouterr()
    assert "FAILED" in printed.out
    assert printed.err.count("\n") == 1
    assert "au_prediction.onnx fails its check and was not written" in printed.err
    (run_folder / "au_prediction.onnx").touch()  # of another checkpoint: no card of this one
    assert main(["export", str(run_folder)]) == 1
    assert names(run_folder) == ["au_prediction.onnx", "checkpoint_best.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx,tflite"], "unknown 'tflite', expected onnx, coreml, safetensors"),
        (["--to", "safetensors", "--precision", "float16"], "weights alone have no input"),
        (["--to", "coreml", "--opset", "17"], "opsets are of ONNX files"),
        (["--to", "coreml", "--input", "uint8"], "no uint8 arrays; take --input image"),
        (["--to", "coreml", "--batch", "dynamic"], "off the Neural Engine"),
        (["--input", "image"], "ONNX has no image type; take --input uint8"),
        (["--batch", "0"], "batch is 0, expected dynamic or a whole number in [1, 1024]"),
        (["--precision", "int8"], "--precision int8 needs --calibration FILE.h5"),
        (["--calibration", "a.h5"], "--calibration is for --precision int8"),
        (["--force"], "--force is for --precision int8"),
        (["--combine", "a.pt", "b.pt"], "--combine takes both nets, LANDMARKS AU, or builtin"),
        (["--combine", "a.pt"], "--combine takes both nets, LANDMARKS AU, or builtin"),
        (["--opset", "99"], "opset is 99, expected a whole number in [12, 21]"),
        (["--to", "onnx", "--output", "a.mlpackage"], "is not the one file of --to onnx"),
        (["--to", "onnx,coreml", "--output", "a.onnx"], "is not the one file of --to onnx,coreml"),
        (["--width-mult", "0.5"], "a width is for .pt files"),
    ],
)
def test_bad_usage_exits_with_2_and_one_line(run_folder, capsys, arguments, message):
    assert main(["export", str(run_folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert names(run_folder) == ["checkpoint_best.safetensors"]


def test_the_checkpoint_is_never_overwritten_by_its_weights(run_folder, capsys):
    checkpoint = run_folder / "checkpoint_best.safetensors"
    arguments = ["--to", "safetensors", "--output", str(checkpoint)]
    assert main(["export", str(checkpoint), *arguments]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err
    named = checkpoint.rename(run_folder / "au_prediction.safetensors")
    whole = named.read_bytes()
    for output in ([], ["--output", str(run_folder)]):
        options = ["--to", "safetensors", "--precision", "float16-weights", *output]
        assert main(["export", str(named), *options]) == 2
        assert f"{named} is the checkpoint itself" in capsys.readouterr().err
    assert named.read_bytes() == whole
    assert names(run_folder) == [named.name]


def test_missing_and_truncated_checkpoints_exit_with_2(run_folder, tmp_path, capsys):
    half = tmp_path / "half.safetensors"
    half.write_bytes((run_folder / "checkpoint_best.safetensors").read_bytes()[:100_000])
    for path in (half, tmp_path / "none.safetensors", tmp_path):
        assert main(["export", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_both_nets_go_into_one_file(model_folders, tmp_path, capsys):
    folders = [str(model_folders[kind]) for kind in ("landmark_pose", "au_prediction")]
    target = str(tmp_path / "both")
    assert main(["export", "--combine", *folders, "--output", target, "--input", "uint8"]) == 0
    assert names(tmp_path / "both") == ["MODEL_CARD.md", "combined.onnx", "detector_boxes.json"]
    table = capsys.readouterr().out
    assert all(name in table for name in ("landmarks", "local_params", "au_intensities"))
    assert main(["export", "--combine", *reversed(folders), "--output", target]) == 2
    assert "got au_prediction and landmark_pose" in capsys.readouterr().err
    assert main(["export", "--combine", *folders, "--to", "safetensors"]) == 2
    assert "a checkpoint holds one net" in capsys.readouterr().err
    words = ["export", "builtin", "--combine", "--to", "safetensors", "--output", target]
    assert main(words) == 2
    assert "a checkpoint holds one net" in capsys.readouterr().err


def test_int8_is_calibrated_and_measured_on_people_of_the_file(
    run_folder, tmp_path, monkeypatch, capsys
):
    from mlx_faceau.data.synthetic.people import write_synthetic

    monkeypatch.setattr(check_module, "INT8_SHARE", float("inf"))  # a random net, which it ruins
    monkeypatch.setattr(check_module, "INT8_CHANGE", {"au_intensities": 1e-9})
    write_synthetic(tmp_path / "faces.h5", 24, seed=0)
    asked = ["--precision", "int8", "--calibration", str(tmp_path / "faces.h5"), "--force"]
    assert main(["export", str(run_folder), *asked]) == 0
    printed = capsys.readouterr().out
    assert "error against labels" in printed
    assert "LOST" in printed
    assert "au_prediction.onnx" in names(run_folder)


def test_held_out_people_are_not_calibrated_on(tmp_path):
    from mlx_faceau.cli.export import read_faces
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.synthetic.people import write_synthetic

    path = tmp_path / "faces.h5"
    write_synthetic(path, 40, seed=0, people=8)
    dataset = FaceDataset(path)
    faces = read_faces(str(path), None, ["au_intensities"])
    images = dataset.read_images(range(40))[..., ::-1]
    people = [
        {
            dataset.subjects[i]
            for i, image in enumerate(images)
            if (image == crops).all((1, 2, 3)).any()
        }
        for crops in (faces.calibration, faces.crops)
    ]
    assert people[0]
    assert people[1]
    assert not people[0] & people[1]
    assert faces.hash == dataset.hash
    other = read_faces(str(path), str(path), ["au_intensities"])
    assert len(other.calibration) == len(other.crops) == 40
    np.testing.assert_array_equal(other.labels["au_intensities"], dataset.labels["au_intensities"])
