import numpy as np
import pytest

pytest.importorskip("mlx_faceau.models", exc_type=ImportError)

from mlx_faceau.cli import benchmark, verify_nets
from mlx_faceau.cli.main import main
from mlx_faceau.models import depthwise, mx
from mlx_faceau.models import kernel_check as verify
from mlx_faceau.train import exports

SHAPES = [(7, 8, 1), (7, 8, 2), (6, 4, 2)]


def test_verification_expects_what_conv2d_and_its_derivatives_give() -> None:
    for shape in SHAPES:
        case = verify.Case(shape)
        stride, channels = case.stride, shape[1]

        def convolve(x, w, stride=stride, channels=channels):
            return mx.conv2d(x, w, stride=stride, padding=1, groups=channels)

        arrays = [mx.array(case.x), mx.array(case.w)]
        outputs, gradients = mx.vjp(convolve, arrays, [mx.array(case.cotangent)])
        wanted = (case.forward(), case.input_grad(), case.weight_grad())
        for got, want in zip(outputs + gradients, wanted, strict=True):
            np.testing.assert_allclose(np.array(got), want, atol=1e-5 * np.abs(want).max())


def test_every_form_passes_and_one_of_each_piece_is_in_use() -> None:
    reports = verify.verify_depthwise(SHAPES)
    assert all(report.passed and report.milliseconds > 0 for report in reports)
    assert [r.piece for r in reports if r.chosen] == ["forward", "input_grad", "weight_grad"]


def test_a_wrong_kernel_fails_the_command(monkeypatch, capsys) -> None:
    right = depthwise.weight_grad_builtin
    monkeypatch.setattr(verify, "shapes_of_both_nets", lambda: iter(SHAPES))
    monkeypatch.setattr(depthwise, "weight_grad_builtin", lambda *a: right(*a)[:, ::-1])
    assert main(["benchmark", "--verify"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(lines) == 1
    assert "weight_grad" in lines[0]


def test_whole_nets_are_compared_with_the_cpu(monkeypatch, capsys) -> None:
    monkeypatch.setattr(verify, "shapes_of_both_nets", lambda: iter(SHAPES))
    assert main(["benchmark", "--verify"]) == 0
    block = capsys.readouterr().out.partition("against the CPU\n")[2]
    assert len(block.splitlines()) == (2 + 3) + (2 + 1)
    assert block.count("passed") == 8


def test_a_device_that_computes_otherwise_is_found_out(monkeypatch) -> None:
    calls = []

    def figures(config):
        calls.append(config.kind)
        scale = 1.0 if calls.count(config.kind) == 1 else 1.01  # "this device", then the CPU
        yield "loss of the first step", np.array([2.0 * scale])
        yield next(iter(config.output_shapes)), np.array([scale])

    monkeypatch.setattr(verify_nets, "_figures", figures)
    assert [report.passed for report in verify_nets.verify_nets()] == [False] * 4


def test_the_weights_compared_answer_every_image_otherwise() -> None:
    for config_class in verify_nets.CONFIGS.values():
        figures = dict(verify_nets._figures(config_class(width_mult=0.25)))
        for name in config_class().output_shapes:
            assert np.ptp(figures[name], axis=0).max() > 100 * verify_nets.BOUNDS[name]


def test_backends_are_timed_or_said_to_be_missing(monkeypatch, capsys) -> None:
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


def test_a_batch_below_one_is_bad_usage(capsys) -> None:
    assert main(["benchmark", "--batch", "0"]) == 2
    assert "--batch is 0" in capsys.readouterr().err
