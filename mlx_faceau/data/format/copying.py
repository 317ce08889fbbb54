"""Rows of existing training files, whole: what merging, splitting and converting are made of."""

from collections.abc import Container, Iterator
from pathlib import Path

import h5py
import numpy as np

from mlx_faceau.errors import DatasetError

from . import schema
from .columns import COLUMNS, MEASURES, Block
from .dataset import FaceDataset
from .label_provenance import copy_provenance
from .rewriting import building, check_new

_BLOCK = 256  # samples that pass through memory at a time


def blocks(
    dataset: FaceDataset, indices: np.ndarray | None = None, without: Container[str] = ()
) -> Iterator[Block]:
    """Samples with every column that the file has, at most 256 at a time.

    Args:
        dataset: an opened training file; labels come in crop space, whoever wrote it.
        indices: (n,) samples in the order wanted; None takes all.
        without: columns to leave out.

    Raises:
        DatasetError: if global parameters of the samples cannot be had in crop space, or the file
            is damaged.
    """
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, np.int64)
    _check_placed(dataset, indices)
    with schema.opened(dataset.path) as file:
        texts = _texts(dataset)
        for start in range(0, len(indices), _BLOCK):
            part = indices[start : start + _BLOCK]
            block = {
                "images": dataset.read_images(part),
                **{name: values[part] for name, values in dataset.labels.items()},
                **{name: texts[name][part].tolist() for name in texts},
                **_numbers(dataset, file, part, without),
            }
            yield {name: values for name, values in block.items() if name not in without}


def _check_placed(dataset: FaceDataset, indices: np.ndarray) -> None:
    unplaced = int((dataset.masks["global_mask"][indices] == 0).sum())
    if unplaced:
        raise DatasetError(
            f"{dataset.path}: the global parameters of {unplaced} samples are not in crop space "
            "and there are no warp matrices to move them; they cannot be written into a new file"
        )


def _texts(dataset: FaceDataset) -> dict[str, np.ndarray]:
    """Videos are always named: where the file names none, they are all one, the file's own."""
    found = {
        "metadata/video_names": dataset.videos,
        "metadata/subjects": dataset.subjects,
        "metadata/groups": dataset.groups,
    }
    if dataset.videos is None:
        found["metadata/video_names"] = np.full(len(dataset), dataset.path.name, object)
    return {name: texts for name, texts in found.items() if texts is not None}


def _numbers(
    dataset: FaceDataset, file: h5py.File, part: np.ndarray, without: Container[str]
) -> Block:
    rows = dataset.rows[part]
    frame = ["bboxes", "warp_matrices", "hog_features", "metadata/frame_indices"]
    block: Block = {"metadata/quality_scores": dataset.quality[part]}
    for name in [*frame, *(f"metadata/measures/{measure}" for measure in MEASURES)]:
        if name in file and name not in without:
            block[name] = _picked(file[name], rows).astype(COLUMNS[name].dtype)
    return block


def _picked(source: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows in any order; one read of the span where they lie close together."""
    if len(rows) == 0:
        return np.empty((0, *source.shape[1:]), source.dtype)
    first, last = int(rows.min()), int(rows.max())
    if last - first < 4 * len(rows):
        return np.asarray(source[first : last + 1][rows - first])
    return np.stack([source[int(row)] for row in rows])


def write_selection(
    output: Path, dataset: FaceDataset, indices: np.ndarray, compression: str | None = None
) -> None:
    """Some samples of a file as a file of their own.

    Raises:
        DatasetError: if ``output`` exists or cannot be written, or there are no samples.
    """
    check_new(output, len(indices))
    with building(output, compression) as builder:
        for block in blocks(dataset, indices):
            builder.append(block)
        videos = () if dataset.videos is None else set(dataset.videos[indices].tolist())
        copy_provenance(builder, [dataset.path], videos)
