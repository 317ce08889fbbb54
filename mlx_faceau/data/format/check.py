"""Checking training files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, out_of_range
from mlx_faceau.core.geometry import CROP_CENTRE, CROP_MARGIN
from mlx_faceau.core.plural import counted
from mlx_faceau.errors import DatasetError

from . import schema
from .dataset import ConcatDataset, FaceDataset
from .identity import (
    duplicate_faces,
    face_digests,
    people_names,
    shown_name,
    spellings,
)

HISTOGRAM_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, MAX_INTENSITY)
_INSPECTED_IMAGES = 64
_MARGIN_TOLERANCE = 0.15  # of the standard crop's margin, before it is worth a warning
_MIN_SAMPLES = 100  # from which the scale of the intensities is judged by their values
_SLOW_CHUNK_ROWS = 64


@dataclass
class CheckReport:
    """The findings of a check, one line each."""

    failures: list[str] = field(default_factory=list)  # make the file unfit for training as it is
    warnings: list[str] = field(default_factory=list)
    samples: int = 0  # number of usable samples, 0 where the file failed
    histogram: np.ndarray | None = None  # of :func:`au_histogram`


def check_file(
    path: str | os.PathLike[str], against: str | os.PathLike[str] | None = None
) -> CheckReport:
    """Check a training file: schema, NaN, ranges, landmark space, constant units, images.

    It must share neither people nor images with the file ``against``, such as the validation file
    of a split.
    """
    path = Path(path)
    report = CheckReport()
    steps: list[Callable[..., object]]
    steps = [schema.check_root, schema.check_datasets, schema.au_order]
    steps += [partial(schema.read_texts, name=name) for name in schema.TEXTS]
    with schema.opened(path) as file:
        for step in steps:
            try:
                step(path, file)
            except DatasetError as error:
                report.failures.append(_without_path(error, path))
        if report.failures:
            return report
        images = file["images"]
        if (rows := images.chunks[0] if images.chunks else 0) > _SLOW_CHUNK_ROWS:
            report.warnings.append(
                f"images lie in chunks of {rows} ({images.compression or 'uncompressed'}): "
                "random access is slow"
            )
        if not any(f"metadata/{name}" in file for name in ("subjects", "video_names")):
            report.warnings.append(
                "neither subjects nor videos are named: the file cannot be split"
            )
    try:
        dataset = FaceDataset(path, keep_outside=True)
    except DatasetError as error:
        report.failures.append(_without_path(error, path))
        return report
    for check in (_check_values, _check_spaces, _check_images, _check_people):
        check(report, dataset)
    if against is not None:
        report.failures += find_overlap(dataset, FaceDataset(against, keep_outside=True))
    return report


def check_intensities(intensities: np.ndarray, source: object) -> None:
    """Raise DatasetError, naming ``source``, if an intensity of (N, 17) leaves [0, 5]."""
    if wrong := out_of_range(intensities):
        raise DatasetError(
            f"{source}: action unit intensities leave [0, 5] in {wrong} of {len(intensities)} "
            "faces; run 'mlx-faceau data check' on it, then correct or remove them"
        )


def find_overlap(one: FaceDataset, other: FaceDataset) -> list[str]:
    """Lines on people and faces that are in both data sets, as none may be after a split."""
    found = []
    _, names = people_names(ConcatDataset([one, other]), strict=False)
    shared = set(names[: len(one)]) & set(names[len(one) :])
    for kind in ("subject", "video"):
        if both := sorted(shown_name(name) for name in shared if name.startswith(kind[0])):
            found.append(f"{counted(len(both), kind)} also in {other.path}: {_first_three(both)}")
    sides = np.repeat(["one", "other"], [len(one), len(other)])
    digests = np.concatenate([face_digests(one), face_digests(other)])
    groups = duplicate_faces(digests, sides)
    if rows := {row for group in groups for row in group.tolist() if row < len(one)}:
        faces = counted(len(rows), "face")
        found.append(f"{faces} also in {other.path}, by their image or all labels")
    return found


def _first_three(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (" ..." if len(texts) > 3 else "")


def absent_units(intensities: np.ndarray) -> list[str]:
    """Names of the action units that are above 0 in none of the faces (N, 17)."""
    absent = np.flatnonzero(~(intensities > 0).any(axis=0))
    return [AU_NAMES[i] for i in absent.tolist()]


def au_histogram(au_intensities: np.ndarray) -> np.ndarray:
    """(17, 6) int64 numbers of samples between :data:`HISTOGRAM_EDGES` for each action unit.

    Values (N, 17) outside [0, 5] are in no class; the last one is closed.
    """
    return np.stack([np.histogram(column, HISTOGRAM_EDGES)[0] for column in au_intensities.T])


def _without_path(error: DatasetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").removesuffix("; see 'mlx-faceau data check'")


def _check_values(report: CheckReport, dataset: FaceDataset) -> None:
    report.samples = len(dataset)
    units, params = dataset.labels["au_intensities"], dataset.labels["global_params"]
    report.histogram = au_histogram(units)
    if wrong := out_of_range(units):
        report.failures.append(f"au_intensities leave [0, 5] in {counted(wrong, 'sample')}")
    posed = params[dataset.masks["global_mask"] > 0]
    if wrong := int((posed[:, 0] <= 0).sum()):
        report.failures.append(f"scale is not positive in {counted(wrong, 'sample')}")
    if turned := int((np.abs(posed[:, 1:4]) > np.pi / 2).any(axis=1).sum()):
        count = counted(turned, "sample")
        report.warnings.append(f"an angle exceeds 90 degrees in {count}; in degrees?")
    if dataset.outside:
        where = report.failures if dataset.outside > len(dataset) / 2 else report.warnings
        where.append(f"{dataset.outside} of {len(dataset)} samples have landmarks outside the crop")
    if units.max() <= 0:
        report.warnings.append(
            "no face shows any action unit: all intensities are 0, so the file is for landmark "
            "nets alone"
        )
    elif absent := absent_units(units):
        report.warnings.append(f"action units that no face shows: {', '.join(absent)}")
    constant = np.flatnonzero((np.ptp(units, axis=0) == 0) & (units[0] > 0)).tolist()
    if constant:
        names = ", ".join(AU_NAMES[i] for i in constant)
        report.warnings.append(f"constant action units: {names}")
    if len(units) >= _MIN_SAMPLES and 0 < units.max() <= 1:
        report.warnings.append("no action unit exceeds 1: intensities are on a scale of 0 to 5")
    if not ((dataset.quality >= 0) & (dataset.quality <= 1)).all():
        report.failures.append("quality_scores leave [0, 1], or are NaN")


def _check_people(report: CheckReport, dataset: FaceDataset) -> None:
    """Whether one person may have several names."""
    for kind, texts in (("subject", dataset.subjects), ("video", dataset.videos)):
        for written in spellings(texts):
            report.warnings.append(
                f"taken as one {kind}: {', '.join(map(repr, written))}, which differ in case, "
                "spaces, hyphens or the like"
            )
    by, names = people_names(dataset, strict=False)
    if groups := list(duplicate_faces(face_digests(dataset), names)):
        rows = sorted({row for group in groups for row in group.tolist()})
        pairs = {tuple(sorted(set(map(shown_name, names[group])))) for group in groups}
        same = _first_three([" = ".join(filter(None, pair)) for pair in sorted(pairs)])
        report.warnings.append(
            f"{len(rows)} samples hold faces that have several {by} names ({same}), "
            f"first in row {dataset.rows[rows[0]]}: these are taken as one {by}"
        )


def _check_spaces(report: CheckReport, dataset: FaceDataset) -> None:
    """Whether landmarks and poses lie where a standard crop has them."""
    landmarks = dataset.labels["landmarks"]
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    side = float(np.median((high - low).max(axis=1)))
    if side <= 2:
        report.failures.append("landmarks span less than 2 pixels: fractions instead of pixels?")
        return
    posed = dataset.masks["global_mask"] > 0
    shift = dataset.labels["global_params"][:, 4:][posed]
    outside = ((shift < low[posed]) | (shift > high[posed])).any(axis=1)
    if outside.sum() > len(outside) / 2:
        report.failures.append(
            f"tx, ty of {counted(int(outside.sum()), 'sample')} lie outside their landmarks: "
            "global_params are not in crop space"
        )
    expected = IMAGE_SIZE / CROP_MARGIN
    centre = np.median((low + high) / 2, axis=0) - CROP_CENTRE
    if max(abs(side - expected), np.abs(centre).max()) > _MARGIN_TOLERANCE * expected:
        report.warnings.append(
            f"crops are not the standard ones: landmarks span {side:.0f} px (expected "
            f"{expected:.0f}) around {centre[0]:+.0f}, {centre[1]:+.0f} px from the middle"
        )


def _check_images(report: CheckReport, dataset: FaceDataset) -> None:
    picked = np.unique(np.linspace(0, len(dataset) - 1, _INSPECTED_IMAGES).astype(np.int64))
    images = dataset.read_images(picked)
    flat = picked[np.ptp(images.reshape(len(picked), -1), axis=1) == 0]
    if flat.size:
        report.failures.append(
            f"{flat.size} of {len(picked)} images inspected are of one colour, "
            f"first in row {dataset.rows[flat[0]]}"
        )
