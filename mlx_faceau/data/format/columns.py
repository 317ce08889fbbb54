"""All columns of a training file, blocks of its rows, and checks of samples to be written.

A block is a dict from data set names to arrays with one row per sample; texts are object arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.core.facs import MAX_INTENSITY, NUM_AUS
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.errors import UsageError

Block = dict[str, np.ndarray]
HOG = "hog_features"  # a data set that files may lack
HOG_SIZE = 4464


@dataclass(frozen=True)
class Column:
    """One data set of the file."""

    singular: str  # name of one value, an argument of add_sample
    shape: tuple[int, ...] = ()  # of one row
    dtype: type = np.float32  # of its numbers; object for text
    missing: Any = np.nan  # the value of rows that have none


# Measured while labelling (see mlx_faceau.data.labels.quality); NaN where unknown.
MEASURES = (
    "sharpness",
    "brightness",
    "clipped",
    "face_size",
    "turn",
    "landmark_error",
    "confidence",
    "change",
)
_MEASURES = "metadata/measures/"
COLUMNS: dict[str, Column] = {
    "images": Column("image", (112, 112, 3), np.uint8, None),
    "landmarks": Column("landmarks", (NUM_LANDMARKS, 2), missing=None),
    "global_params": Column("global_params", (6,), missing=None),
    "local_params": Column("local_params", (34,), missing=None),
    "au_intensities": Column("au_intensities", (NUM_AUS,), missing=None),
    "bboxes": Column("bbox", (4,)),
    "warp_matrices": Column("warp_matrix", (2, 3)),
    HOG: Column(HOG, (HOG_SIZE,)),
    "metadata/video_names": Column("video_name", dtype=object, missing=""),
    "metadata/frame_indices": Column("frame_index", dtype=np.int32, missing=0),
    "metadata/quality_scores": Column("quality_score", missing=1.0),
    "metadata/subjects": Column("subject", dtype=object, missing=""),
    "metadata/groups": Column("group", dtype=object, missing=""),
    **{f"{_MEASURES}{name}": Column(name) for name in MEASURES},
}
LABELS = ("landmarks", "global_params", "local_params", "au_intensities")
# Data sets by their names as arguments of add_batch.
_ARGUMENTS = {name.rpartition("/")[2]: name for name in COLUMNS if not name.startswith(_MEASURES)}
_REQUIRED = ("images", *LABELS, "bboxes", "video_names", "frame_indices")
_ALWAYS_STORED = ("warp_matrices", "metadata/quality_scores", "metadata/subjects")


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    """Blocks one after another; a column that some of them lack is filled in."""
    return {
        name: np.concatenate(
            [block[name] if name in block else missing_values(name, block) for block in blocks]
        )
        for name in COLUMNS
        if any(name in block for block in blocks)
    }


def missing_values(name: str, block: Block) -> np.ndarray:
    """A column of a block whose samples have no value in it."""
    column = COLUMNS[name]
    return np.full((len(block["images"]), *column.shape), column.missing, column.dtype)


def batch_of_one(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``add_sample`` as those of ``add_batch``; None is left out."""
    plurals = {COLUMNS[name].singular: plural for plural, name in _ARGUMENTS.items()}
    batch = {plurals.get(name, name): [v] for name, v in sample.items() if v is not None}
    (measures,) = batch.pop("measures", [{}])
    return {**batch, "measures": {name: [value] for name, value in measures.items()}}


def checked_block(columns: Mapping[str, Any]) -> Block:
    """The arguments of ``add_batch`` as a block of rows, copied: callers may reuse their arrays.

    Raises:
        UsageError: for an unknown or missing name, unequal lengths, a wrong shape, type or value.
    """
    given = {name: values for name, values in columns.items() if values is not None}
    measures = given.pop("measures", {})
    unknown = sorted(set(given) - set(_ARGUMENTS))
    missing = [name for name in _REQUIRED if name not in given]
    lengths = {name: len(values) for name, values in {**given, **measures}.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"columns of a batch differ in length: {lengths}")
    if unknown or missing:
        raise UsageError(f"columns of a batch: unknown {unknown}, missing {missing}")
    block = {
        dataset: _checked_column(COLUMNS[dataset], given[name])
        for name, dataset in _ARGUMENTS.items()
        if name in given
    }
    for name, values in measures.items():
        if name not in MEASURES:
            raise UsageError(f"measure {name!r} is none of {', '.join(MEASURES)}")
        block[f"{_MEASURES}{name}"] = np.array(values, np.float32)
    for dataset in _ALWAYS_STORED:
        block.setdefault(dataset, missing_values(dataset, block))

    landmarks, units = block["landmarks"], block["au_intensities"]
    inside = ((landmarks >= 0) & (landmarks <= 112)).mean(axis=(1, 2))
    _refuse(inside < 0.5, "landmarks are not in crop space: most lie outside [0, 112]")
    _refuse(
        (units < 0) | (units > MAX_INTENSITY),
        f"au_intensities reach {units.min():g}..{units.max():g}, expected [0, 5]",
    )
    scale, scores = block["global_params"][:, 0], block["metadata/quality_scores"]
    _refuse(scale <= 0, f"global_params: scale is {scale.min():g}, expected > 0")
    _refuse((scores < 0) | (scores > 1), "quality_score lies outside [0, 1]")
    return block


def _checked_column(column: Column, values: Any) -> np.ndarray:
    name = column.singular
    if column.dtype is object:
        for value in values:
            if value in (None, "") and name != "video_name":
                continue
            # HDF5 stores no more; names of files may hold bytes that are no UTF-8.
            text = isinstance(value, str) and value != "" and "\0" not in value
            if not text or value != value.encode(errors="replace").decode():
                raise UsageError(f"{name} is {value!r}, expected a text in UTF-8, not empty")
        return np.array([value or "" for value in values], object)
    if name == "frame_index":
        for value in values:
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 0 <= value < 2**31:
                raise UsageError(f"frame_index is {value!r}, expected a whole number >= 0")
    try:
        array = np.array(values) if name == "image" else np.array(values, column.dtype)
    except (TypeError, ValueError):  # a dict, text, or rows of unequal lengths
        raise UsageError(f"{name}: expected an array of numbers of shape {column.shape}") from None
    if name == "image" and (array.shape[1:] != column.shape or array.dtype != np.uint8):
        raise UsageError(
            f"image is {array.dtype} {array.shape[1:]}, expected uint8 {column.shape} RGB"
        )
    if array.shape[1:] != column.shape:
        raise UsageError(f"{name} has shape {array.shape[1:]}, expected {column.shape}")
    if array.dtype == np.float32:
        _refuse(~np.isfinite(array), f"{name} holds NaN or inf")
    return array


def _refuse(wrong: np.ndarray, message: str) -> None:
    """Raise UsageError if any row is wrong, naming the first where there are several."""
    if wrong.any():
        row = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0]
        where = "" if len(wrong) == 1 else f" (sample {row} of the batch)"
        raise UsageError(f"{message}{where}")
