"""The reader and evaluator of Core ML packages: arithmetic, rounding, and damaged files."""

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_nets import AU, LANDMARK, random_crops, reference_outputs

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from mlx_faceau.convert import mil  # noqa: E402
from mlx_faceau.convert.mil import Port, load_coremltools, read_mlpackage  # noqa: E402
from mlx_faceau.convert.mil_operations import OPERATIONS  # noqa: E402
from mlx_faceau.errors import CheckpointError  # noqa: E402

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
RNG = np.random.default_rng(0)


def image(crops: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255


@pytest.fixture
def landmark_package(core_ml_packages) -> Path:
    return core_ml_packages["landmark_pose"]


@pytest.fixture
def au_package(core_ml_packages) -> Path:
    return core_ml_packages["au_prediction"]


# --- whole nets


def test_a_float32_package_evaluates_to_the_float64_net_s_outputs(landmark_package):
    crops = random_crops(1)
    program = read_mlpackage(landmark_package)
    outputs = program.run({"image": image(crops)})
    for name, true in reference_outputs(LANDMARK, crops).items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], true, rtol=0, atol=1e-3, err_msg=name)


def test_a_float16_package_shows_float16_s_error_and_no_more(au_package):
    crops = random_crops(1)
    program = read_mlpackage(au_package)
    got = program.run({"image": image(crops)})["au_intensities"]
    error = np.abs(got - reference_outputs(AU, crops)["au_intensities"])
    assert 1e-5 < error.max() < 0.05
    assert error.mean() < 0.02


def test_a_program_runs_on_its_declared_input_alone(au_package):
    program = read_mlpackage(au_package)
    with pytest.raises(ValueError, match=r"inputs are .*\(2, 3, 112, 112\)"):
        program.run({"image": np.zeros((2, 3, 112, 112), np.float32)})
    with pytest.raises(ValueError, match=r"expected \{'image'"):
        program.run({"photo": np.zeros((1, 3, 112, 112), np.float32)})


# --- operations, against NumPy


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 4)])
def test_conv_is_the_sum_over_the_kernel_of_its_group(stride, groups):
    x, weight, bias = tensor(1, 4, 6, 5), tensor(8, 4 // groups, 3, 3), tensor(8)
    got = OPERATIONS["conv"](x, weight, "custom", [1] * 4, [stride] * 2, [1, 1], groups, bias)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty(got.shape)
    for out, row, column in np.ndindex(expected.shape[1:]):
        group = slice(out // (8 // groups) * (4 // groups), None)
        window = padded[0, group, row * stride :, column * stride :][: 4 // groups, :3, :3]
        expected[0, out, row, column] = (window * weight[out].numpy()).sum() + bias[out].item()
    np.testing.assert_allclose(got, expected, atol=1e-5)


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "exp": np.exp,
    "abs": np.abs,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_elementwise_operations_are_their_formulas(name):
    x = torch.linspace(-9, 9, 37)
    expected = REFERENCES[name](x.double().numpy())
    np.testing.assert_allclose(OPERATIONS[name](x), expected, rtol=1e-5, atol=1e-6)


def test_every_other_operation_is_its_formula():
    x, y, w, b = tensor(2, 6), tensor(2, 6), tensor(3, 6), tensor(3)
    one = torch.tensor(1.0)
    pairs = [
        (OPERATIONS["add"](x, y), x.numpy() + y.numpy()),
        (OPERATIONS["mul"](x, y), x.numpy() * y.numpy()),
        (OPERATIONS["linear"](x, w, b), x.numpy() @ w.numpy().T + b.numpy()),
        (OPERATIONS["log"](x.abs(), one), np.log1p(np.abs(x.numpy()))),
        (OPERATIONS["reduce_mean"](x, [1], True), x.numpy().mean(1, keepdims=True)),
        (OPERATIONS["reshape"](x, [2, 3, 2]), x.numpy().reshape(2, 3, 2)),
        (OPERATIONS["concat"]([x, y], 1, False), np.concatenate([x, y], 1)),
        (
            OPERATIONS["slice_by_index"](x, [0, 1], [2, 4], end_mask=[True, False]),
            x.numpy()[:, 1:4],
        ),
    ]
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_each_result_is_rounded_to_its_declared_type(au_package):
    """Half precision: no activation of the evaluated program holds more bits than float16."""
    program = read_mlpackage(au_package)
    halves = [o for o in program.operations if o.op_type == "silu"]
    assert {mil._dtype(o.outputs[0]) for o in halves} == {"float16"}
    last = replace(program, outputs=(Port(halves[0].outputs[0].name, "float16", ()),))
    (values,) = last.run({"image": image(random_crops(1))}).values()
    assert values.dtype == np.float16


def test_a_convolution_that_exports_do_not_use_is_refused():
    x, weight = tensor(1, 1, 4, 4), tensor(1, 1, 3, 3)
    for pad_type, pad in (("same", [1] * 4), ("custom", [0, 1, 0, 1])):
        with pytest.raises(ValueError, match="pad"):
            OPERATIONS["conv"](x, weight, pad_type, pad, [1, 1], [1, 1], 1)


# --- damaged and hostile packages


@pytest.fixture
def broken(au_package, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(au_package, tmp_path / "broken.mlpackage"))


def edit(package: Path, change: Callable) -> None:
    load_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    main = model.mlProgram.functions["main"]
    change(model, main.block_specializations[main.opset])
    (package / MODEL).write_bytes(model.SerializeToString())


def first(block, kind: str):
    return next(op for op in block.operations if op.type == kind)


def first_blob(block):
    constants = (op.attributes["val"] for op in block.operations if op.type == "const")
    return next(value for value in constants if value.HasField("blobFileValue"))


def resize(value, size: int) -> None:
    value.type.tensorType.dimensions[0].constant.size = size


def unknown_operation(model, block):
    first(block, "silu").type = "gelu"


def unknown_parameter(model, block):
    first(block, "silu").inputs["alpha"].CopyFrom(first(block, "silu").inputs["x"])


def wrong_shape(model, block):
    resize(first(block, "conv").outputs[0], 5)


def wrong_type(model, block):
    first(block, "conv").outputs[0].type.tensorType.dataType = 11


def huge_constant(model, block):
    value = first_blob(block)
    resize(value, 1 << 40)
    operation = next(op for op in block.operations if op.attributes["val"] == value)
    resize(operation.outputs[0], 1 << 40)


def blob_beyond_the_file(model, block):
    first_blob(block).blobFileValue.offset = 1 << 62


def blob_elsewhere(model, block):
    first_blob(block).blobFileValue.fileName = "@model_path/../../../../etc/passwd"


def blob_without_record(model, block):
    first_blob(block).blobFileValue.offset += 64


def renamed_output(model, block):
    model.description.output[0].name = "emotions"


def float16_output(model, block):
    model.description.output[0].type.multiArrayType.dataType = 65552


def other_input_shape(model, block):
    model.description.input[0].type.multiArrayType.shape[1] = 4


def two_functions(model, block):
    model.mlProgram.functions["other"].opset = "CoreML6"


def no_program(model, block):
    model.ClearField("mlProgram")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_operation, "unknown operation gelu"),
        (unknown_parameter, "alpha"),
        (wrong_shape, "Mismatch between var types"),
        (wrong_type, "Mismatch between var types"),
        (huge_constant, "cannot reshape"),
        (blob_beyond_the_file, "out of bounds"),
        (blob_elsewhere, "Could not open"),
        (blob_without_record, "Invalid sentinel"),
        (renamed_output, "its program gives"),
        (float16_output, "its program gives"),
        (other_input_shape, "program's inputs"),
        (two_functions, "one function"),
        (no_program, "no ML program"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_changed_program_is_refused_in_one_line(broken, change, message):
    edit(broken, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_mlpackage(broken)
    assert "\n" not in str(caught.value)
    assert str(broken) in str(caught.value)


def test_weights_that_are_cut_short_are_refused(broken):
    data = (broken / WEIGHTS).read_bytes()
    (broken / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="out of bounds"):
        read_mlpackage(broken)


def test_a_record_that_points_behind_the_file_is_refused(broken):
    data = bytearray((broken / WEIGHTS).read_bytes())
    sentinel = struct.pack("<I", 0xDEADBEEF)
    at = data.index(sentinel)
    data[at + 16 : at + 24] = struct.pack("<Q", len(data))
    (broken / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="out of bounds"):
        read_mlpackage(broken)


def test_a_model_that_is_cut_short_is_refused(broken):
    data = (broken / MODEL).read_bytes()
    (broken / MODEL).write_bytes(data[:-7])
    with pytest.raises(CheckpointError, match="no Core ML model"):
        read_mlpackage(broken)


def test_missing_parts_are_named(broken):
    (broken / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"Could not open .*weight\.bin"):
        read_mlpackage(broken)
    (broken / MODEL).unlink()
    with pytest.raises(CheckpointError, match="names no file"):
        read_mlpackage(broken)
    (broken / "Manifest.json").unlink()
    with pytest.raises(CheckpointError, match="not a Core ML package"):
        read_mlpackage(broken)


def test_a_manifest_cannot_point_outside_its_package(broken):
    manifest = json.loads((broken / "Manifest.json").read_text())
    root = manifest["rootModelIdentifier"]
    manifest["itemInfoEntries"][root]["path"] = "../../secret"
    (broken.parent / "secret").write_bytes(b"")
    (broken / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="names no file of the package"):
        read_mlpackage(broken)
