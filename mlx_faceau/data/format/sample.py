"""What a sample must be to be written: shapes, types and values, checked for whole batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.errors import UsageError

from . import schema
from .columns import MEASURES, Block, absent

# Argument of add_sample -> the same in add_batch and the data set it fills.
_NUMBERS: dict[str, tuple[str, str]] = {
    **{name: (name, name) for name in schema.LABEL_SHAPES},
    "bbox": ("bboxes", "bboxes"),
    "warp_matrix": ("warp_matrices", "warp_matrices"),
    "hog_features": ("hog_features", "hog_features"),
    "quality_score": ("quality_scores", "metadata/quality_scores"),
}
_SHAPES: dict[str, tuple[int, ...]] = {
    **schema.LABEL_SHAPES,
    **schema.FRAME_SHAPES,
    "hog_features": (schema.HOG_SIZE,),
    "metadata/quality_scores": (),
}
_TEXTS: dict[str, tuple[str, str]] = {
    "video_name": ("video_names", "metadata/video_names"),
    "subject": ("subjects", "metadata/subjects"),
    "group": ("groups", "metadata/groups"),
}
_REQUIRED = ("images", *schema.LABEL_SHAPES, "bboxes", "video_names", "frame_indices")
_PLURALS = {
    **{"image": "images", "frame_index": "frame_indices"},
    **{name: argument for name, (argument, _) in (_NUMBERS | _TEXTS).items()},
}
_KNOWN = {*_PLURALS.values(), "measures"}


def plural(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one sample as those of a batch of one; what is None is left out."""
    given = {name: value for name, value in sample.items() if value is not None}
    measures = given.pop("measures", {})
    batch: dict[str, Any] = {
        _PLURALS.get(name, name): value[None] if isinstance(value, np.ndarray) else [value]
        for name, value in given.items()
    }
    return {**batch, "measures": {name: [value] for name, value in measures.items()}}


def checked_block(columns: Mapping[str, Any]) -> Block:
    """A batch as a block of rows, copied, so that callers may reuse their arrays.

    Args:
        columns: the arguments of
            :meth:`~mlx_faceau.data.format.writer.TrainingDataWriter.add_batch`.

    Raises:
        ValueError: for an unknown or missing name, unequal lengths, a wrong shape, type or value.
    """
    given = {name: values for name, values in columns.items() if values is not None}
    unknown, missing = sorted(set(given) - _KNOWN), [n for n in _REQUIRED if n not in given]
    measures = given.pop("measures", {})
    count = _common_length({**given, **measures})
    if unknown or missing:
        raise UsageError(f"columns of a batch: unknown {unknown}, missing {missing}")
    block: Block = {"images": _images(given["images"])}
    for name, (argument, dataset) in _NUMBERS.items():
        if argument in given:
            block[dataset] = _numbers(name, given[argument], _SHAPES[dataset])
    _check_finite(block)
    for name, (argument, dataset) in _TEXTS.items():
        optional = name != "video_name"
        if argument in given:
            block[dataset] = [_text(name, value, optional) for value in given[argument]]
    block["metadata/frame_indices"] = _frames(given["frame_indices"])
    for name, values in measures.items():
        block[f"metadata/measures/{_measure(name)}"] = np.array(values, np.float32)
    for dataset in ("warp_matrices", "metadata/quality_scores", "metadata/subjects"):
        block.setdefault(dataset, absent(dataset, count))
    for check in _CHECKS:
        check(block)
    return block


def _common_length(columns: Mapping[str, Any]) -> int:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"columns of a batch differ in length: {lengths}")
    return next(iter(lengths.values()))


def _images(values: Any) -> np.ndarray:
    array = np.array(values)  # a copy
    if array.shape[1:] != schema.IMAGE_SHAPE or array.dtype != np.uint8:
        raise UsageError(
            f"image is {array.dtype} {array.shape[1:]}, expected uint8 {schema.IMAGE_SHAPE} RGB"
        )
    return array


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, dtype=np.float32)
    if array.shape[1:] != shape:
        raise UsageError(f"{name} has shape {array.shape[1:]}, expected {shape}")
    return array


def _check_finite(block: Block) -> None:
    """One look at all numbers, for samples that come one by one."""
    named = {name: block[dataset] for name, (_, dataset) in _NUMBERS.items() if dataset in block}
    if np.isfinite(np.concatenate([values.ravel() for values in named.values()])).all():
        return
    for name, values in named.items():
        if not np.isfinite(values).all():
            raise UsageError(f"{name} holds NaN or inf{_where(~np.isfinite(values))}")


def _text(name: str, value: Any, optional: bool) -> str:
    if optional and value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or not (value or optional):
        raise UsageError(f"{name} is {value!r}, expected a text that is not empty")
    return value


def _frames(values: Sequence[int]) -> np.ndarray:
    for value in values:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not 0 <= value < 2**31:
            raise UsageError(f"frame_index is {value!r}, expected a whole number >= 0")
    return np.array(values, np.int32)


def _measure(name: str) -> str:
    if name not in MEASURES:
        raise UsageError(f"measure {name!r} is none of {', '.join(MEASURES)}")
    return name


def _check_space(block: Block) -> None:
    landmarks = block["landmarks"]
    if landmarks.min() >= 0 and landmarks.max() <= 112:
        return
    inside = ((landmarks >= 0) & (landmarks <= 112)).mean(axis=(1, 2))
    if (inside < 0.5).any():
        where = _where(inside < 0.5)
        raise UsageError(f"landmarks are not in crop space: most lie outside [0, 112]{where}")


def _check_units(block: Block) -> None:
    units = block["au_intensities"]
    low, high = units.min(), units.max()
    if low < 0 or high > MAX_INTENSITY:
        where = _where((units < 0) | (units > MAX_INTENSITY))
        raise UsageError(f"au_intensities reach {low:g}..{high:g}, expected [0, 5]{where}")


def _check_scale(block: Block) -> None:
    scale = block["global_params"][:, 0]
    if (scale <= 0).any():
        where = _where(scale <= 0)
        raise UsageError(f"global_params: scale is {scale.min():g}, expected > 0{where}")


def _check_quality(block: Block) -> None:
    scores = block["metadata/quality_scores"]
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise UsageError(f"quality_score lies outside [0, 1]{_where(wrong)}")


_CHECKS: tuple[Callable[[Block], None], ...] = (
    *(_check_space, _check_units, _check_scale, _check_quality),
)


def _where(wrong: np.ndarray) -> str:
    """Which sample of a batch; nothing where there is but one."""
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    return "" if len(wrong) == 1 else f" (sample {rows[0]} of the batch)"
