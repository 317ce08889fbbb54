"""Checks of samples before they are written: shapes, types and values of whole batches."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.errors import UsageError

from . import schema
from .columns import COLUMNS, MEASURES, Block, missing_values

# Argument of add_sample -> that of add_batch, and the data set that it fills.
_ARGUMENTS: dict[str, tuple[str, str]] = {
    "image": ("images", "images"),
    **{name: (name, name) for name in schema.LABEL_SHAPES},
    "bbox": ("bboxes", "bboxes"),
    "warp_matrix": ("warp_matrices", "warp_matrices"),
    "hog_features": (schema.HOG, schema.HOG),
    **{
        name: (f"{name}s", f"metadata/{name}s")
        for name in ("video_name", "subject", "group", "quality_score")
    },
    "frame_index": ("frame_indices", "metadata/frame_indices"),
}
_REQUIRED = ("images", *schema.LABEL_SHAPES, "bboxes", "video_names", "frame_indices")
_ALWAYS_STORED = ("warp_matrices", "metadata/quality_scores", "metadata/subjects")


def batch_of_one(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``add_sample`` as those of ``add_batch``; None is left out."""
    given = {name: value for name, value in sample.items() if value is not None}
    measures = given.pop("measures", {})
    batch = {
        _ARGUMENTS.get(name, (name,))[0]: np.asarray(value)[None]
        if isinstance(value, np.ndarray)
        else [value]
        for name, value in given.items()
    }
    return {**batch, "measures": {name: [value] for name, value in measures.items()}}


def checked_block(columns: Mapping[str, Any]) -> Block:
    """A batch as a block of rows, copied, so that callers may reuse their arrays.

    Args:
        columns: the arguments of
            :meth:`~mlx_faceau.data.format.writer.TrainingDataWriter.add_batch`.

    Raises:
        UsageError: for an unknown or missing name, unequal lengths, a wrong shape, type or value.
    """
    given = {name: values for name, values in columns.items() if values is not None}
    measures = given.pop("measures", {})
    unknown = sorted(set(given) - {plural for plural, _ in _ARGUMENTS.values()})
    missing = [name for name in _REQUIRED if name not in given]
    lengths = {name: len(values) for name, values in {**given, **measures}.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"columns of a batch differ in length: {lengths}")
    if unknown or missing:
        raise UsageError(f"columns of a batch: unknown {unknown}, missing {missing}")
    block: Block = {}
    for name, (plural, dataset) in _ARGUMENTS.items():
        if plural in given:
            block[dataset] = _checked_column(name, dataset, given[plural])
    for name, values in measures.items():
        if name not in MEASURES:
            raise UsageError(f"measure {name!r} is none of {', '.join(MEASURES)}")
        block[f"metadata/measures/{name}"] = np.array(values, np.float32)
    for dataset in _ALWAYS_STORED:
        block.setdefault(dataset, missing_values(dataset, len(block["images"])))
    _check_values(block)
    return block


def _checked_column(name: str, dataset: str, values: Any) -> Any:
    column = COLUMNS[dataset]
    if column.dtype is None:
        return [_checked_text(name, value) for value in values]
    if name == "frame_index":
        for value in values:
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 0 <= value < 2**31:
                raise UsageError(f"frame_index is {value!r}, expected a whole number >= 0")
    array = np.array(values) if name == "image" else np.array(values, column.dtype)
    if name == "image" and (array.shape[1:] != column.shape or array.dtype != np.uint8):
        raise UsageError(
            f"image is {array.dtype} {array.shape[1:]}, expected uint8 {column.shape} RGB"
        )
    if array.shape[1:] != column.shape:
        raise UsageError(f"{name} has shape {array.shape[1:]}, expected {column.shape}")
    if array.dtype == np.float32:
        _refuse(~np.isfinite(array), f"{name} holds NaN or inf")
    return array


def _checked_text(name: str, value: Any) -> str:
    optional = name != "video_name"
    if optional and value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or not (value or optional):
        raise UsageError(f"{name} is {value!r}, expected a text that is not empty")
    return value


def _check_values(block: Block) -> None:
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


def _refuse(wrong: np.ndarray, message: str) -> None:
    """Raise UsageError if any row is wrong, naming the first where there are several."""
    if wrong.any():
        row = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0]
        where = "" if len(wrong) == 1 else f" (sample {row} of the batch)"
        raise UsageError(f"{message}{where}")
