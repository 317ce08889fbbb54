"""Statistics of a data set, as numbers and as a plot."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.plural import counted
from mlx_faceau.output.plotting import new_figure

from . import schema
from .check import HISTOGRAM_EDGES, au_histogram
from .columns import MEASURES
from .dataset import FaceDataset


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
