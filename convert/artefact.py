"""An exported file, opened by whatever can evaluate it on this machine.

ONNX by onnxruntime; a Core ML package by the MIL evaluator of :mod:`.mil` anywhere, and by Core
ML itself on macOS.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.errors import MissingDependency
from mlx_faceau.exported import ONNX_SUFFIX

from .mil import load_coremltools, read_mlpackage
from .mil_program import Port

EVALUATOR = "MIL evaluator"


@dataclass(frozen=True)
class Artefact:
    """A file opened by one runtime; ``run`` takes (N, 3, 112, 112) and keeps the file's order."""

    runtime: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[[np.ndarray], list[np.ndarray]]


def open_artefacts(path: Path) -> list[Artefact]:
    """The file in each runtime that this machine has for it.

    Raises:
        CheckpointError: if a Core ML package cannot be read.
        MissingDependency: without onnxruntime for an ``.onnx`` file, coremltools for a package.
    """
    if path.suffix == ONNX_SUFFIX:
        return [_open_onnx(path)]
    program = _open_mil(path)
    if platform.system() != "Darwin":
        return [program]
    return [program, replace(program, runtime="Core ML", run=_core_ml_runner(path, program))]


def _open_onnx(path: Path) -> Artefact:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependency("onnxruntime", extra="cpu") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()

    def run(images: np.ndarray) -> list[np.ndarray]:
        # One image and the rest: the batch size is free.
        batches = [batch for batch in (images[:1], images[1:]) if len(batch)]
        pieces = [session.run(None, {inputs[0].name: batch}) for batch in batches]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    return Artefact("ONNX Runtime", _onnx_ports(inputs), _onnx_ports(outputs), run)


def _onnx_ports(values: list[Any]) -> tuple[Port, ...]:
    names = {"tensor(float)": "float32", "tensor(float16)": "float16"}
    return tuple(
        Port(value.name, names.get(value.type, value.type), tuple(value.shape)) for value in values
    )


def _open_mil(path: Path) -> Artefact:
    program = read_mlpackage(path)
    name = program.inputs[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        return _one_by_one(images, lambda image: program.run({name: image}), program.outputs)

    return Artefact(EVALUATOR, program.inputs, program.outputs, run)


def _core_ml_runner(path: Path, program: Artefact) -> Callable[[np.ndarray], list[np.ndarray]]:
    model = load_coremltools().models.MLModel(str(path))
    name = program.inputs[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        return _one_by_one(images, lambda image: model.predict({name: image}), program.outputs)

    return run


def _one_by_one(
    images: np.ndarray,
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    outputs: tuple[Port, ...],
) -> list[np.ndarray]:
    pieces = [predict(image[np.newaxis]) for image in images]
    return [np.concatenate([piece[port.name] for piece in pieces]) for port in outputs]
