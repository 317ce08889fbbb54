"""Evaluates a Core ML package on any platform, to check an export where Core ML itself is missing.

coremltools reads the package back into its own program type, which checks every declared shape and
type; each operation is then computed in float32 and rounded to its declared type. This proves
names, shapes, types, channel order, scale and weights of the saved bytes; it cannot show the
Neural Engine's own arithmetic. Packages of strangers are not read.

Reference:
    Apple, coremltools: MIL.proto, Model.proto, MIL ops of iOS 15
    (apple.github.io/coremltools).
"""

import contextlib
import io
import logging
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mlx_faceau.core.artifact_metadata import find_mlmodel
from mlx_faceau.core.libraries import import_library
from mlx_faceau.errors import ExportError, UsageError

Tensor = torch.Tensor

IMAGE = "image"  # type of an input that is an RGB image: the program reads its pixels as float32
# Numbers of FeatureTypes.proto's ArrayDataType.
_ARRAY_DTYPES = {65552: "float16", 65568: "float32"}
_RGB = 20  # of its ColorSpace
_CONSTANTS = ("const", "constexpr_affine_dequantize")


def conv(
    x: Tensor,
    weight: Tensor,
    pad_type: str,
    pad: list[int],
    strides: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    """2-d convolution; ``pad`` is (top, bottom, left, right), symmetric in all our exports."""
    top, bottom, left, right = pad
    if pad_type not in ("custom", "valid") or (top, left) != (bottom, right):
        raise UsageError(f"conv of pad_type {pad_type!r} with pad {pad} is not supported")
    padding = (top, left) if pad_type == "custom" else 0
    return F.conv2d(x, weight, bias, strides, padding, dilations, groups)


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
    **defaults: Any,
) -> Tensor:
    """A slice of every axis; a mask's True means from the start, to the end, or one index, whose
    axis is dropped."""
    none = [False] * x.ndim
    bounds = zip(
        *(begin, end, begin_mask or none, end_mask or none, squeeze_mask or none), strict=True
    )
    return x[
        tuple(
            b if place else slice(None if start else b, None if stop else e)
            for b, e, start, stop, place in bounds
        )
    ]


def resample(x: Tensor, coordinates: Tensor, **settings: Any) -> Tensor:
    """Bilinear sampling at x, y in [-1, 1], 0 outside; as our exports have it."""
    known = {
        "sampling_mode": "bilinear",
        "padding_mode": "constant",
        "padding_value": 0.0,
        "coordinates_mode": "normalized_minus_one_to_one",
        "align_corners": False,
    }
    if {name: settings.get(name) for name in known} != known:
        raise UsageError(f"resample with {settings} is not supported")
    return F.grid_sample(x, coordinates, padding_mode="zeros", align_corners=False)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """A product of the last two axes."""
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


# The operations that our exports consist of, by their MIL names, with MIL's parameter names.
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "matmul": matmul,
    "resample": resample,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keepdim=keep_dims),
    "reduce_sum": lambda x, axes, keep_dims: x.sum(axes, keepdim=keep_dims),
    "reduce_max": lambda x, axes, keep_dims: x.amax(axes, keepdim=keep_dims),
    "expand_dims": lambda x, axes: x[(*[slice(None)] * axes[0], None)],
    "stack": lambda values, axis: torch.stack(values, axis),
    "reshape": lambda x, shape: x.reshape(shape),
    "slice_by_index": slice_by_index,
    "concat": lambda values, axis, interleave: torch.cat(values, axis),
    "cast": lambda x, dtype: x,  # every result is rounded to its declared type
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "clip": lambda x, alpha, beta: torch.clip(x, alpha, beta),
    "sqrt": lambda x: torch.sqrt(x),
    "abs": lambda x: torch.abs(x),
    "exp": lambda x: torch.exp(x),
    "tanh": lambda x: torch.tanh(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "relu": lambda x: torch.relu(x),
    "relu6": lambda x: F.relu6(x),
    "silu": lambda x: F.silu(x),
}


@dataclass(frozen=True)
class Port:
    """A named, typed input or output."""

    name: str
    dtype: str  # "float32", "float16", "uint8" or IMAGE
    shape: tuple[Any, ...]  # whole numbers, or names of free axes


@dataclass(frozen=True)
class Program:
    """A Core ML program: inputs and outputs as its callers see them, and what it computes."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operations: tuple[Any, ...]  # coremltools' operations, in order

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name of inputs by name, an image as its pixels: RGB planes in [0, 255]."""
        values = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}
        with torch.inference_mode():
            for operation in self.operations:
                arguments = {
                    parameter: [_value(v, values) for v in variable]
                    if isinstance(variable, (list, tuple))
                    else _value(variable, values)
                    for parameter, variable in operation.inputs.items()
                    if variable is not None
                }
                (output,) = operation.outputs
                result = OPERATIONS[operation.op_type](**arguments)
                values[output.name] = result.to(torch_dtype(output))
        return {port.name: values[port.name].numpy() for port in self.outputs}


def _value(variable: Any, values: Mapping[str, Tensor]) -> Any:
    """An argument: an earlier result or a constant; floating-point arrays as float32 tensors."""
    if variable.name in values:
        return values[variable.name].float()
    constant = variable.val
    if constant is None:  # what an operation like constexpr_affine_dequantize stands for
        constant = variable.op.materialized_val_inference()
    if not isinstance(constant, (np.ndarray, np.generic)):
        return constant
    if constant.dtype.kind == "f":
        return torch.from_numpy(np.asarray(constant, np.float32))
    return constant.tolist()


def torch_dtype(variable: Any) -> torch.dtype:
    """The declared type of a program's variable."""
    from coremltools.converters.mil.mil.types import builtin_to_string

    name = str(builtin_to_string(variable.dtype)).replace("fp", "float")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def read_mlpackage(path: Path | str) -> Program:
    """Read a Core ML package that :func:`.export_coreml.export_to_coreml` wrote.

    ExportError is raised if it uses an operation that this evaluator does not know, or its
    description differs from its program.
    """
    load_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.proto import Model_pb2

    model_path = find_mlmodel(path)
    model = Model_pb2.Model()
    model.ParseFromString(model_path.read_bytes())
    with quiet():
        weights = str(model_path.parent / "weights")
        loaded = load(model, model.specificationVersion, weights).functions["main"]
    operations = tuple(o for o in loaded.operations if o.op_type not in _CONSTANTS)
    if unknown := sorted({o.op_type for o in operations} - OPERATIONS.keys()):
        raise ExportError(f"{path}: cannot be checked: unknown operation {', '.join(unknown)}")
    inputs, outputs = (
        tuple(_described(feature) for feature in features)
        for features in (model.description.input, model.description.output)
    )
    for variables, described in ((loaded.inputs.values(), inputs), (loaded.outputs, outputs)):
        own = [
            Port(v.name, str(torch_dtype(v)).removeprefix("torch."), tuple(v.shape))
            for v in variables
        ]
        seen = [replace(p, dtype="float32") if p.dtype.startswith(IMAGE) else p for p in described]
        if own != seen:
            raise ExportError(f"{path}: its program has {own}, its description {seen}")
    return Program(inputs, outputs, operations)


def _described(feature: Any) -> Port:
    """An input or output as the package's description, which Core ML's callers see, has it."""
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        dtype = IMAGE if image.colorSpace == _RGB else "image of other colours"
        return Port(feature.name, dtype, (1, 3, image.height, image.width))
    array = feature.type.multiArrayType
    dtype = _ARRAY_DTYPES.get(array.dataType, f"array type {array.dataType}")
    return Port(feature.name, dtype, tuple(array.shape))


def load_coremltools() -> Any:
    """coremltools, without its log lines about versions and about the runtime macOS alone has."""
    if platform.system() == "Windows":
        raise ExportError("Core ML files need coremltools, which has no Windows build; use ONNX")
    with quiet():
        return import_library("coremltools", "export")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide coremltools' log lines, warnings and progress bars while the block runs."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
