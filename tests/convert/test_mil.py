"""The reader and evaluator of Core ML packages: arithmetic and rounding."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import skip_without_coremltools
from random_nets import AU, LANDMARK, random_crops, reference_outputs

torch = pytest.importorskip("torch")
skip_without_coremltools()

from mlx_faceau.convert import mil  # noqa: E402
from mlx_faceau.convert.mil import OPERATIONS, Port, read_mlpackage  # noqa: E402
from mlx_faceau.core.artifact_metadata import find_mlmodel  # noqa: E402
from mlx_faceau.errors import ExportError  # noqa: E402

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
    crops = random_crops(1, seed=2)  # of translations of some -400 px, one that rounds steadily
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
    assert {mil.torch_dtype(o.outputs[0]) for o in halves} == {torch.float16}
    last = replace(program, outputs=(Port(halves[0].outputs[0].name, "float16", ()),))
    (values,) = last.run({"image": image(random_crops(1))}).values()
    assert values.dtype == np.float16


def test_a_convolution_that_exports_do_not_use_is_refused():
    x, weight = tensor(1, 1, 4, 4), tensor(1, 1, 3, 3)
    for pad_type, pad in (("same", [1] * 4), ("custom", [0, 1, 0, 1])):
        with pytest.raises(ValueError, match="pad"):
            OPERATIONS["conv"](x, weight, pad_type, pad, [1, 1], [1, 1], 1)


def renamed_output(description) -> None:
    description.output[0].name = "emotions"


def float16_output(description) -> None:
    description.output[0].type.multiArrayType.dataType = 65552


def other_input_shape(description) -> None:
    description.input[0].type.multiArrayType.shape[1] = 4


@pytest.mark.parametrize("change", [renamed_output, float16_output, other_input_shape])
def test_a_description_of_another_program_is_refused(au_package, tmp_path, change):
    from coremltools.proto import Model_pb2

    package = Path(shutil.copytree(au_package, tmp_path / "other.mlpackage"))
    model = Model_pb2.Model()
    model.ParseFromString(find_mlmodel(package).read_bytes())
    change(model.description)
    find_mlmodel(package).write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="its program has") as caught:
        read_mlpackage(package)
    assert "\n" not in str(caught.value)
    assert str(package) in str(caught.value)
