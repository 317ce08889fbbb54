"""All columns of a training file, and blocks of its rows.

A block is a dict from data set names to arrays with one row a sample; texts are lists of str.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.errors import UsageError

from . import schema

Block = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One data set of the file.

    Args:
        shape: of one row.
        dtype: of its numbers; None for text.
        missing: what a row holds that has no value.
        required: every block must bring it.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic] | None
    missing: Any = None
    required: bool = False


# What labelling measured of a face (see mlx_faceau.data.labels.quality); NaN where it is not known.
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
    "images": Column(schema.IMAGE_SHAPE, np.uint8, required=True),
    **{
        name: Column(shape, np.float32, required=True)
        for name, shape in schema.LABEL_SHAPES.items()
    },
    **{name: Column(shape, np.float32, np.nan) for name, shape in schema.FRAME_SHAPES.items()},
    "hog_features": Column((schema.HOG_SIZE,), np.float32, np.nan),
    "metadata/video_names": Column((), None, ""),
    "metadata/frame_indices": Column((), np.int32, 0),
    "metadata/quality_scores": Column((), np.float32, 1.0),
    "metadata/subjects": Column((), None, ""),
    "metadata/groups": Column((), None, ""),
    **{f"metadata/measures/{name}": Column((), np.float32, np.nan) for name in MEASURES},
}


def rows_of(block: Mapping[str, Any]) -> int:
    """Number of samples of a block."""
    return len(block["images"])


def check_block(block: Mapping[str, Any]) -> None:
    """Check names, shapes and types of a block that comes from a file.

    Raises:
        KeyError: for an unknown or missing column.
        ValueError: for a wrong shape or type, or columns of unequal length.
    """
    count = rows_of(block)
    for name, column in COLUMNS.items():
        if name not in block:
            if column.required:
                raise KeyError(f"no {name}")
        elif column.dtype is None:
            texts = block[name]
            if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
                raise UsageError(f"{name} holds no texts")
        elif (block[name].shape[1:], block[name].dtype) != (column.shape, column.dtype):
            raise UsageError(f"{name} is {block[name].dtype} of shape {block[name].shape}")
    unequal = [name for name, values in block.items() if len(values) != count]
    if unequal or count == 0:
        raise UsageError(f"{count} images, another number of {', '.join(unequal) or 'them'}")


def concatenated(blocks: Sequence[Block]) -> Block:
    """Blocks one after another; what one of them lacks is filled in.

    Raises:
        KeyError: if a required column is missing.
    """
    names = [name for name in COLUMNS if any(name in block for block in blocks)]
    return {name: _joined(name, blocks) for name in names}


def _joined(name: str, blocks: Iterable[Block]) -> Any:
    column = COLUMNS[name]
    parts = [
        block[name] if column.required or name in block else absent(name, rows_of(block))
        for block in blocks
    ]
    if column.dtype is None:
        return [text for part in parts for text in part]
    return np.concatenate(parts)


def absent(name: str, count: int) -> Any:
    """The values of samples that have none in a column."""
    column = COLUMNS[name]
    if column.dtype is None:
        return [column.missing] * count
    return np.full((count, *column.shape), column.missing, column.dtype)
