"""An exported file, opened by whatever can evaluate it on this machine.

ONNX by onnxruntime; a Core ML package by the MIL evaluator of :mod:`.mil` anywhere, and by Core
ML itself on macOS.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.artifact_metadata import ONNX_SUFFIX
from mlx_faceau.core.preprocess import fill_batch, to_network_input
from mlx_faceau.errors import MissingDependency

from .mil import load_coremltools, read_mlpackage
from .mil_program import PICTURE, Port, Program

EVALUATOR = "MIL evaluator"
ORT = "ONNX Runtime"


@dataclass(frozen=True)
class Artefact:
    """A file opened by one runtime.

    ``run`` takes crops, (N, 112, 112, 3) uint8 BGR, hands them over as the file's input declares
    itself, and gives float32 arrays with a leading N in the file's order.
    """

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
    program = read_mlpackage(path)
    evaluated = _core_ml_artefact(EVALUATOR, program, program.run)
    if platform.system() != "Darwin":
        return [evaluated]
    model = load_coremltools().models.MLModel(str(path))
    return [evaluated, _core_ml_artefact("Core ML", program, _as_picture(program, model.predict))]


def _open_onnx(path: Path) -> Artefact:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingDependency("onnxruntime", extra="cpu") from error
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: float16 on a CPU is no news
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = _onnx_ports(session.get_inputs()), _onnx_ports(session.get_outputs())
    port = inputs[0]

    def run(crops: np.ndarray) -> list[np.ndarray]:
        values = crops if port.dtype == "uint8" else network_input(crops)
        batch = port.shape[0]
        if isinstance(batch, int):
            return _in_batches(values, batch, lambda part: session.run(None, {port.name: part}))
        # One image and the rest: the batch size is free.
        parts = [part for part in (values[:1], values[1:]) if len(part)]
        return _joined([session.run(None, {port.name: part}) for part in parts])

    return Artefact(ORT, inputs, outputs, run)


def _onnx_ports(values: list[Any]) -> tuple[Port, ...]:
    names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
    return tuple(
        Port(value.name, names.get(value.type, value.type), tuple(value.shape)) for value in values
    )


def _core_ml_artefact(
    runtime: str, program: Program, predict: Callable[[dict[str, Any]], Mapping[str, np.ndarray]]
) -> Artefact:
    port = program.inputs[0]

    def run(crops: np.ndarray) -> list[np.ndarray]:
        values = network_input(crops)
        if port.dtype == PICTURE:  # Core ML hands a picture over as its pixels, channels first
            values = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32)

        def once(part: np.ndarray) -> list[np.ndarray]:
            outputs = predict({port.name: part})
            return [outputs[output.name] for output in program.outputs]

        return _in_batches(values, port.shape[0], once)

    return Artefact(runtime, program.inputs, program.outputs, run)


def _as_picture(
    program: Program, predict: Callable[[dict[str, Any]], Mapping[str, np.ndarray]]
) -> Callable[[dict[str, Any]], Mapping[str, np.ndarray]]:
    """The prediction of a package whose input is a picture, which Core ML takes from PIL."""
    if program.inputs[0].dtype != PICTURE:
        return predict

    def with_picture(inputs: dict[str, Any]) -> Mapping[str, np.ndarray]:
        from PIL import Image

        ((name, pixels),) = inputs.items()
        return predict({name: Image.fromarray(pixels[0].transpose(1, 2, 0).astype(np.uint8))})

    return with_picture


def network_input(crops: np.ndarray) -> np.ndarray:
    """(N, 112, 112, 3) uint8 BGR as (N, 3, 112, 112) float32 RGB in [0, 1]."""
    return np.ascontiguousarray(to_network_input(crops).transpose(0, 3, 1, 2))


def _in_batches(
    values: np.ndarray, size: int, run: Callable[[np.ndarray], list[np.ndarray]]
) -> list[np.ndarray]:
    """Run batches of exactly one size; the last is filled up with its last image."""
    pieces = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        pieces.append([out[: len(part)] for out in run(fill_batch(part, size))])
    return _joined(pieces)


def _joined(pieces: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
