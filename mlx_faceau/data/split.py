"""Training and validation sides that share no person (or, where nobody is named, no video)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlx_faceau.errors import DatasetError


class Named(Protocol):
    """The part of a data set that a split looks at."""

    @property
    def subjects(self) -> np.ndarray | None: ...

    @property
    def videos(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Split:
    """Sample indices of the two sides, each ascending."""

    train: np.ndarray  # (n,) int64
    validation: np.ndarray  # (m,) int64
    by: str  # "subject" or "video": what is kept on one side


def split_dataset(
    dataset: Named, val_fraction: float = 0.1, seed: int = 42, batch_size: int = 1
) -> Split:
    """Split a data set by subject, or by video where no subject is named.

    Whole people are drawn in a seeded random order as long as that brings the validation side
    nearer to its share, so the share is met as closely as whole people allow.

    Args:
        dataset: what to split.
        val_fraction: share of the samples for validation, in (0, 1).
        seed: the same seed on the same data gives the same split.
        batch_size: the training side must fill one batch.

    Raises:
        ValueError: if ``val_fraction`` is not in (0, 1).
        DatasetError: if neither subjects nor videos are named, if there is only one, or if the
            training side is smaller than a batch.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}, expected 0 < val_fraction < 1")
    by, names = _keys(dataset)
    people, person, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(people) < 2:
        raise DatasetError(
            f"all {len(dataset)} samples are of one {by} ({people[0]}), so none is left for "
            f"validation; add another {by}"
        )
    order = np.random.default_rng(seed).permutation(len(people))
    chosen = np.isin(person, _draw(order, sizes, val_fraction * len(dataset)))
    split = Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), by)
    check_batch(len(split.train), batch_size)
    return split


def check_batch(samples: int, batch_size: int) -> None:
    """Raise DatasetError unless the training side fills one batch."""
    if samples < batch_size:
        raise DatasetError(
            f"the training side holds {samples} samples, fewer than a batch of {batch_size}; "
            f"use --batch-size {max(samples, 1)} or less, or add data"
        )


def _keys(dataset: Named) -> tuple[str, np.ndarray]:
    """What is kept together: the subject of each sample, its video where none is named."""
    subjects, videos = dataset.subjects, dataset.videos
    named = subjects is not None and bool(np.any(subjects != ""))
    if videos is None and not named:
        raise DatasetError(
            "the file names neither subjects nor videos, so people cannot be kept on one side of "
            "a split; write 'metadata/video_names'"
        )
    if not named or subjects is None:
        return "video", _texts(videos)
    fallback = subjects if videos is None else videos
    pairs = zip(subjects.tolist(), fallback.tolist(), strict=True)
    return "subject", _texts([f"s:{s}" if s else f"v:{v}" for s, v in pairs])


def _texts(values: object) -> np.ndarray:
    return np.asarray(values, dtype=str)


def _draw(order: np.ndarray, sizes: np.ndarray, target: float) -> np.ndarray:
    """People for validation: those that bring the count nearer to the target, at least one."""
    drawn, count = [], 0
    for person in order.tolist():
        size = int(sizes[person])
        if abs(count + size - target) < abs(count - target):
            drawn.append(person)
            count += size
    if not drawn:  # everyone is larger than twice the share
        drawn = [int(order[np.argmin(sizes[order])])]
    return np.array(drawn)
