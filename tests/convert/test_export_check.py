"""The check of exported files: what passes, and that each classic mistake fails."""

import dataclasses
import json
import sys
from functools import cache

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, random_crops, random_weights

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mlx_faceau.convert import check as check_module  # noqa: E402
from mlx_faceau.convert import check as exported  # noqa: E402
from mlx_faceau.convert.check import (  # noqa: E402
    CalibrationFaces,
    check_export,
    probe_crops,
)
from mlx_faceau.convert.mil import Port, read_mlpackage  # noqa: E402
from mlx_faceau.convert.source_model import SourceModel  # noqa: E402
from mlx_faceau.core.artifact_metadata import METADATA_KEY  # noqa: E402
from mlx_faceau.core.checkpoint import describe  # noqa: E402
from mlx_faceau.errors import ExportError  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
read_once = cache(read_mlpackage)
KINDS = pytest.mark.parametrize("kind", BY_KIND)
LAST = {"landmark_pose": "landmark_head.layers.2", "au_prediction": "au_head.layers.2"}


def source(config) -> SourceModel:
    return SourceModel(config, random_weights(config), describe(config, source_hash="0"))


def swapped_channels(weights, kind):
    name = "backbone.stem.conv.weight"
    return {name: np.ascontiguousarray(weights[name][..., ::-1])}


def wrong_scale(weights, kind):
    name = "backbone.stem.conv.weight"
    return {name: weights[name] * 255}


def two_outputs_swapped(weights, kind):
    def swap(values):
        return values[[1, 0, *range(2, len(values))]]

    return {
        f"{LAST[kind]}.{part}": swap(weights[f"{LAST[kind]}.{part}"]) for part in ("weight", "bias")
    }


def dropped_layer(weights, kind):
    """The second block of the last repeated stage answers nothing: its residual input is left."""
    name = "backbone.blocks.14.project.norm"
    return {
        f"{name}.{part}": np.zeros_like(weights[f"{name}.{part}"]) for part in ("weight", "bias")
    }


MISTAKES = pytest.mark.parametrize(
    "mistake", [swapped_channels, wrong_scale, two_outputs_swapped, dropped_layer]
)


def broken(good: SourceModel, mistake) -> SourceModel:
    weights = {**good.weights, **mistake(good.weights, good.config.kind)}
    return dataclasses.replace(good, weights=weights)


@KINDS
def test_a_good_file_passes_with_figures_beside_torch_s_own(model_folders, kind):
    folder = model_folders[kind]
    check = check_export(folder / f"{kind}.onnx", folder, random_crops(3))
    assert check.passed
    assert [row.output for row in check.rows] == list(BY_KIND[kind].output_shapes)
    for row in check.rows:
        assert row.runtime == "ONNX Runtime"
        assert 0 <= row.mean_error <= row.max_error <= row.limit
        assert 0 < row.own_error < row.limit
    lines = check.table().splitlines()
    assert len(lines) == 1 + len(check.rows)
    assert all(line.endswith("ok") for line in lines[1:])


@KINDS
@MISTAKES
def test_an_onnx_file_with_a_classic_mistake_fails(model_folders, kind, mistake):
    """The file is right, the net it is said to come from is not: the difference is the same."""
    path = model_folders[kind] / f"{kind}.onnx"
    check = check_export(path, broken(source(BY_KIND[kind]), mistake))
    assert not all(row.passed for row in check.rows)


@KINDS
@MISTAKES
def test_a_core_ml_package_with_a_classic_mistake_fails(
    core_ml_packages, monkeypatch, kind, mistake
):
    monkeypatch.setattr(exported, "read_mlpackage", read_once)
    check = check_export(core_ml_packages[kind], broken(source(BY_KIND[kind]), mistake))
    assert not all(row.passed for row in check.rows)


@KINDS
def test_a_core_ml_package_passes_on_given_crops(core_ml_packages, kind):
    package = core_ml_packages[kind]
    check = check_export(package, package.parent / "net.safetensors", random_crops(2))
    assert check.passed
    assert check.precision == {"landmark_pose": "float32", "au_prediction": "float16"}[kind]
    assert check.rows[0].runtime == "MIL evaluator"


def test_what_core_ml_refuses_to_run_is_an_export_error(core_ml_packages, monkeypatch):
    if sys.platform == "darwin":
        pytest.skip("Core ML runs it")
    monkeypatch.setattr(check_module.platform, "system", lambda: "Darwin")
    package = core_ml_packages["au_prediction"]
    with pytest.raises(ExportError, match="Core ML cannot run it"):
        check_export(package, package.parent / "net.safetensors", random_crops(1))


def test_float16_outputs_of_an_onnx_file_fail(model_folders, tmp_path):
    model = onnx.load(model_folders["au_prediction"] / "au_prediction.onnx")
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["wide" if name == output.name else name for name in node.output]
    half = onnx.TensorProto.FLOAT16
    model.graph.node.append(onnx.helper.make_node("Cast", ["wide"], [output.name], to=half))
    output.type.tensor_type.elem_type = half
    onnx.save(model, tmp_path / "a.onnx")
    check = check_export(tmp_path / "a.onnx", model_folders["au_prediction"])
    assert check.problems == (
        "output au_intensities is float16 ('batch', 17), expected float32 (batch, 17)",
    )
    assert not check.passed


def test_float16_outputs_of_a_core_ml_package_fail(core_ml_packages, monkeypatch):
    package = core_ml_packages["au_prediction"]
    program = read_mlpackage(package)
    (port,) = program.outputs
    half = dataclasses.replace(program, outputs=(dataclasses.replace(port, dtype="float16"),))
    monkeypatch.setattr(exported, "read_mlpackage", lambda path: half)
    check = check_export(package, package.parent / "net.safetensors")
    assert not check.passed
    assert "output au_intensities is float16" in check.failures()


def test_outputs_in_another_order_fail(model_folders, tmp_path):
    model = onnx.load(model_folders["landmark_pose"] / "landmark_pose.onnx")
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([outputs[1], outputs[0], outputs[2]])
    onnx.save(model, tmp_path / "a.onnx")
    check = check_export(tmp_path / "a.onnx", model_folders["landmark_pose"])
    assert check.problems[0].startswith("the outputs are ['global_params', 'landmarks'")


def test_action_units_named_in_another_order_fail(model_folders, tmp_path):
    model = onnx.load(model_folders["au_prediction"] / "au_prediction.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    metadata["au_names"].reverse()
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, tmp_path / "a.onnx")
    check = check_export(tmp_path / "a.onnx", model_folders["au_prediction"])
    assert not check.passed
    assert "the metadata's au_names is ['AU45_r'" in check.failures()


def test_a_file_of_another_checkpoint_fails_by_its_hash(model_folders):
    good = source(AU)
    check = check_export(model_folders["au_prediction"] / "au_prediction.onnx", good)
    assert all(row.passed for row in check.rows)
    assert "the metadata's source_hash" in check.failures()


@pytest.mark.parametrize("count", [0, 1])
def test_one_crop_suffices_and_none_is_refused(model_folders, count):
    folder = model_folders["au_prediction"]
    if count:
        assert check_export(folder / "au_prediction.onnx", folder, random_crops(1)).passed
        return
    with pytest.raises(ValueError, match="no crops to compare on"):
        check_export(folder / "au_prediction.onnx", folder, random_crops(0))


def int8_row():
    return check_module._compare(
        "ONNX Runtime",
        ["au_intensities"],
        [np.array([[0.0, 1.5], [2.0, 1.5]])],
        [np.array([[0.0, 1.0], [2.0, 1.0]])],
        [np.array([[0.0, 1.0], [2.0, 1.0]])],
        "int8",
    )[0]


def test_an_int8_file_is_held_to_its_worst_number_and_tells_that_number():
    row = int8_row()
    assert (row.max_error, row.mean_error, row.worst_error) == (0.5, 0.25, 0.5)
    assert (row.limited, row.limit, row.passed) == ("worst", pytest.approx(0.15), False)
    check = check_module.Check("a.onnx", "int8", (row,))
    assert "0.5 in its worst number in ONNX Runtime (worst limit 0.15)" in check.failures()
    header, line = check.table().splitlines()
    assert header.split()[2:5] == ["max", "mean", "worst"]
    assert line.split()[3:6] == ["5.00e-01", "2.50e-01", "5.00e-01"]


@pytest.mark.parametrize("crops", [None, 1])
def test_an_int8_file_is_not_checked_on_fewer_than_two_faces(model_folders, tmp_path, crops):
    folder = model_folders["au_prediction"]
    model = onnx.load(folder / "au_prediction.onnx")
    metadata = {**json.loads(model.metadata_props[0].value), "precision": "int8"}
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="give as crops 2 or more"):
        check_export(tmp_path / "a.onnx", folder, crops and random_crops(crops))
    with pytest.raises(ValueError, match="2 or more, to measure on; there are 4 and 1"):
        CalibrationFaces(random_crops(4), random_crops(1), {})


def test_nan_fails():
    row = check_module.Row("ONNX Runtime", "landmarks", np.nan, np.nan, np.nan, 1e-6, 1e-3, "max")
    assert not row.passed


@pytest.mark.parametrize(
    ("own_error", "precision", "runtime", "expected"),
    [
        (1e-7, "float32", "ONNX Runtime", ("max", 1e-4)),
        (1e-3, "float32", "ONNX Runtime", ("max", 4e-3)),
        (1e-3, "float16", "MIL evaluator", ("mean", 0.02)),
        (1e-7, "float16", "MIL evaluator", ("mean", 4 * 8192 * 1e-7)),
        (1e-7, "float16", "ONNX Runtime", ("mean", 4 * 8192 * 1e-7)),
        (0.0, "float16", "MIL evaluator", ("mean", 2e-4)),
        (0.0, "float16", "Core ML", ("mean", 0.02)),
    ],
)
def test_the_limit_follows_the_specification_and_the_net_s_own_error(
    own_error, precision, runtime, expected
):
    truth, own = [np.zeros((1, 17))], [np.full((1, 17), own_error)]
    (row,) = check_module._compare(runtime, ["au_intensities"], truth, truth, own, precision)
    assert (row.limited, row.limit) == (expected[0], pytest.approx(expected[1]))


def test_probe_crops_are_the_same_each_time_and_differ_in_every_channel():
    crops = probe_crops()
    assert crops.shape == (8, 112, 112, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, probe_crops())
    assert (crops.std(axis=(0, 1, 2)) > 20).all()
    assert np.abs(crops[..., 0].astype(int) - crops[..., 2]).mean() > 20


def test_a_net_of_the_other_kind_fails(model_folders):
    check = check_export(model_folders["au_prediction"] / "au_prediction.onnx", source(LANDMARK))
    assert not check.passed
    assert "the metadata's kind is 'au_prediction'" in check.failures()


@pytest.mark.parametrize(("axis", "sizes"), [("batch", [1, 32, 32, 5]), (32, [32, 32, 32])])
def test_a_file_gets_a_few_images_at_once_however_many_there_are(axis, sizes) -> None:
    """A free batch is tried with one, too; all images at once would lie in memory."""
    found = []

    def call(batch: np.ndarray) -> list[np.ndarray]:
        found.append(len(batch))
        return [batch.mean(axis=(2, 3))]

    port = Port("image", "float32", (axis, 3, 112, 112))
    crops = random_crops(70)
    (outputs,) = exported.ExportedModel("fake", (port,), (port,), call).run(crops)
    assert found == sizes
    wanted = exported.network_input(crops).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs, wanted, rtol=1e-6)
