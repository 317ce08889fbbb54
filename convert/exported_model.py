"""An exported file, opened by whatever can evaluate it on this machine.

ONNX by onnxruntime; a Core ML package by the evaluator of :mod:`.mil` anywhere, and by Core ML
itself on macOS.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.artifact_metadata import ONNX_SUFFIX
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.preprocess import fill_batch, to_network_input

from .mil import IMAGE, Port, load_coremltools, read_mlpackage

EVALUATOR = "MIL evaluator"
ORT = "ONNX Runtime"
_BATCH = 32
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class ExportedModel:
    """A file opened by one runtime; ``call`` takes the batch that the file's input declares."""

    runtime: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    call: Callable[[np.ndarray], list[np.ndarray]]

    def run(self, crops: np.ndarray) -> list[np.ndarray]:
        """Outputs (N, ...) float32 in the file's order, of crops (N, 112, 112, 3) uint8 BGR."""
        size = self.inputs[0].shape[0]
        if isinstance(size, int):  # a fixed batch
            starts = [*range(0, len(crops), size)]
        else:  # free: one image, then a few at once, which all lie in the runtime's memory
            size, starts = 1, [0, *range(1, len(crops), _BATCH)]
        results = []
        for start, end in pairwise([*starts, len(crops)]):
            batch = fill_batch(self._values(crops[start:end]), size)
            results.append([output[: end - start] for output in self.call(batch)])
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]

    def _values(self, crops: np.ndarray) -> np.ndarray:
        dtype = self.inputs[0].dtype
        if dtype == IMAGE:  # Core ML hands an image over as its pixels, channels first
            return np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32)
        return crops if dtype == "uint8" else network_input(crops)


def network_input(crops: np.ndarray) -> np.ndarray:
    """(N, 112, 112, 3) uint8 BGR as (N, 3, 112, 112) float32 RGB in [0, 1]."""
    return np.ascontiguousarray(to_network_input(crops).transpose(0, 3, 1, 2))


def open_exported(path: Path) -> list[ExportedModel]:
    """The file in each runtime that this machine has for it."""
    if path.suffix == ONNX_SUFFIX:
        return [_open_onnx(path)]
    program = read_mlpackage(path)
    (image,), names = program.inputs, [port.name for port in program.outputs]

    def evaluate(batch: np.ndarray) -> list[np.ndarray]:
        outputs = program.run({image.name: batch})
        return [outputs[name] for name in names]

    opened = [ExportedModel(EVALUATOR, program.inputs, program.outputs, evaluate)]
    if platform.system() == "Darwin":
        predict = load_coremltools().models.MLModel(str(path)).predict

        def run_core_ml(batch: np.ndarray) -> list[np.ndarray]:
            value: Any = batch
            if image.dtype == IMAGE:
                from PIL import Image

                value = Image.fromarray(batch[0].transpose(1, 2, 0).astype(np.uint8))
            outputs = predict({image.name: value})
            return [outputs[name] for name in names]

        opened.append(ExportedModel("Core ML", program.inputs, program.outputs, run_core_ml))
    return opened


def _open_onnx(path: Path) -> ExportedModel:
    onnxruntime = import_library("onnxruntime", "cpu")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: float16 on a CPU is no news
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, outputs = (
        tuple(Port(v.name, _DTYPES.get(v.type, v.type), tuple(v.shape)) for v in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    name = inputs[0].name
    return ExportedModel(ORT, inputs, outputs, lambda batch: session.run(None, {name: batch}))
