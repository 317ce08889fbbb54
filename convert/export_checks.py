"""What an exported file must pass before it stays: its check, and for int8 its accuracy.

What rounding to int8 costs is the mean absolute error against labels, before and after.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.tolerances import INT8_CHANGE
from mlx_faceau.errors import ExportError, UsageError

from .check import FEWEST_INT8, Change, Check, CheckFailed, check_export
from .export_source import Pair, Source
from .exported_model import network_input, open_artefacts

_BATCH = 32
_RECOLOURED = 32  # crops, of many


@dataclass(frozen=True)
class Faces:
    """Faces that an int8 file is made and judged with.

    Args:
        calibration: (N, 112, 112, 3) uint8 BGR: training people, whose activations set the scales.
        crops: (M, 112, 112, 3) uint8 BGR: other people.
        labels: of ``crops``, by output name, with a leading M.
        hash: says which file the calibration faces came from.

    Raises:
        ValueError: if there are none to calibrate on, or fewer than two others.
    """

    calibration: np.ndarray
    crops: np.ndarray
    labels: Mapping[str, np.ndarray]
    hash: str = ""

    def __post_init__(self) -> None:
        if not len(self.calibration) or len(self.crops) < FEWEST_INT8:
            raise UsageError(
                f"int8 needs faces to calibrate on and other people's, {FEWEST_INT8} or more, to "
                f"measure on; there are {len(self.calibration)} and {len(self.crops)}"
            )

    def recoloured(self) -> np.ndarray:
        """Up to 32 evenly spaced ``crops`` in coloured light: swapped colours show on grey ones."""
        picked = np.unique(np.linspace(0, len(self.crops) - 1, _RECOLOURED).astype(int))
        light = np.random.default_rng(0).uniform(0.3, 1, (len(picked), 1, 1, 3))
        return np.asarray(np.rint(self.crops[picked] * light), np.uint8)


class AccuracyLost(ExportError):
    """An int8 file is further from the labels than its net by more than the bound."""

    def __init__(self, check: Check) -> None:
        lost = "; ".join(
            f"{c.output} from {c.before:.4f} to {c.after:.4f} (bound {c.limit:g})"
            for c in check.changes
            if not c.passed
        )
        super().__init__(
            f"{check.path} was not written: int8 moves the error against the labels of {lost}; "
            "calibrate on more faces, export float16, or give --force"
        )
        self.check = check


def prove(
    written: Path,
    name: Path,
    source: Source | Pair,
    faces: Faces | None = None,
    force: bool = False,
) -> Check:
    """Check a file that was just written, and measure it if it is int8.

    Args:
        written: where it lies.
        name: what it will be called.
        source: the net or nets it was made from.
        faces: of an int8 file, None for others.
        force: let it lose accuracy.

    Raises:
        CheckFailed: if it does not compute what its net computes.
        AccuracyLost: if int8 costs more than the bound.
    """
    crops = None if faces is None else faces.recoloured()
    check = check_export(written, source, crops).renamed(name)
    if not check.passed:
        raise CheckFailed(check)
    if faces is not None:
        check = replace(check, changes=measure_change(written, source, faces))
        if not force and not all(change.passed for change in check.changes):
            raise AccuracyLost(check)
    return check


def measure_change(path: Path, source: Source | Pair, faces: Faces) -> tuple[Change, ...]:
    """Errors of a net and of a file made from it on the same labelled faces.

    Returns:
        One entry for each output that has labels, intensities clamped to [0, 5] as predictors do.
    """
    artefact = open_artefacts(path)[0]
    rounded = artefact.run(faces.crops)
    exact = _float32_outputs(source, faces.crops)
    changes = []
    for name, before, after in zip(source.output_shapes, exact, rounded, strict=True):
        if name not in faces.labels:
            continue
        before_error, after_error = (
            float(np.abs(_predicted(name, values) - faces.labels[name]).mean())
            for values in (before, after)
        )
        changes.append(Change(name, before_error, after_error, INT8_CHANGE.get(name)))
    return tuple(changes)


def _float32_outputs(source: Source | Pair, crops: np.ndarray) -> list[np.ndarray]:
    net = source.net()
    pieces = []
    with torch.inference_mode():
        for start in range(0, len(crops), _BATCH):
            images = torch.from_numpy(network_input(crops[start : start + _BATCH]))
            pieces.append([output.numpy() for output in net(images)])
    return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def _predicted(name: str, values: np.ndarray) -> np.ndarray:
    return values.clip(0, MAX_INTENSITY) if name == "au_intensities" else values
