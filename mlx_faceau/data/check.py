"""Checking and describing training files."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlx_faceau.errors import DatasetError
from mlx_faceau.facs import AU_NAMES, MAX_INTENSITY

from . import schema
from .hdf5 import FaceDataset

HISTOGRAM_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, MAX_INTENSITY)
_INSPECTED_IMAGES = 64
_SLOW_CHUNK_ROWS = 64


@dataclass
class Report:
    """What a check found.

    Attributes:
        failures: each makes the file unfit for training as it is; one line each.
        warnings: worth knowing; one line each.
        samples: number of usable samples, 0 where the file failed.
        histogram: (17, 6) samples of each action unit between :data:`HISTOGRAM_EDGES`, or None.
    """

    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    samples: int = 0
    histogram: np.ndarray | None = None


def check_file(path: str | os.PathLike[str]) -> Report:
    """Check a training file: schema, NaN, ranges, landmark space, constant units, images.

    Raises:
        DatasetError: if there is no such file or it cannot be read as HDF5 at all.
    """
    path = Path(path)
    report = Report()
    with schema.opened(path) as file:
        for step in (schema.check_root, schema.check_datasets, schema.au_order, _check_names):
            _collect(report, step, path, file)
        if not report.failures:
            _check_finite(report, file)
            _check_storage(report, file)
    if not report.failures:
        try:
            dataset = FaceDataset(path, keep_outside=True)
        except DatasetError as error:
            report.failures.append(_without_path(error, path))
        else:
            _check_values(report, dataset)
    return report


def au_histogram(au_intensities: np.ndarray) -> np.ndarray:
    """Samples of each action unit by intensity.

    Args:
        au_intensities: (N, 17); values outside [0, 5] are counted in no class.

    Returns:
        (17, 6) int64, classes between :data:`HISTOGRAM_EDGES`, the last one closed.
    """
    return np.stack([np.histogram(column, HISTOGRAM_EDGES)[0] for column in au_intensities.T])


def describe_dataset(dataset: FaceDataset) -> dict[str, Any]:
    """Numbers about a data set, as JSON values; angles in degrees.

    Keys: ``samples``, ``outside``, ``subjects``, ``videos``, ``landmark_box`` (pixels: least and
    greatest x and y), ``pose`` and ``action_units`` with statistics of each.
    """
    pose = dataset.labels["global_params"].copy()
    pose[:, 1:4] = np.degrees(pose[:, 1:4])
    points = dataset.labels["landmarks"].reshape(-1, 2)
    units = dataset.labels["au_intensities"]
    return {
        "samples": len(dataset),
        "outside": dataset.outside,
        "subjects": _distinct(dataset.subjects),
        "videos": _distinct(dataset.videos),
        "landmark_box": [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()],
        "pose": {
            name: _statistics(column)
            for name, column in zip(("scale", "rx", "ry", "rz", "tx", "ty"), pose.T, strict=True)
        },
        "action_units": {
            name: {**_statistics(column), "above_1": int((column > 1).sum())}
            for name, column in zip(AU_NAMES, units.T, strict=True)
        },
    }


def _distinct(texts: np.ndarray | None) -> int:
    return 0 if texts is None else len(set(texts.tolist()) - {""})


def _statistics(column: np.ndarray) -> dict[str, float]:
    column = column.astype(np.float64)
    return {
        "mean": float(column.mean()),
        "std": float(column.std()),
        "min": float(column.min()),
        "max": float(column.max()),
    }


def _collect(
    report: Report, step: Callable[[Path, h5py.File], object], path: Path, file: h5py.File
) -> None:
    try:
        step(path, file)
    except DatasetError as error:
        report.failures.append(_without_path(error, path))


def _without_path(error: DatasetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").removesuffix("; see 'mlx-faceau data check'")


def _check_names(path: Path, file: h5py.File) -> None:
    for name in ("subjects", "video_names", "groups"):
        schema.read_texts(path, file, name)


def _check_finite(report: Report, file: h5py.File) -> None:
    for name, shape in schema.LABEL_SHAPES.items():
        values = file[name][:].reshape(-1, int(np.prod(shape)))
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            report.failures.append(
                f"{name!r} holds NaN or inf in {bad.size} of {len(values)} samples, "
                f"first in row {bad[0]}"
            )


def _check_storage(report: Report, file: h5py.File) -> None:
    images = file["images"]
    rows = images.chunks[0] if images.chunks else 0
    if rows > _SLOW_CHUNK_ROWS:
        report.warnings.append(
            f"images lie in chunks of {rows} ({images.compression or 'uncompressed'}): random "
            "access is slow"
        )
    for name in ("subjects", "video_names"):
        if f"metadata/{name}" in file:
            return
    report.warnings.append("neither subjects nor videos are named: the file cannot be split")


def _check_values(report: Report, dataset: FaceDataset) -> None:
    report.samples = len(dataset)
    units, params = dataset.labels["au_intensities"], dataset.labels["global_params"]
    report.histogram = au_histogram(units)
    wrong = int(((units < 0) | (units > MAX_INTENSITY)).any(axis=1).sum())
    if wrong:
        report.failures.append(f"au_intensities leave [0, 5] in {wrong} samples")
    posed = params[dataset.masks["global_mask"] > 0]
    if (posed[:, 0] <= 0).any():
        report.failures.append(f"scale is not positive in {int((posed[:, 0] <= 0).sum())} samples")
    turned = int((np.abs(posed[:, 1:4]) > np.pi / 2).any(axis=1).sum())
    if turned:
        report.warnings.append(f"an angle exceeds 90 degrees in {turned} samples; in degrees?")
    if dataset.outside:
        where = report.failures if dataset.outside > len(dataset) / 2 else report.warnings
        where.append(f"{dataset.outside} of {len(dataset)} samples have landmarks outside the crop")
    constant = [name for name, column in zip(AU_NAMES, units.T, strict=True) if np.ptp(column) == 0]
    if constant:
        report.warnings.append(f"constant action units: {', '.join(constant)}")
    _check_images(report, dataset)


def _check_images(report: Report, dataset: FaceDataset) -> None:
    picked = np.unique(np.linspace(0, len(dataset) - 1, _INSPECTED_IMAGES).astype(np.int64))
    images = dataset.read_images(picked)
    flat = picked[np.ptp(images.reshape(len(picked), -1), axis=1) == 0]
    if flat.size:
        report.failures.append(
            f"{flat.size} of {len(picked)} images looked at are of one colour, "
            f"first in row {dataset.rows[flat[0]]}"
        )
