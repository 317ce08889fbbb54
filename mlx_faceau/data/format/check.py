"""Checking and describing training files, damaged ones in a process that may crash."""

import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, out_of_range
from mlx_faceau.core.geometry import CROP_CENTRE, CROP_MARGIN
from mlx_faceau.errors import DatasetError, counted
from mlx_faceau.output.plotting import new_figure

from . import identity, schema
from .columns import MEASURES
from .dataset import ConcatDataset, FaceDataset

HISTOGRAM_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, MAX_INTENSITY)
_INSPECTED_IMAGES = 64
_MARGIN_TOLERANCE = 0.15  # of the standard crop's margin, before it is worth a warning
_MIN_SAMPLES = 100  # from which the scale of the intensities is judged by their values
_SLOW_CHUNK_ROWS = 64
Result = TypeVar("Result")

_SECONDS = 120.0  # for a small file
_BYTES_PER_SECOND = 1e6  # more time for large ones; the slowest network disk is faster


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
    _, names = identity.people_names(ConcatDataset([one, other]), strict=False)
    shared = set(names[: len(one)]) & set(names[len(one) :])
    for kind in ("subject", "video"):
        if both := sorted(identity.shown_name(name) for name in shared if name.startswith(kind[0])):
            found.append(f"{counted(len(both), kind)} also in {other.path}: {_first_three(both)}")
    sides = np.repeat(["one", "other"], [len(one), len(other)])
    digests = np.concatenate([identity.face_digests(one), identity.face_digests(other)])
    groups = identity.duplicate_faces(digests, sides)
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
        for written in identity.spellings(texts):
            report.warnings.append(
                f"taken as one {kind}: {', '.join(map(repr, written))}, which differ in case, "
                "spaces, hyphens or the like"
            )
    by, names = identity.people_names(dataset, strict=False)
    if groups := list(identity.duplicate_faces(identity.face_digests(dataset), names)):
        rows = sorted({row for group in groups for row in group.tolist()})
        pairs = {tuple(sorted(set(map(identity.shown_name, names[group])))) for group in groups}
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


def describe_dataset(dataset: FaceDataset) -> dict[str, Any]:
    """Numbers about a data set, as JSON values; angles in degrees.

    Keys: ``samples``, ``outside``, ``subjects``, ``videos``, ``groups`` (samples of each),
    ``landmark_box`` (pixels: least and greatest x and y); ``pose``, ``action_units`` and
    ``quality`` (the score and, where they are stored, its measures) with statistics of each.
    """
    pose = dataset.labels["global_params"].copy()
    pose[:, 1:4] = np.degrees(pose[:, 1:4])
    points = dataset.labels["landmarks"].reshape(-1, 2)
    units = dataset.labels["au_intensities"]
    subjects, videos, groups = (
        Counter([] if texts is None else texts.tolist())
        for texts in (dataset.subjects, dataset.videos, dataset.groups)
    )
    quality = {"score": dataset.quality}
    with schema.opened(dataset.path) as file:
        for name in MEASURES:
            if f"metadata/measures/{name}" in file:
                values = file[f"metadata/measures/{name}"][:][dataset.rows]
                quality[name] = values[np.isfinite(values)]
    return {
        "samples": len(dataset),
        "outside": dataset.outside,
        "subjects": len(subjects.keys() - {""}),
        "videos": len(videos.keys() - {""}),
        "groups": dict(groups),
        "landmark_box": [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()],
        "pose": {
            name: _statistics(column)
            for name, column in zip(("scale", "rx", "ry", "rz", "tx", "ty"), pose.T, strict=True)
        },
        "action_units": {
            name: {**_statistics(column), "above_1": int((column > 1).sum())}
            for name, column in zip(AU_NAMES, units.T, strict=True)
        },
        "quality": {name: _statistics(column) for name, column in quality.items() if len(column)},
    }


def _statistics(column: np.ndarray) -> dict[str, float]:
    column = column.astype(np.float64)
    return {name: float(getattr(column, name)()) for name in ("mean", "std", "min", "max")}


def draw_statistics(dataset: FaceDataset, path: Path) -> None:
    """Plot intensities, poses, quality, subjects and the mean face as a PNG."""
    figure = new_figure(13, 8)
    units, angles, places, quality, people, points = figure.subplots(2, 3).flat
    counts = au_histogram(dataset.labels["au_intensities"])
    shares = counts / max(1, len(dataset))
    units.imshow(np.sqrt(shares), aspect="auto", cmap="viridis", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        shade = "black" if shares[row, column] > 0.4 else "white"
        units.text(column, row, str(count), ha="center", va="center", fontsize=7, color=shade)
    units.set_xticks(range(6), [f"{a:g}-{b:g}" for a, b in pairwise(HISTOGRAM_EDGES)])
    units.set_yticks(range(len(AU_NAMES)), AU_NAMES, fontsize=7)
    units.set_title("samples by intensity")

    pose = dataset.labels["global_params"]
    for name, column in zip(("pitch", "yaw", "roll"), np.degrees(pose[:, 1:4]).T, strict=True):
        angles.hist(column, bins=np.linspace(-90, 90, 61).tolist(), histtype="step", label=name)
    angles.legend()
    angles.set_title("head pose, degrees")
    places.scatter(pose[:, 4], pose[:, 5], s=4, alpha=0.3)
    places.set_title("tx, ty, crop pixels")
    places.invert_yaxis()

    quality.hist(dataset.quality, bins=np.linspace(0, 1, 41).tolist())
    quality.set_title("quality score")
    kind = "subject" if dataset.subjects is not None else "video"
    names = dataset.subjects if dataset.subjects is not None else dataset.videos
    sizes = sorted(Counter([] if names is None else names.tolist()).values(), reverse=True)
    people.plot(range(1, len(sizes) + 1), sizes)
    people.set_title(f"samples of each {kind}, {len(sizes)} in all")
    people.set_ylim(bottom=0)

    landmarks = dataset.labels["landmarks"]
    mean, spread = landmarks.mean(axis=0), landmarks.std(axis=0)
    points.errorbar(mean[:, 0], mean[:, 1], spread[:, 1], spread[:, 0], fmt=".", lw=0.6)
    points.set(xlim=(0, 112), ylim=(112, 0), aspect="equal", title="landmarks: mean and deviation")
    figure.suptitle(f"{dataset.path.name}: {counted(len(dataset), 'sample')}")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def run_in_subprocess(
    function: Callable[..., Result], path: Path, *more: Any, seconds: float | None = None
) -> Result:
    """The result, or the exception, of ``function(path, *more)``, called in another process.

    The function is one of the top of a module, and its result can be pickled. DatasetError is
    raised if the process dies or takes longer than ``seconds``, or as the file's size allows.
    """
    if seconds is None:
        size = path.stat().st_size if path.exists() else 0
        seconds = _SECONDS + size / _BYTES_PER_SECOND
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, path, *more), daemon=True)
    process.start()
    sender.close()
    end = f"hung for {seconds:.0f} seconds"
    try:
        if receiver.poll(seconds):
            found = receiver.recv()
            if isinstance(found, Exception):
                raise found
            return found  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        status = process.exitcode or 0
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        end = f"died ({cause})"
    finally:
        process.kill()
        process.join()
        receiver.close()
    raise DatasetError(
        f"{path}: the process that read it {end}: the file is damaged; write it again"
    )


def _call(sender: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the caller handles it
    logging.basicConfig(format="%(message)s")
    try:
        sender.send(function(*arguments))
    except Exception as error:  # raised again by the caller
        sender.send(error)
