"""``mlx-faceau convert``: files there and back."""

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, random_weights, write_checkpoint

pytest.importorskip("torch")

from mlx_faceau.cli.main import main
from mlx_faceau.core.checkpoint import describe, load_checkpoint, save_checkpoint


@pytest.mark.parametrize("config", BOTH, ids=lambda config: config.kind)
def test_a_checkpoint_survives_the_original_s_format_bit_by_bit(tmp_path, capsys, config):
    source = write_checkpoint(tmp_path / "ours.safetensors", config)
    assert main(["convert", str(source), "--output", str(tmp_path / "theirs.pt")]) == 0
    again = tmp_path / "a new folder" / "again.safetensors"
    assert main(["convert", str(tmp_path / "theirs.pt"), "--output", str(again)]) == 0
    assert f"{config.kind}, width 0.25" in capsys.readouterr().out
    checkpoint = load_checkpoint(again)
    assert checkpoint.config == config
    weights = checkpoint.weights()
    for name, value in random_weights(config).items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)


def test_a_width_that_no_one_uses_must_be_named(tmp_path, capsys):
    from dataclasses import replace

    odd = replace(LANDMARK, width_mult=0.4)
    source = write_checkpoint(tmp_path / "odd.safetensors", odd)
    main(["convert", str(source), "--output", str(tmp_path / "odd.pt")])
    target = tmp_path / "back.safetensors"
    assert main(["convert", str(tmp_path / "odd.pt"), "--output", str(target)]) == 2
    assert "width_mult" in capsys.readouterr().err.replace("-", "_")
    named = ["convert", str(tmp_path / "odd.pt"), "--output", str(target), "--width-mult", "0.4"]
    assert main(named) == 0
    assert load_checkpoint(target).config == odd


def test_a_training_s_checkpoint_becomes_its_weights_alone(tmp_path, capsys):
    weights = random_weights(AU)
    arrays = {
        f"{part}.{name}": value for name, value in weights.items() for part in ("model", "ema")
    }
    arrays["optimizer.step"] = np.array([7])
    source = tmp_path / "run.safetensors"
    recorded = {"target_statistics": {"count": 1}, "data": {"faces": 9}, "progress": {"epoch": 3}}
    recorded |= {"init": {"hash": "1"}, "training": {"epochs": 5, "data": ["/home/me/faces.h5"]}}
    save_checkpoint(source, arrays, describe(AU, **recorded))
    target = tmp_path / "weights.safetensors"
    assert main(["convert", str(source), "--output", str(target)]) == 0
    plain = load_checkpoint(target)
    assert plain.arrays.keys() == {f"model.{name}" for name in weights}
    assert plain.metadata["source_hash"] == load_checkpoint(source).hash
    assert plain.metadata["data"] == {"faces": 9}
    assert plain.metadata["init"] == {"hash": "1"}
    assert plain.metadata["training"] == {"epochs": 5}  # no path of the machine
    assert plain.metadata["target_statistics"] == {"count": 1}
    assert "progress" not in plain.metadata
    assert main(["convert", str(source), "--output", str(source), "--force"]) == 2
    assert "is the source itself" in capsys.readouterr().err
    assert load_checkpoint(source).arrays.keys() == arrays.keys()


def test_what_cannot_be_converted_is_one_line_and_writes_nothing(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "ours.safetensors", AU)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK\x03\x04 cut")
    target = tmp_path / "out.safetensors"
    cases = {
        (str(source), "--output", str(tmp_path / "out.bin")): "must be .safetensors or .pt",
        (str(source), "--output", str(source)): "exists already; give --force",
        (str(broken), "--output", str(tmp_path / "out.pt")): "both files are .pt",
        (str(source), "--output", str(target), "--width-mult", "1"): "a checkpoint records its own",
        (str(broken), "--output", str(target)): "broken.pt: ",
        (str(tmp_path / "none.safetensors"), "--output", str(target)): "none.safetensors: ",
        (str(source), "--output", str(broken / "out.pt")): "broken.pt: ",
    }
    for arguments, message in cases.items():
        assert main(["convert", *arguments]) == 2
        error = capsys.readouterr().err
        assert (message in error, error.count("\n")) == (True, 1), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pt", "ours.safetensors"]


@pytest.mark.parametrize("crop", [None, "original", "standard"])
def test_an_imported_net_predicts_and_warns_unless_its_crop_is_the_standard_one(
    tmp_path, caplog, crop
):
    from mlx_faceau import load_au_predictor
    from mlx_faceau.convert.export_onnx import export_to_onnx
    from mlx_faceau.core.checkpoint import read_metadata

    ours = write_checkpoint(tmp_path / "ours.safetensors", AU)
    main(["convert", str(ours), "--output", str(tmp_path / "theirs.pt")])
    imported = tmp_path / "imported.safetensors"
    flag = ["--crop", crop] if crop else []
    assert main(["convert", str(tmp_path / "theirs.pt"), "--output", str(imported), *flag]) == 0
    assert read_metadata(imported)["crop"] == (crop or "unknown")
    pytest.importorskip("onnxruntime")
    export_to_onnx(imported, tmp_path / "net.onnx")
    names = {None: "a crop that is not recorded", "original": "the original tool's crop"}
    for path in (imported, tmp_path / "net.onnx"):
        caplog.clear()
        backend = "torch" if path == imported else "onnx"
        predicted = load_au_predictor(path, backend=backend).predict(
            np.zeros((112, 112, 3), np.uint8)
        )
        assert np.isfinite(predicted["au_intensities"]).all()
        warned = [r.message for r in caplog.records if "trained on" in r.message]
        assert len(warned) == (crop != "standard")
        assert all(names[crop] in message for message in warned)
    assert main(["convert", str(imported), "--output", "a.pt", "--crop", "standard"]) == 2
