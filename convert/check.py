"""Checks that an exported file computes what its net computes, on the machine that wrote it.

The file is read back from the disk and evaluated: ONNX by onnxruntime; a Core ML package by the
evaluator of :mod:`.mil` anywhere, and by Core ML itself on macOS. The reference is the net in
float64. Torch's own float32 error stands beside every figure, because a fixed bound fails correct
files of ill-conditioned nets.
"""

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.artifact_metadata import ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.libraries import import_library
from mlx_faceau.core.preprocess import check_crops, fill_batch, to_network_input
from mlx_faceau.core.tolerances import FLOAT16_MEAN_ERROR, INT8_CHANGE, MAX_ERROR, OWN_ERRORS
from mlx_faceau.errors import ExportError, MissingDependency, UsageError

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingDependency("torch", extra="export") from error

from .mil import IMAGE, Port, load_coremltools, read_mlpackage
from .source_model import CombinedModel, SourceModel, read_source
from .variants import DYNAMIC, HALF_WEIGHTS

# A float16 file's bounds would hide a swapped channel in a net whose output varies little, so the
# evaluated file, whose rounding is known, is held to what float16 makes of the net's own float32
# error.
ROUNDING_RATIO = 2.0**13  # of float16's unit roundoff to float32's
SMALLEST_SHARE = 0.01  # of those bounds: what is below is rounding of the outputs themselves
# An int8 file's error on faces, of its worst number (a coordinate, an action unit), as a share of
# the variation between faces. Correct files of trained nets stay below 0.2; two swapped numbers or
# colours exceed 0.35. (A net with a HOG head feels swapped colours and landmarks less: the check of
# the unrounded graph before finds these.) What rounding costs is measured against labels.
INT8_SHARE = 0.3
MINIMUM_FACES = 2  # to measure on: one differs from nothing
_RECOLOURED = 32  # crops, of many
_PROBES = 8  # synthetic crops
_BATCH = 32
EVALUATOR = "MIL evaluator"
ORT = "ONNX Runtime"
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
_ROUNDING_KNOWN = (EVALUATOR, ORT)  # other hardware may add up in float16 as well


@dataclass(frozen=True)
class CalibrationFaces:
    """Faces that an int8 file is made and measured with."""

    # (N, 112, 112, 3) uint8 BGR: training subjects, whose activations set the scales.
    calibration: np.ndarray
    crops: np.ndarray  # (M, 112, 112, 3) uint8 BGR: other subjects
    labels: Mapping[str, np.ndarray]  # of the crops, by output name, with a leading M
    hash: str = ""  # of the file that the calibration faces came from

    def __post_init__(self) -> None:
        if not len(self.calibration) or len(self.crops) < MINIMUM_FACES:
            raise UsageError(
                "int8 needs faces to calibrate on and other people's, "
                f"{MINIMUM_FACES} or more, to measure on; there are {len(self.calibration)} and "
                f"{len(self.crops)}"
            )

    def recoloured(self) -> np.ndarray:
        """Up to 32 evenly spaced ``crops`` in coloured light: swapped colours show on grey ones."""
        picked = np.unique(np.linspace(0, len(self.crops) - 1, _RECOLOURED).astype(int))
        light = np.random.default_rng(0).uniform(0.3, 1, (len(picked), 1, 1, 3))
        return np.asarray(np.rint(self.crops[picked] * light), np.uint8)


@dataclass(frozen=True)
class AccuracyChange:
    """Mean absolute error of one output against labels: of the float32 net, and of the file."""

    output: str
    before: float
    after: float
    limit: float | None

    @property
    def passed(self) -> bool:
        return self.limit is None or bool(abs(self.after - self.before) <= self.limit)

    def line(self) -> str:
        """The figures as one line of a table."""
        bound = "-" if self.limit is None else f"{self.limit:g}"
        return (
            f"{self.output:<20} {self.before:9.4f} {self.after:9.4f} "
            f"{self.after - self.before:+9.4f} {bound:>7}  {'ok' if self.passed else 'LOST'}"
        )


@dataclass(frozen=True)
class Row:
    """How far one output of one runtime is from the float64 net, over all crops."""

    runtime: str
    output: str
    max_error: float
    mean_error: float
    worst_error: float  # largest mean error of one of the output's numbers
    own_error: float  # torch float32's largest error on the same crops
    limit: float
    limited: str  # which error the limit holds for: "max", "mean" or "worst"

    @property
    def passed(self) -> bool:
        return bool(getattr(self, f"{self.limited}_error") <= self.limit)  # false for NaN


@dataclass(frozen=True)
class Check:
    """The outcome of :func:`check_export`."""

    path: Path
    precision: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()  # of names, order, shapes, types or metadata
    changes: tuple[AccuracyChange, ...] = ()  # of an int8 file's error against labels

    @property
    def passed(self) -> bool:
        """Whether the file computes what its net computes; the changes are not part of it."""
        return not self.problems and all(row.passed for row in self.rows)

    def failures(self) -> str:
        """What failed, on one line; empty where nothing did."""
        rows = [
            f"{row.output} differs by {row.max_error:.3g} at most, {row.mean_error:.3g} on average "
            f"and {row.worst_error:.3g} in its worst number in {row.runtime} "
            f"({row.limited} limit {row.limit:.3g})"
            for row in self.rows
            if not row.passed
        ]
        lost = [
            f"int8 moves the error of {change.output} from {change.before:.4f} to "
            f"{change.after:.4f} (bound {change.limit:g})"
            for change in self.changes
            if not change.passed
        ]
        remedy = ["calibrate on more faces, export float16, or give --force"] if lost else []
        return "; ".join([*self.problems, *rows, *lost, *remedy])

    def table(self) -> str:
        """The rows as text, one line each under a header; what int8 changed under its own."""
        lines = [
            f"{'runtime':<14} {'output':<15} {'max':>9} {'mean':>9} {'worst':>9} "
            f"{'torch f32':>9} {'limit':>15}  result"
        ]
        lines += [
            f"{row.runtime:<14} {row.output:<15} {row.max_error:9.2e} {row.mean_error:9.2e} "
            f"{row.worst_error:9.2e} {row.own_error:9.2e} {row.limited:>5} {row.limit:9.2e}  "
            f"{'ok' if row.passed else 'FAILED'}"
            for row in self.rows
        ]
        lines += [f"FAILED: {problem}" for problem in self.problems]
        if self.changes:
            figures = f"{'float32':>9} {'int8':>9} {'change':>9} {'bound':>7}"
            lines.append(f"{'error against labels':<20} {figures}")
            lines += [change.line() for change in self.changes]
        return "\n".join(lines)


class CheckFailed(ExportError):
    """An exported file does not compute what its net computes, or int8 costs too much accuracy."""

    def __init__(self, check: Check) -> None:
        super().__init__(f"{check.path} fails its check and was not written: {check.failures()}")
        self.check = check


def verify_export(
    written: Path,
    name: Path,
    source: SourceModel | CombinedModel,
    faces: CalibrationFaces | None = None,
    force: bool = False,
) -> Check:
    """Check a temporary file that will get a name; measure it if it is int8, which has faces.

    CheckFailed is raised if it does not compute what its net computes, or if int8 costs more than
    the bound and is not forced.
    """
    crops = None if faces is None else faces.recoloured()
    check = replace(check_export(written, source, crops), path=name)
    if check.passed and faces is not None:
        check = replace(check, changes=measure_change(written, source, faces))
    lost = not force and not all(change.passed for change in check.changes)
    if lost or not check.passed:
        raise CheckFailed(check)
    return check


def measure_change(
    path: Path, source: SourceModel | CombinedModel, faces: CalibrationFaces
) -> tuple[AccuracyChange, ...]:
    """Errors of a net and of a file made from it on faces, of each output that has labels."""
    float32 = _torch_outputs(source, network_input(faces.crops), torch.float32)
    int8 = open_exported(path)[0].run(faces.crops)
    changes = []
    for name, *outputs in zip(source.output_shapes, float32, int8, strict=True):
        if name not in faces.labels:
            continue
        if name == "au_intensities":  # predictors clamp them
            outputs = [values.clip(0, MAX_INTENSITY) for values in outputs]
        before, after = (float(np.abs(v - faces.labels[name]).mean()) for v in outputs)
        changes.append(AccuracyChange(name, before, after, INT8_CHANGE.get(name)))
    return tuple(changes)


def check_export(
    path: Path | str, model_or_checkpoint: Any, crops: np.ndarray | None = None
) -> Check:
    """Compare an exported file with the float64 torch mirror of the net it was made from.

    Crops are (N, 112, 112, 3) uint8 BGR faces; None takes random colour patterns, which cannot
    judge an int8 file.
    """
    path, source = Path(path), read_source(model_or_checkpoint)
    metadata = read_exported_metadata(path) or {}
    source = next((p for p in source.parts if p.kind == metadata.get("kind")), source)
    precision = str(metadata.get("precision"))
    if precision == "int8" and (crops is None or len(crops) < MINIMUM_FACES):
        raise UsageError(
            "an int8 file's error is measured against how much faces differ; give as crops "
            f"{MINIMUM_FACES} or more like those of its calibration"
        )
    crops = probe_crops() if crops is None else check_crops(crops)
    if len(crops) == 0:
        raise UsageError("no crops to compare on; leave them out to take random patterns")
    images, names = network_input(crops), list(source.output_shapes)
    problems = [
        f"the metadata's {key} is {metadata.get(key)!r}, expected {value!r}"
        for key, value in source.metadata.items()
        if metadata.get(key) != value
    ]
    truth, own = (_torch_outputs(source, images, t) for t in (torch.float64, torch.float32))
    rows: list[Row] = []
    if precision == HALF_WEIGHTS:  # what rounding the weights costs; then the file, to the bit
        stored = source.rounded_to_half()
        exact, narrow = (_torch_outputs(stored, images, t) for t in (torch.float64, torch.float32))
        rows += _compare("float16 weights", names, exact, truth, own, "float16")
        truth, own = exact, narrow
    for exported in open_exported(path):
        wrong = list(_interface_problems(exported, source, metadata))
        problems += wrong
        if not wrong:
            outputs = exported.run(crops)
            rows += _compare(exported.runtime, names, outputs, truth, own, precision)
    return Check(path, precision, tuple(rows), tuple(problems))


def probe_crops() -> np.ndarray:
    """Seeded colour patterns, coarse to fine, as (8, 112, 112, 3) uint8 BGR.

    Every channel, position and size of detail matters to a net's output, so a swapped channel, a
    wrong scale or a shifted grid shows.
    """
    rng = np.random.default_rng(0)
    total = np.zeros((_PROBES, IMAGE_SIZE, IMAGE_SIZE, 3))
    for cells, weight in ((2, 0.5), (7, 0.3), (28, 0.2)):
        size = IMAGE_SIZE // cells
        pattern = rng.random((_PROBES, cells, cells, 3))
        total += weight * np.kron(pattern, np.ones((1, size, size, 1)))
    return (255 * total).astype(np.uint8)


def _torch_outputs(
    source: SourceModel | CombinedModel, images: np.ndarray, dtype: torch.dtype
) -> list[np.ndarray]:
    """The net's outputs in their order, float64."""
    net, batches = source.net(dtype), []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            outputs = net(torch.from_numpy(images[start : start + _BATCH]).to(dtype))
            batches.append([output.double().numpy() for output in outputs])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _compare(
    runtime: str,
    names: list[str],
    outputs: list[np.ndarray],
    truth: list[np.ndarray],
    own: list[np.ndarray],
    precision: str,
) -> list[Row]:
    rows = []
    for name, got, true, float32 in zip(names, outputs, truth, own, strict=True):
        error, own_error = np.abs(got - true), np.abs(float32 - true)
        if precision == "int8":
            variation = float(np.abs(true - true.mean(axis=0)).mean())  # from one face to the next
            limit, limited = INT8_SHARE * variation, "worst"
        elif precision == "float16":
            limit, limited = FLOAT16_MEAN_ERROR[name], "mean"
            if runtime in _ROUNDING_KNOWN:
                rounding = OWN_ERRORS * ROUNDING_RATIO * float(own_error.mean())
                limit = min(limit, max(SMALLEST_SHARE * limit, rounding))
        else:
            limit, limited = max(MAX_ERROR[name], OWN_ERRORS * float(own_error.max())), "max"
        errors = error.max(), error.mean(), error.mean(axis=0).max(), own_error.max()
        largest, mean, worst, own_largest = map(float, errors)
        rows.append(Row(runtime, name, largest, mean, worst, own_largest, limit, limited))
    return rows


def _interface_problems(
    exported: "ExportedModel", source: SourceModel | CombinedModel, metadata: Mapping[str, Any]
) -> Iterator[str]:
    """Differences from the names, order, shapes and types that every exported file has."""
    planes, batch = (3, IMAGE_SIZE, IMAGE_SIZE), metadata.get("batch", DYNAMIC)
    images = {"uint8": ("uint8", (IMAGE_SIZE, IMAGE_SIZE, 3)), "image": (IMAGE, planes)}
    inputs: dict[str, Any] = {"image": images.get(str(metadata.get("input")), ("float32", planes))}
    outputs: dict[str, Any] = {
        name: ("float32", shape) for name, shape in source.output_shapes.items()
    }
    for role, ports, expected in (
        ("input", exported.inputs, inputs),
        ("output", exported.outputs, outputs),
    ):
        names = [port.name for port in ports]
        if names != list(expected):
            yield f"the {role}s are {names}, expected {list(expected)}"
            continue
        for port in ports:
            dtype, shape = expected[port.name]
            size = port.shape[0]
            right_batch = isinstance(size, str) if batch == DYNAMIC else size == batch
            if (port.dtype, port.shape[1:]) != (dtype, shape) or not right_batch:
                yield (
                    f"{role} {port.name} is {port.dtype} {port.shape}, expected {dtype} "
                    f"({'batch' if batch == DYNAMIC else batch}, {', '.join(map(str, shape))})"
                )


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
            try:
                outputs = predict({image.name: value})
            except Exception as error:  # coremltools raises the base class itself
                raise ExportError(f"{path}: Core ML cannot run it: {error}") from None
            return [outputs[name] for name in names]

        opened.append(ExportedModel("Core ML", program.inputs, program.outputs, run_core_ml))
    return opened


def _open_onnx(path: Path) -> ExportedModel:
    onnxruntime = import_library("onnxruntime", "cpu")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: float16 on a CPU is no news
    # Not by its path: the library takes names of UTF-8 alone.
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    inputs, outputs = (
        tuple(Port(v.name, _DTYPES.get(v.type, v.type), tuple(v.shape)) for v in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    name = inputs[0].name
    return ExportedModel(ORT, inputs, outputs, lambda batch: session.run(None, {name: batch}))
