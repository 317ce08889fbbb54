"""All columns of a training file, and blocks of its rows.

A block is a dict from data set names to arrays with one row per sample; texts are lists of str.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from . import schema

Block = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One data set of the file.

    Args:
        shape: of one row.
        dtype: of its numbers; None for text.
        missing: the value of rows that have none.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic] | None
    missing: Any = None


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

COLUMNS: dict[str, Column] = {
    "images": Column(schema.IMAGE_SHAPE, np.uint8),
    **{name: Column(shape, np.float32) for name, shape in schema.LABEL_SHAPES.items()},
    **{name: Column(shape, np.float32, np.nan) for name, shape in schema.FRAME_SHAPES.items()},
    schema.HOG: Column((schema.HOG_SIZE,), np.float32, np.nan),
    "metadata/video_names": Column((), None, ""),
    "metadata/frame_indices": Column((), np.int32, 0),
    "metadata/quality_scores": Column((), np.float32, 1.0),
    "metadata/subjects": Column((), None, ""),
    "metadata/groups": Column((), None, ""),
    **{f"metadata/measures/{name}": Column((), np.float32, np.nan) for name in MEASURES},
}


def num_rows(block: Mapping[str, Any]) -> int:
    """Number of samples of a block."""
    return len(block["images"])


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    """Blocks one after another; a column that some of them lack is filled in."""
    joined: Block = {}
    for name in COLUMNS:
        if any(name in block for block in blocks):
            parts = [
                block[name] if name in block else missing_values(name, num_rows(block))
                for block in blocks
            ]
            text = COLUMNS[name].dtype is None
            joined[name] = list(chain(*parts)) if text else np.concatenate(parts)
    return joined


def select_rows(block: Block, mask: np.ndarray) -> Block:
    """The rows of a block where a mask (N,) is True."""
    return {
        name: values[mask]
        if isinstance(values, np.ndarray)
        else [value for value, keep in zip(values, mask, strict=True) if keep]
        for name, values in block.items()
    }


def missing_values(name: str, count: int) -> Any:
    """A column of samples that have no value in it."""
    column = COLUMNS[name]
    if column.dtype is None:
        return [column.missing] * count
    return np.full((count, *column.shape), column.missing, column.dtype)
