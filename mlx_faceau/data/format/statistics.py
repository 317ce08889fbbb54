"""Numbers and a picture about a data set."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.output.plotting import new_figure

from . import schema
from .check import HISTOGRAM_EDGES, au_histogram
from .columns import MEASURES
from .dataset import FaceDataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    return {
        "samples": len(dataset),
        "outside": dataset.outside,
        "subjects": _distinct(dataset.subjects),
        "videos": _distinct(dataset.videos),
        "groups": dict(Counter([] if dataset.groups is None else dataset.groups.tolist())),
        "landmark_box": [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()],
        "pose": {
            name: _statistics(column)
            for name, column in zip(("scale", "rx", "ry", "rz", "tx", "ty"), pose.T, strict=True)
        },
        "action_units": {
            name: {**_statistics(column), "above_1": int((column > 1).sum())}
            for name, column in zip(AU_NAMES, units.T, strict=True)
        },
        "quality": {name: _statistics(values) for name, values in quality_of(dataset).items()},
    }


def quality_of(dataset: FaceDataset) -> dict[str, np.ndarray]:
    """The score and the measures of the samples that have them, by name; each (n,) float64."""
    found = {"score": dataset.quality.astype(np.float64)}
    with schema.opened(dataset.path) as file:
        for name in MEASURES:
            if f"metadata/measures/{name}" in file:
                values = file[f"metadata/measures/{name}"][:][dataset.rows].astype(np.float64)
                found[name] = values[np.isfinite(values)]
    return {name: values for name, values in found.items() if len(values)}


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


def draw_statistics(dataset: FaceDataset, path: Path) -> None:
    """Draw intensities, poses, quality, people and the mean face as a picture.

    Args:
        dataset: what to show.
        path: of the PNG.

    Raises:
        MissingDependency: without matplotlib.
    """
    figure = new_figure(13, 8)
    panels = figure.subplots(2, 3)
    for draw, axes in zip(
        (_draw_units, _draw_pose, _draw_places, _draw_quality, _draw_people, _draw_landmarks),
        panels.flat,
        strict=True,
    ):
        draw(axes, dataset)
    figure.suptitle(f"{dataset.path.name}: {len(dataset)} samples")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw_units(axes: "Axes", dataset: FaceDataset) -> None:
    counts = au_histogram(dataset.labels["au_intensities"])
    shares = counts / max(1, len(dataset))
    axes.imshow(np.sqrt(shares), aspect="auto", cmap="viridis", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        shade = "black" if shares[row, column] > 0.4 else "white"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=shade)
    axes.set_xticks(range(6), [f"{a:g}-{b:g}" for a, b in pairwise(HISTOGRAM_EDGES)])
    axes.set_yticks(range(len(AU_NAMES)), AU_NAMES, fontsize=7)
    axes.set_title("samples by intensity")


def _draw_pose(axes: "Axes", dataset: FaceDataset) -> None:
    angles = np.degrees(dataset.labels["global_params"][:, 1:4])
    for name, column in zip(("pitch", "yaw", "roll"), angles.T, strict=True):
        axes.hist(column, bins=np.linspace(-90, 90, 61).tolist(), histtype="step", label=name)
    axes.legend()
    axes.set_title("head pose, degrees")


def _draw_places(axes: "Axes", dataset: FaceDataset) -> None:
    pose = dataset.labels["global_params"]
    axes.scatter(pose[:, 4], pose[:, 5], s=4, alpha=0.3)
    axes.set_title("tx, ty, crop pixels")
    axes.invert_yaxis()


def _draw_quality(axes: "Axes", dataset: FaceDataset) -> None:
    axes.hist(dataset.quality, bins=np.linspace(0, 1, 41).tolist())
    axes.set_title("quality score")


def _draw_people(axes: "Axes", dataset: FaceDataset) -> None:
    kind = "subject" if dataset.subjects is not None else "video"
    names = dataset.subjects if dataset.subjects is not None else dataset.videos
    counts = sorted(Counter([] if names is None else names.tolist()).values(), reverse=True)
    axes.plot(range(1, len(counts) + 1), counts)
    axes.set_title(f"samples of each {kind}, {len(counts)} in all")
    axes.set_ylim(bottom=0)


def _draw_landmarks(axes: "Axes", dataset: FaceDataset) -> None:
    landmarks = dataset.labels["landmarks"]
    mean, spread = landmarks.mean(axis=0), landmarks.std(axis=0)
    axes.errorbar(mean[:, 0], mean[:, 1], spread[:, 1], spread[:, 0], fmt=".", lw=0.6)
    axes.set(xlim=(0, 112), ylim=(112, 0), aspect="equal", title="landmarks: mean and deviation")
