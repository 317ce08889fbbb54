"""Core ML packages with a picture as input, of fixed batches, with int8 weights, of both nets."""

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import skip_without_coremltools
from random_nets import AU, LANDMARK, random_crops, random_weights, reference_outputs

torch = pytest.importorskip("torch")
skip_without_coremltools()

from quick_core_ml import quick_conversion  # noqa: E402

from mlx_faceau.convert import check, export_coreml  # noqa: E402
from mlx_faceau.convert.check import (  # noqa: E402
    CalibrationFaces,
    CheckFailed,
    check_export,
)
from mlx_faceau.convert.export_coreml import export_to_coreml  # noqa: E402
from mlx_faceau.convert.mil import IMAGE, Port, load_coremltools, read_mlpackage, torch_dtype  # noqa: E402
from mlx_faceau.convert.source_model import CombinedModel, SourceModel  # noqa: E402
from mlx_faceau.core.artifact_metadata import find_mlmodel, read_exported_metadata  # noqa: E402
from mlx_faceau.core.checkpoint import describe  # noqa: E402


def source(config) -> SourceModel:
    return SourceModel(config, random_weights(config), describe(config, source_hash=config.kind))


def some_faces() -> CalibrationFaces:
    return CalibrationFaces(random_crops(1), random_crops(2, seed=1), {})


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The AU net with a picture as input, and in batches of two."""
    folder = tmp_path_factory.mktemp("variants")
    with quick_conversion():
        export_to_coreml(source(AU), folder / "picture.mlpackage", input="image")
        export_to_coreml(source(AU), folder / "batch.mlpackage", "float32", batch=2)
    return folder


@pytest.fixture(scope="module")
def int8_package(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "int8.mlpackage"
    with pytest.MonkeyPatch.context() as patch, quick_conversion():
        patch.setattr(check, "INT8_SHARE", np.inf)  # a random net, which rounding ruins
        export_to_coreml(source(AU), path, "int8", faces=some_faces())
    return path


def model_of(package):
    load_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString(find_mlmodel(package).read_bytes())
    return model


def contents(package):
    files = (path for path in package.rglob("*") if path.is_file())
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


def test_a_picture_is_rgb_of_the_crop_s_size_and_scaled_once(packages):
    program = read_mlpackage(packages / "picture.mlpackage")
    assert program.inputs == (Port("image", IMAGE, (1, 3, 112, 112)),)
    crops = random_crops(1)
    pixels = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    got = program.run({"image": pixels})["au_intensities"]
    true = reference_outputs(AU, crops)["au_intensities"]
    assert np.abs(got - true).mean() < 0.02
    assert np.abs(program.run({"image": pixels / 255})["au_intensities"] - true).mean() > 0.1
    assert read_exported_metadata(packages / "picture.mlpackage")["input"] == "image"


def test_a_batch_package_takes_exactly_its_number(packages):
    program = read_mlpackage(packages / "batch.mlpackage")
    assert [p.shape[0] for p in (*program.inputs, *program.outputs)] == [2, 2]
    assert read_exported_metadata(packages / "batch.mlpackage")["batch"] == 2
    assert check_export(packages / "batch.mlpackage", source(AU), random_crops(3)).passed


def test_int8_packages_hold_a_quarter_of_the_bytes_and_float16_computation(int8_package, packages):
    sizes = [
        sum(map(len, contents(package).values()))
        for package in (int8_package, packages / "batch.mlpackage")
    ]
    assert sizes[0] < 0.35 * sizes[1]
    program = read_mlpackage(int8_package)
    convolutions = [op for op in program.operations if op.op_type == "conv"]
    assert {torch_dtype(op.outputs[0]) for op in convolutions} == {torch.float16}
    assert read_exported_metadata(int8_package)["precision"] == "int8"


def test_int8_weights_are_within_half_a_step_of_the_net_s(int8_package):
    """Against the float32 weights: one linear layer, each row's step its largest number / 127."""
    program = read_mlpackage(int8_package)
    layer = next(op for op in program.operations if op.op_type == "linear")
    got = layer.weight.op.materialized_val_inference().astype(np.float32)
    exact = random_weights(AU)["au_head.layers.0.weight"]
    step = np.abs(exact).max(axis=1, keepdims=True) / 127
    assert 0 < np.abs(got - exact).max() < 0.51 * step.max() + 2e-3 * np.abs(exact).max()


@pytest.mark.slow
def test_the_same_net_gives_the_same_int8_bytes(int8_package, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "INT8_SHARE", np.inf)
    export_to_coreml(source(AU), tmp_path / "again.mlpackage", "int8", faces=some_faces())
    assert contents(tmp_path / "again.mlpackage") == contents(int8_package)


@pytest.mark.slow
def test_both_nets_in_one_package(tmp_path):
    both = CombinedModel(source(LANDMARK), source(AU))
    assert export_to_coreml(both, tmp_path / "both.mlpackage", "float32").passed
    names = [port.name for port in read_mlpackage(tmp_path / "both.mlpackage").outputs]
    assert names == [*LANDMARK.output_shapes, *AU.output_shapes]


def swapped_channels(weights):
    name = "backbone.stem.conv.weight"
    return {name: np.ascontiguousarray(weights[name][..., ::-1])}


def two_units_swapped(weights):
    order = [1, 0, *range(2, 17)]
    names = [f"au_head.layers.2.{part}" for part in ("weight", "bias")]
    return {name: weights[name][order] for name in names}


@pytest.mark.parametrize("mistake", [swapped_channels, two_units_swapped])
@pytest.mark.parametrize("name", ["picture", "batch"])
def test_a_package_with_a_classic_mistake_fails(packages, name, mistake):
    good = source(AU)
    other = dataclasses.replace(good, weights={**good.weights, **mistake(good.weights)})
    assert not check_export(packages / f"{name}.mlpackage", other).passed


@pytest.mark.slow
def test_a_picture_that_is_scaled_twice_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export_coreml, "PIXEL_MAX", 255.0**2)
    with pytest.raises(CheckFailed, match="au_intensities differs"):
        export_to_coreml(source(AU), tmp_path / "a.mlpackage", input="image")
    assert not list(tmp_path.iterdir())


def test_a_picture_in_other_colours_fails(packages, tmp_path):
    package = shutil.copytree(packages / "picture.mlpackage", tmp_path / "a.mlpackage")
    model = model_of(package)
    model.description.input[0].type.imageType.colorSpace = 30  # BGR
    find_mlmodel(package).write_bytes(model.SerializeToString())
    assert "input image is image of other colours" in check_export(package, source(AU)).failures()
