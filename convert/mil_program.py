"""A Core ML program in memory, and its evaluation one operation at a time.

Each operation is computed in float32 and rounded to its declared type. Everything declared is
checked against what comes out; :meth:`Program.check` does so on shapes alone, before memory is
taken for any value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_faceau.errors import CheckpointError

from .mil_operations import CAST_DTYPES, OPERATIONS, Value

MAX_ELEMENTS = 1 << 27  # of all values together; a full-width net has about 10 million
TORCH_DTYPES = {"float16": torch.float16, "float32": torch.float32}
PICTURE = "picture"  # type of an input that is an RGB picture: the program sees its pixels, float32


@dataclass(frozen=True)
class Port:
    """A named, typed value: an input, an output or the result of an operation."""

    name: str
    dtype: str  # "float32", "float16", PICTURE, ...
    shape: tuple[Any, ...]  # whole numbers, or names of free axes


@dataclass(frozen=True)
class Operation:
    """One operation; its arguments are names of earlier values, by parameter."""

    kind: str
    arguments: Mapping[str, tuple[str, ...]]
    output: Port


@dataclass(frozen=True)
class Program:
    """A Core ML program that was read and found consistent."""

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    constants: Mapping[str, Value]
    operations: tuple[Operation, ...]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the program.

        Args:
            inputs: arrays by name, in the declared shapes; a picture as its pixels, RGB planes
                in [0, 255].

        Returns:
            Arrays by output name, in the declared types.

        Raises:
            ValueError: if a name or shape is not the declared one.
        """
        shapes = {name: array.shape for name, array in inputs.items()}
        declared = {port.name: port.shape for port in self.inputs}
        if shapes != declared:
            raise ValueError(f"{self.path}: inputs are {shapes}, expected {declared}")
        given = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}
        with torch.inference_mode():
            values = self._evaluate(self._rounded(given))
        return {port.name: values[port.name].numpy() for port in self.outputs}

    def check(self) -> None:
        """Evaluate the shapes alone; nothing is allocated.

        Raises:
            CheckpointError: if anything contradicts what is declared.
        """
        total = sum(math.prod(operation.output.shape) for operation in self.operations)
        if total > MAX_ELEMENTS:
            raise CheckpointError(f"{self.path}: its values have {total} elements, too many")
        given = {port.name: torch.empty(port.shape, device="meta") for port in self.inputs}
        values = self._evaluate(self._rounded(given), device="meta")
        for port in self.outputs:
            value = values.get(port.name)
            if value is None or (_dtype(value), tuple(value.shape)) != (port.dtype, port.shape):
                raise CheckpointError(f"{self.path}: output {port.name} is not what it declares")

    def _rounded(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            port.name: given[port.name].to(TORCH_DTYPES.get(port.dtype, torch.float32))
            for port in self.inputs
        }

    def _evaluate(self, inputs: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
        values = {name: _on(value, device) for name, value in self.constants.items()}
        values.update(inputs)
        for operation in self.operations:
            name = operation.output.name
            if name in values:
                raise CheckpointError(f"{self.path}: {name} is defined twice")
            try:
                values[name] = _apply(operation, values)
            except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.path}: operation {operation.kind} of {name}: {_first_line(error)}"
                ) from None
        return values


def _on(value: Value, device: str) -> Value:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _first_line(error: Exception) -> str:
    missing = "needs {}, which no earlier operation gives"
    if isinstance(error, KeyError):
        return missing.format(error.args[0])
    return str(error).splitlines()[0]


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _apply(operation: Operation, values: Mapping[str, Any]) -> torch.Tensor:
    """One operation in float32, rounded to its declared type, of exactly its declared shape."""
    output = operation.output
    arguments: dict[str, Any] = {}
    for parameter, names in operation.arguments.items():
        found = [values[name] for name in names]
        tensors = [value for value in found if isinstance(value, torch.Tensor)]
        if operation.kind != "cast" and any(_dtype(t) != output.dtype for t in tensors):
            raise ValueError(f"{parameter} is not {output.dtype}, as the result is")
        floats = [v.float() if isinstance(v, torch.Tensor) else v for v in found]
        arguments[parameter] = floats if parameter == "values" else floats[0]
    if operation.kind == "cast" and CAST_DTYPES.get(arguments.get("dtype", "")) != output.dtype:
        raise ValueError(f"to {arguments.get('dtype')!r} gives no {output.dtype}")
    result: torch.Tensor = OPERATIONS[operation.kind](**arguments)
    if tuple(result.shape) != output.shape:
        raise ValueError(f"gives shape {tuple(result.shape)}, declared is {output.shape}")
    return result.to(TORCH_DTYPES[output.dtype])
