"""Evaluates a saved Core ML package on any platform.

coremltools reads the package back into its own program type, which checks every declared shape and
type; :mod:`.mil_operations` then computes one operation at a time in float32, rounded to its
declared type. This proves names, shapes, types, channel order, scale and weights of the saved
bytes; it cannot show the Neural Engine's own arithmetic.

Reference:
    Apple, coremltools: MIL.proto, Model.proto (apple.github.io/coremltools/mlmodel).
"""

import contextlib
import io
import logging
import math
import platform
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_faceau.core.artifact_metadata import find_mlmodel
from mlx_faceau.errors import CheckpointError, ExportError, MissingDependency, UsageError

from .mil_operations import OPERATIONS

IMAGE = "image"  # type of an input that is an RGB image: the program sees its pixels as float32
_MAX_MODEL = 64 << 20  # bytes of the protocol buffer; a real one has about 300 KiB
_MAX_ELEMENTS = 1 << 27  # of all values together; a full-width net has about 10 million
# Numbers of FeatureTypes.proto's ArrayDataType and ColorSpace.
_ARRAY_DTYPES = {65552: "float16", 65568: "float32"}
_RGB = 20
# What coremltools' loader was seen to raise for malformed packages.
_LOAD_ERRORS = (
    AssertionError,
    AttributeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MIL_DTYPES = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Port:
    """A named, typed input or output."""

    name: str
    dtype: str  # "float32", "float16", "uint8" or IMAGE
    shape: tuple[Any, ...]  # whole numbers, or names of free axes


@dataclass(frozen=True)
class Program:
    """A Core ML program that was read and found consistent."""

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operations: tuple[Any, ...]  # coremltools' operations, in order

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the program.

        Args:
            inputs: arrays by name, in the declared shapes; an image as its pixels, RGB planes in
                [0, 255].

        Returns:
            Arrays by output name, in the declared types.

        Raises:
            UsageError: if a name or shape is not the declared one.
        """
        shapes = {name: array.shape for name, array in inputs.items()}
        declared = {port.name: port.shape for port in self.inputs}
        if shapes != declared:
            raise UsageError(f"{self.path}: inputs are {shapes}, expected {declared}")
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
                dtype = getattr(torch, _dtype(output))
                values[output.name] = OPERATIONS[operation.op_type](**arguments).to(dtype)
        return {port.name: values[port.name].numpy() for port in self.outputs}


def _value(variable: Any, values: Mapping[str, torch.Tensor]) -> Any:
    """An argument: an earlier result or a constant; floating-point arrays as float32 tensors."""
    if variable.name in values:
        return values[variable.name].float()
    constant = variable.val
    if constant is None:  # what an operation like constexpr_affine_dequantize stands for
        constant = variable.op.materialized_val_inference()
    if isinstance(constant, (np.ndarray, np.generic)) and constant.dtype.kind == "f":
        return torch.from_numpy(np.asarray(constant, np.float32))
    return constant.tolist() if isinstance(constant, (np.ndarray, np.generic)) else constant


def _dtype(variable: Any) -> str:
    from coremltools.converters.mil.mil.types import builtin_to_string

    name = str(builtin_to_string(variable.dtype))
    return _MIL_DTYPES.get(name, name)


def read_mlpackage(path: Path | str) -> Program:
    """Read a Core ML package and check it as a whole.

    Args:
        path: an ``.mlpackage`` folder.

    Raises:
        CheckpointError: if it is missing, truncated, contradicts itself, or uses what this
            evaluator does not know.
        MissingDependency: without coremltools.
    """
    path = Path(path)
    model_path = find_mlmodel(path)
    load_coremltools()
    try:
        with quiet():
            return _read(path, model_path)
    except _LOAD_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"{path}: not a Core ML package that can be read: {reason}") from None


def _read(path: Path, model_path: Path) -> Program:
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    if model_path.stat().st_size > _MAX_MODEL:
        raise CheckpointError(f"{path}: its {model_path.name} has more than {_MAX_MODEL} bytes")
    model = Model_pb2.Model()
    try:
        model.ParseFromString(model_path.read_bytes())
    except DecodeError:
        raise CheckpointError(f"{path}: its {model_path.name} is no Core ML model") from None
    functions = model.mlProgram.functions
    if model.WhichOneof("Type") != "mlProgram" or list(functions) != ["main"]:
        raise CheckpointError(f"{path}: it is no ML program with one function 'main'")
    main = functions["main"]
    kinds = {o.type for block in main.block_specializations.values() for o in block.operations}
    constants = {"const", "constexpr_affine_dequantize"}
    if unknown := sorted(kinds - OPERATIONS.keys() - constants):
        raise CheckpointError(f"{path}: unknown operation {unknown[0]}")
    weights = model_path.parent / "weights"
    if not (weights / "weight.bin").resolve().is_relative_to(path.resolve()):
        raise CheckpointError(f"{path}: its weights lie outside the package")
    loaded = load(model, model.specificationVersion, str(weights)).functions["main"]
    operations = tuple(o for o in loaded.operations if o.op_type not in constants)
    inputs = tuple(_described(feature, path) for feature in model.description.input)
    outputs = tuple(_described(feature, path) for feature in model.description.output)
    declared = tuple(Port(v.name, _dtype(v), tuple(v.shape)) for v in loaded.inputs.values())
    as_arrays = tuple(Port(p.name, p.dtype.replace(IMAGE, "float32"), p.shape) for p in inputs)
    if declared != as_arrays:
        raise CheckpointError(f"{path}: its program's inputs are {declared}, described {inputs}")
    results = tuple(Port(v.name, _dtype(v), tuple(v.shape)) for v in loaded.outputs)
    if results != outputs:
        raise CheckpointError(f"{path}: its program gives {results}, described {outputs}")
    if sum(math.prod(o.outputs[0].shape) for o in operations) > _MAX_ELEMENTS:
        raise CheckpointError(f"{path}: its values have too many elements")
    return Program(path, inputs, outputs, operations)


def _described(feature: Any, path: Path) -> Port:
    """An input or output as the package's description, which Core ML's callers see, has it."""
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        if image.colorSpace != _RGB or image.WhichOneof("SizeFlexibility"):
            raise CheckpointError(f"{path}: {feature.name} is no RGB image of one size")
        return Port(feature.name, IMAGE, (1, 3, image.height, image.width))
    array = feature.type.multiArrayType
    if kind != "multiArrayType" or array.dataType not in _ARRAY_DTYPES:
        raise CheckpointError(f"{path}: {feature.name} is no array of floats")
    return Port(feature.name, _ARRAY_DTYPES[array.dataType], tuple(array.shape))


def load_coremltools() -> Any:
    """coremltools, without its log lines about versions and about the runtime macOS alone has.

    Raises:
        MissingDependency: where it is not installed.
        ExportError: on Windows, for which there is none.
    """
    if platform.system() == "Windows":
        raise ExportError("Core ML files need coremltools, which has no Windows build; use ONNX")
    try:
        with quiet():
            import coremltools
    except ModuleNotFoundError as error:
        if error.name != "coremltools":
            raise
        raise MissingDependency("coremltools", extra="export") from error
    return coremltools


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
