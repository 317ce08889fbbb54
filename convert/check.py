"""Proof that an exported file computes what its net computes, on the machine that wrote it.

The file is read back from the disk and evaluated: ONNX by onnxruntime; a Core ML package by the
MIL evaluator of :mod:`.mil` anywhere, and by Core ML itself on macOS. The truth is the net in
float64. Torch's own float32 error stands beside every figure, because a fixed bound fails honest
files of ill-conditioned nets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.architectures import IMAGE_SIZE, ModelConfig
from mlx_faceau.errors import ExportError, MissingDependency
from mlx_faceau.exported import read_exported_metadata
from mlx_faceau.preprocess import to_network_input

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingDependency("torch", extra="export") from error

from .artefact import EVALUATOR, Artefact, open_artefacts
from .source import Source, read_source

# Largest error of a float32 file (SPEC section 7); of a net whose own float32 error is larger
# than that, OWN_ERRORS times as much.
MAX_ERROR = {
    "landmarks": 1e-3,
    "global_params": 1e-3,
    "local_params": 1e-3,
    "au_intensities": 1e-4,
}
OWN_ERRORS = 4.0
# Mean error of a float16 file. SPEC section 7 bounds the landmarks (px) and the intensities; pose
# (px, radians) and shape parameters are held to the same measure as the landmarks they make.
# That would hide a swapped channel in a net that answers all faces much alike, so the evaluated
# file, whose rounding is known, is held to what float16 makes of the net's own float32 error.
FLOAT16_MEAN_ERROR = {
    "landmarks": 0.1,
    "global_params": 0.1,
    "local_params": 0.1,
    "au_intensities": 0.02,
}
ROUNDING_RATIO = 2.0**13  # of float16's unit roundoff to float32's
SMALLEST_SHARE = 0.01  # of the bounds above: what is below is rounding of the outputs themselves


@dataclass(frozen=True)
class Row:
    """How far one output of one runtime is from the float64 net, over all crops."""

    runtime: str
    output: str
    max_error: float
    mean_error: float
    own_error: float  # torch float32's largest error on the same crops
    variation: float  # mean deviation of the truth from one crop to the next
    limit: float
    limited: str  # which of the two errors the limit holds for: "max" or "mean"

    @property
    def passed(self) -> bool:
        error = self.max_error if self.limited == "max" else self.mean_error
        return bool(error <= self.limit)  # false for NaN


@dataclass(frozen=True)
class Check:
    """The outcome of :func:`check_export`."""

    path: Path
    precision: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()  # of names, order, shapes, types or metadata

    @property
    def passed(self) -> bool:
        return not self.problems and all(row.passed for row in self.rows)

    def renamed(self, path: Path) -> "Check":
        """The same outcome for a file that has moved."""
        return replace(self, path=path)

    def failures(self) -> str:
        """What failed, on one line; empty where nothing did."""
        rows = [
            f"{row.output} differs by {row.max_error:.3g} at most, {row.mean_error:.3g} on average "
            f"in {row.runtime} ({row.limited} limit {row.limit:.3g})"
            for row in self.rows
            if not row.passed
        ]
        return "; ".join([*self.problems, *rows])

    def table(self) -> str:
        """The rows as text, one line each under a header."""
        lines = [
            f"{'runtime':<14} {'output':<15} {'largest':>9} {'mean':>9} "
            f"{'torch f32':>9} {'limit':>14} {'varies by':>9}  result"
        ]
        lines += [
            f"{row.runtime:<14} {row.output:<15} {row.max_error:9.2e} {row.mean_error:9.2e} "
            f"{row.own_error:9.2e} {row.limited:>4} {row.limit:9.2e} {row.variation:9.2e}  "
            f"{'ok' if row.passed else 'FAILED'}"
            for row in self.rows
        ]
        return "\n".join([*lines, *(f"FAILED: {problem}" for problem in self.problems)])


class CheckFailed(ExportError):
    """An exported file does not compute what its net computes; the check says where."""

    def __init__(self, check: Check) -> None:
        super().__init__(f"{check.path} fails its check and was not written: {check.failures()}")
        self.check = check


def check_export(
    path: Path | str, model_or_checkpoint: Any, crops: np.ndarray | None = None
) -> Check:
    """Compare an exported file with the float64 torch mirror of the net it was made from.

    Args:
        path: an ``.onnx`` file or ``.mlpackage`` folder.
        model_or_checkpoint: see :func:`~mlx_faceau.convert.source.read_source`.
        crops: (N, 112, 112, 3) uint8 BGR faces; None takes drawn colour patterns.

    Raises:
        CheckpointError: if the file or the checkpoint cannot be read.
        MissingDependency: without onnxruntime for an ``.onnx`` file.
        ValueError: if the crops are no crops, or none.
    """
    path, source = Path(path), read_source(model_or_checkpoint)
    images = to_network_input(probe_crops() if crops is None else crops)
    if len(images) == 0:
        raise ValueError("no crops to compare on; leave them out to take drawn ones")
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    metadata = read_exported_metadata(path) or {}
    precision = str(metadata.get("precision"))
    problems = list(_metadata_problems(metadata, source))
    truth = _torch_outputs(source, images, torch.float64)
    own = _torch_outputs(source, images, torch.float32)
    rows: list[Row] = []
    for artefact in open_artefacts(path):
        wrong = _interface_problems(artefact, source.config)
        problems += wrong
        if not wrong:
            outputs = artefact.run(images)
            rows += _compare(artefact.runtime, source.config, outputs, truth, own, precision)
    return Check(path, precision, tuple(rows), tuple(problems))


def probe_crops(count: int = 8) -> np.ndarray:
    """Seeded colour patterns, coarse to fine, as (count, 112, 112, 3) uint8 BGR.

    Every channel, position and size of detail matters to a net's answer, so a swapped channel, a
    wrong scale or a shifted grid shows.
    """
    rng = np.random.default_rng(0)
    total = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE, 3))
    for cells, weight in ((2, 0.5), (7, 0.3), (28, 0.2)):
        pattern = rng.random((count, cells, cells, 3))
        total += weight * np.kron(
            pattern, np.ones((1, IMAGE_SIZE // cells, IMAGE_SIZE // cells, 1))
        )
    return (255 * total).astype(np.uint8)


def _torch_outputs(source: Source, images: np.ndarray, dtype: torch.dtype) -> list[np.ndarray]:
    with torch.inference_mode():
        outputs = source.net(dtype)(torch.from_numpy(images).to(dtype))
    return [output.double().numpy() for output in outputs]


def _compare(
    runtime: str,
    config: ModelConfig,
    outputs: list[np.ndarray],
    truth: list[np.ndarray],
    own: list[np.ndarray],
    precision: str,
) -> list[Row]:
    rows = []
    for name, got, true, float32 in zip(config.output_shapes, outputs, truth, own, strict=True):
        error, own_error = np.abs(got - true), np.abs(float32 - true)
        limited = "mean" if precision == "float16" else "max"
        rows.append(
            Row(
                runtime=runtime,
                output=name,
                max_error=float(error.max()),
                mean_error=float(error.mean()),
                own_error=float(own_error.max()),
                variation=float(np.abs(true - true.mean(axis=0)).mean()),
                limit=_limit(name, own_error, precision, runtime),
                limited=limited,
            )
        )
    return rows


def _limit(name: str, own_error: np.ndarray, precision: str, runtime: str) -> float:
    if precision != "float16":
        return max(MAX_ERROR[name], OWN_ERRORS * float(own_error.max()))
    bound = FLOAT16_MEAN_ERROR[name]
    if runtime != EVALUATOR:  # hardware may add up in float16 as well
        return bound
    rounding = OWN_ERRORS * ROUNDING_RATIO * float(own_error.mean())
    return min(bound, max(SMALLEST_SHARE * bound, rounding))


def _metadata_problems(metadata: Mapping[str, Any], source: Source) -> list[str]:
    return [
        f"the metadata's {key} is {metadata.get(key)!r}, expected {value!r}"
        for key, value in source.metadata.items()
        if metadata.get(key) != value
    ]


def _interface_problems(artefact: Artefact, config: ModelConfig) -> list[str]:
    """Differences from SPEC section 8's names, order, shapes and types."""
    expected = (
        ("input", artefact.inputs, {"image": (3, IMAGE_SIZE, IMAGE_SIZE)}),
        ("output", artefact.outputs, config.output_shapes),
    )
    problems = []
    for role, ports, shapes in expected:
        names = [port.name for port in ports]
        if names != list(shapes):
            problems.append(f"the {role}s are {names}, expected {list(shapes)}")
            continue
        for port in ports:
            if (port.dtype, port.shape[1:]) != ("float32", shapes[port.name]):
                problems.append(
                    f"{role} {port.name} is {port.dtype} {port.shape}, "
                    f"expected float32 (batch, {', '.join(map(str, shapes[port.name]))})"
                )
    return problems
