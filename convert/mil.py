"""Reads a saved Core ML package on any platform, for :mod:`.mil_program` to evaluate.

It proves names, shapes, types, channel order, scale and weights of the bytes that were written;
it cannot show the Neural Engine's own arithmetic. Strict: what it does not know, and whatever
contradicts itself, is an error, and sizes are checked before memory is taken.

Reference:
    Apple, coremltools: MIL.proto, Model.proto (apple.github.io/coremltools/mlmodel).
"""

import inspect
import logging
import math
import platform
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_faceau.core.artifact_metadata import find_mlmodel
from mlx_faceau.errors import CheckpointError, ExportError, MissingDependency

from .mil_operations import OPERATIONS, Value, dequantise
from .mil_program import MAX_ELEMENTS, PICTURE, TORCH_DTYPES, Operation, Port, Program

_MAX_MODEL = 64 << 20  # bytes of the protocol buffer; a real one has about 300 KiB
_BLOB_HEADER = struct.Struct("<IIQQ")  # sentinel, type, bytes, offset of the data
_BLOB_SENTINEL = 0xDEADBEEF
_BLOB_TYPES = {"float16": 1, "float32": 2, "int8": 4}
_MODEL_PATH = "@model_path/"
# Numbers of MIL.proto's DataType and of FeatureTypes.proto's ArrayDataType.
_DTYPES = {1: "bool", 2: "string", 10: "float16", 11: "float32", 21: "int8", 23: "int32"}
_ARRAY_DTYPES = {65552: "float16", 65568: "float32"}
_DEQUANTISE_ORDER = ("quantized_data", "scale", "zero_point", "axis")
_DEQUANTISE = set(_DEQUANTISE_ORDER)
_RGB = 20  # of FeatureTypes.proto's ColorSpace


def load_coremltools() -> Any:
    """coremltools, without its log lines about versions and about the runtime macOS alone has.

    Raises:
        MissingDependency: where it is not installed.
        ExportError: on Windows, for which there is none.
    """
    if platform.system() == "Windows":
        raise ExportError("Core ML files need coremltools, which has no Windows build; use ONNX")
    try:
        with unlogged():
            import coremltools
    except ModuleNotFoundError as error:
        if error.name != "coremltools":
            raise
        raise MissingDependency("coremltools", extra="export") from error
    return coremltools


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep coremltools' log lines and warnings away from the user while the block runs."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_mlpackage(path: Path | str) -> Program:
    """Read a Core ML package and check it as a whole.

    Args:
        path: an ``.mlpackage`` folder.

    Raises:
        CheckpointError: if it is missing, truncated, contradicts itself, or uses what this
            reader does not know.
        MissingDependency: without coremltools.
    """
    program = _Reader(Path(path)).program()
    program.check()
    return program


def _as_program_input(port: Port) -> Port:
    """What the program declares where its description says ``port``: a picture is its pixels."""
    return Port(port.name, "float32", port.shape) if port.dtype == PICTURE else port


class _Reader:
    """One package while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model_path = find_mlmodel(path)
        self.constants: dict[str, Value] = {}

    def program(self) -> Program:
        model = self._model()
        block = self._block(model)
        inputs = tuple(self._described(f) for f in model.description.input)
        outputs = tuple(self._described(f) for f in model.description.output)
        declared = tuple(self._port(value) for value in model.mlProgram.functions["main"].inputs)
        if declared != tuple(_as_program_input(port) for port in inputs):
            raise self._error(f"its program's inputs are {declared}, its description's {inputs}")
        if list(block.outputs) != [port.name for port in outputs]:
            raise self._error(f"its program gives {list(block.outputs)}, not what it describes")
        operations = tuple(self._operations(block))
        return Program(self.path, inputs, outputs, self.constants, operations)

    def _model(self) -> Any:
        load_coremltools()
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError

        if self.model_path.stat().st_size > _MAX_MODEL:
            raise self._error(f"its {self.model_path.name} has more than {_MAX_MODEL} bytes")
        model = Model_pb2.Model()
        try:
            model.ParseFromString(self.model_path.read_bytes())
        except DecodeError:
            raise self._error(f"its {self.model_path.name} is no Core ML model") from None
        return model

    def _block(self, model: Any) -> Any:
        functions = model.mlProgram.functions
        if model.WhichOneof("Type") != "mlProgram" or list(functions) != ["main"]:
            raise self._error("it is no ML program with one function 'main'")
        main = functions["main"]
        if list(main.block_specializations) != [main.opset]:
            raise self._error("its function has more than one block")
        return main.block_specializations[main.opset]

    def _operations(self, block: Any) -> Iterator[Operation]:
        for operation in block.operations:
            if operation.blocks or len(operation.outputs) != 1:
                raise self._error(f"operation {operation.type} has blocks or several outputs")
            output = self._port(operation.outputs[0])
            if operation.type == "const":
                self._add_constant(output, operation.attributes["val"])
            elif operation.type == "constexpr_affine_dequantize":
                self._add_dequantised(output, operation.attributes)
            else:
                yield self._operation(operation, output)

    def _operation(self, operation: Any, output: Port) -> Operation:
        if operation.type not in OPERATIONS:
            raise self._error(f"unknown operation {operation.type} of {output.name}")
        if output.dtype not in TORCH_DTYPES:
            raise self._error(f"operation {operation.type} of {output.name} gives {output.dtype}")
        arguments = {
            parameter: tuple(
                self._argument(binding, f"{output.name}.{parameter}.{index}")
                for index, binding in enumerate(argument.arguments)
            )
            for parameter, argument in operation.inputs.items()
        }
        known = inspect.signature(OPERATIONS[operation.type])
        try:
            known.bind(**arguments)
        except TypeError as error:
            raise self._error(f"operation {operation.type} of {output.name}: {error}") from None
        if any(len(names) != 1 for parameter, names in arguments.items() if parameter != "values"):
            raise self._error(f"operation {operation.type} of {output.name}: several values")
        return Operation(operation.type, arguments, output)

    def _argument(self, binding: Any, name: str) -> str:
        """The name of the value that is bound; a value written in place gets one."""
        if binding.WhichOneof("binding") == "name":
            return str(binding.name)
        dtype, shape = self._type(binding.value.type, name)
        self._add_constant(Port(name, dtype, shape), binding.value)
        return name

    def _described(self, feature: Any) -> Port:
        if feature.type.WhichOneof("Type") == "imageType":
            picture = feature.type.imageType
            if picture.colorSpace != _RGB or picture.WhichOneof("SizeFlexibility"):
                raise self._error(f"{feature.name} is no RGB picture of one size")
            shape = self._shape((1, 3, picture.height, picture.width), feature.name)
            return Port(feature.name, PICTURE, shape)
        array = feature.type.multiArrayType
        if feature.type.WhichOneof("Type") != "multiArrayType":
            raise self._error(f"{feature.name} is no array")
        if array.dataType not in _ARRAY_DTYPES:
            raise self._error(f"{feature.name} has the unknown data type {array.dataType}")
        shape = self._shape(array.shape, feature.name)
        return Port(feature.name, _ARRAY_DTYPES[array.dataType], shape)

    def _port(self, value: Any) -> Port:
        return Port(value.name, *self._type(value.type, value.name))

    def _type(self, declared: Any, name: str) -> tuple[str, tuple[int, ...]]:
        tensor = declared.tensorType
        if declared.WhichOneof("type") != "tensorType" or tensor.dataType not in _DTYPES:
            raise self._error(f"{name} has an unknown type")
        if len(tensor.dimensions) != tensor.rank or not all(
            size.WhichOneof("dimension") == "constant" for size in tensor.dimensions
        ):
            raise self._error(f"{name} has no fixed shape")
        sizes = [size.constant.size for size in tensor.dimensions]
        return _DTYPES[tensor.dataType], self._shape(sizes, name)

    def _shape(self, sizes: Any, name: str) -> tuple[int, ...]:
        shape = tuple(int(size) for size in sizes)
        if any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise self._error(f"{name} has shape {shape}")
        return shape

    def _add_constant(self, port: Port, value: Any) -> None:
        if port.name in self.constants:
            raise self._error(f"{port.name} is defined twice")
        self.constants[port.name] = self._constant(port, value)

    def _constant(self, port: Port, value: Any) -> Value:
        if self._type(value.type, port.name) != (port.dtype, port.shape):
            raise self._error(f"constant {port.name} is not of its declared type")
        if value.WhichOneof("value") == "blobFileValue":
            return self._blob(port, value.blobFileValue)
        if value.immediateValue.WhichOneof("value") == "tensor":
            return self._immediate(port, value.immediateValue.tensor)
        raise self._error(f"constant {port.name} holds no tensor")

    def _add_dequantised(self, output: Port, attributes: Any) -> None:
        """A weight that is kept as int8: scale * (byte - zero), both along one axis."""
        if set(attributes) != _DEQUANTISE | {"name"} or output.name in self.constants:
            raise self._error(f"weight {output.name} has attributes {sorted(attributes)}")
        parts: dict[str, Any] = {}
        for key in _DEQUANTISE:
            dtype, shape = self._type(attributes[key].type, output.name)
            part = Port(f"{output.name}.{key}", dtype, shape)
            parts[key] = self._constant(part, attributes[key])
        data, scale, zero, axis = (parts[key] for key in _DEQUANTISE_ORDER)
        try:
            self.constants[output.name] = dequantise(data, scale, zero, axis, output)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            text = str(error).splitlines()[0]
            raise self._error(f"weight {output.name} cannot be dequantised: {text}") from None

    def _immediate(self, port: Port, tensor: Any) -> Value:
        fields = {"bool": "bools", "string": "strings", "int32": "ints", "float32": "floats"}
        held = fields.get(port.dtype, "bytes")
        if tensor.WhichOneof("value") != held:
            raise self._error(f"constant {port.name} is declared {port.dtype}, holds others")
        values = getattr(tensor, held).values
        if held == "bytes":
            values = np.frombuffer(values, {"float16": "<f2", "int8": "i1"}[port.dtype])
        if len(values) != math.prod(port.shape):
            raise self._error(f"constant {port.name} holds {len(values)} values of {port.shape}")
        if port.dtype in _BLOB_TYPES:
            return torch.tensor(np.array(values, port.dtype)).reshape(port.shape)
        return list(values) if port.shape else values[0]

    def _blob(self, port: Port, blob: Any) -> torch.Tensor:
        """A weight from its 64-byte record; sizes are checked against the file before reading."""
        if port.dtype not in _BLOB_TYPES:
            raise self._error(f"weight {port.name} is {port.dtype}")
        path = self._weights_path
        if blob.fileName != _MODEL_PATH + path.relative_to(self.model_path.parent).as_posix():
            raise self._error(f"weight {port.name} lies in the unknown file {blob.fileName!r}")
        size = math.prod(port.shape) * np.dtype(port.dtype).itemsize
        with path.open("rb") as file:
            file.seek(min(blob.offset, path.stat().st_size))
            header = file.read(_BLOB_HEADER.size)
            expected = (_BLOB_SENTINEL, _BLOB_TYPES[port.dtype], size)
            if len(header) != _BLOB_HEADER.size or _BLOB_HEADER.unpack(header)[:3] != expected:
                raise self._error(
                    f"weight {port.name} has no record of {size} bytes in {path.name}"
                )
            start = _BLOB_HEADER.unpack(header)[3]
            if start + size > path.stat().st_size:
                raise self._error(f"weight {port.name} is cut short in {path.name}")
            file.seek(start)
            data = np.frombuffer(file.read(size), np.dtype(port.dtype).newbyteorder("<"))
        return torch.from_numpy(data.astype(port.dtype)).reshape(port.shape)

    @cached_property
    def _weights_path(self) -> Path:
        path = self.model_path.parent / "weights" / "weight.bin"
        if not path.is_file() or not path.resolve().is_relative_to(self.path.resolve()):
            raise self._error("it has no weights/weight.bin")
        return path

    def _error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {text}")
