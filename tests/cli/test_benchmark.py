import numpy as np
import pytest
from random_nets import AU, LANDMARK

pytest.importorskip("mlx_faceau.models", exc_type=ImportError)

from mlx_faceau.cli import benchmark, verify_nets
from mlx_faceau.cli.main import main
from mlx_faceau.train import exports


def test_whole_nets_are_compared_with_the_cpu(monkeypatch, capsys) -> None:
    real, computed = verify_nets.figures, []

    def figures(config):
        computed.append(real(config))
        return computed[-1]

    monkeypatch.setattr(verify_nets, "figures", figures)
    assert main(["benchmark", "--verify"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 + 3) + (2 + 1)
    assert all(line.endswith("passed") for line in lines)
    for found in computed:  # a net that gives the same for every image would always pass
        for name in found.keys() & verify_nets.MAX_ERROR.keys():
            assert np.ptp(found[name], axis=0).max() > 100 * verify_nets.BOUNDS[name]


def test_a_device_that_computes_otherwise_is_found_out(monkeypatch, capsys) -> None:
    calls = []

    def figures(config):
        calls.append(config.kind)
        scale = 1.0 if calls.count(config.kind) == 1 else 1.01  # "this device", then the CPU
        output = next(iter(config.output_shapes))
        return {"loss of the first step": np.array([2.0 * scale]), output: np.array([scale])}

    monkeypatch.setattr(verify_nets, "figures", figures)
    assert main(["benchmark", "--verify"]) == 1
    assert capsys.readouterr().out.count("FAILED") == 4


def test_backends_are_timed_or_reported_missing(monkeypatch, capsys) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    monkeypatch.setattr(benchmark, "_SECONDS_EACH", 0.01)
    onnx_alone = {".onnx": exports.FORMATS[".onnx"]}
    monkeypatch.setattr(exports, "FORMATS", onnx_alone)
    assert main(["benchmark", "--width-mult", "0.1", "--batch", "2"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name in ("mlx", "onnx", "torch"):
        timed = [row for row in rows if row[0] == name]
        assert len(timed) == 2
        assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in timed)
    assert sum(row[:3] == ["coreml", "-", "-"] for row in rows) == 2


def test_both_nets_of_a_combined_file_are_timed(onnx_file, monkeypatch, capsys) -> None:
    both = str(onnx_file(LANDMARK, AU))
    monkeypatch.setattr(benchmark, "_SECONDS_EACH", 0.01)
    assert main(["benchmark", both, "--batch", "2"]) == 0
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if line.endswith(f", {both}")]
    assert sorted(titles) == [f"au_prediction, {both}", f"landmark_pose, {both}"]
    assert sum(row.split()[0] == "onnx" for row in printed.splitlines()) == 2


def test_a_batch_below_one_is_bad_usage(capsys) -> None:
    assert main(["benchmark", "--batch", "0"]) == 2
    assert "--batch is 0" in capsys.readouterr().err


def test_a_width_for_models_that_have_one_is_bad_usage(capsys) -> None:
    assert main(["benchmark", "builtin", "--width-mult", "0.5"]) == 2
    assert "--width-mult times untrained nets" in capsys.readouterr().err
