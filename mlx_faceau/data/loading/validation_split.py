"""Training and validation sides that share no person (or, where nobody is named, no video)."""

from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.plural import counted
from mlx_faceau.data.format.identity import (
    duplicate_faces,
    merge_names,
    people_names,
    shown_name,
)
from mlx_faceau.data.format.labelled_faces import LabelledFaces
from mlx_faceau.errors import DatasetError, UsageError


@dataclass(frozen=True)
class Split:
    """Sample indices of the two sides, each ascending."""

    train: np.ndarray  # (n,) int64
    validation: np.ndarray  # (m,) int64
    by: str  # what is kept on one side: "subject", "video", or the "file" of another side


def split_dataset(
    dataset: LabelledFaces,
    val_fraction: float = 0.1,
    seed: int = 42,
    digests: np.ndarray | None = None,
) -> Split:
    """Split a data set by subject, or by video where no subject is named.

    Whole people are drawn in a seeded random order as long as that brings the validation side
    nearer to its share, so the share is met as closely as whole people allow.

    Args:
        dataset: what to split.
        val_fraction: share of the samples for validation, in (0, 1).
        seed: the same seed on the same data gives the same split.
        digests: (N, 2) of the faces, see
            :func:`mlx_faceau.data.format.identity.face_digests`; people who share a face are then
            kept on one side. None goes by names alone.

    Raises:
        UsageError: if ``val_fraction`` is not in (0, 1).
        DatasetError: if a sample has neither subject nor video, or if there is only one.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"--val-split is {val_fraction}, expected a share between 0 and 1")
    by, names = people_names(dataset)
    names = names if digests is None else merge_names(names, digests)
    people, person, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(people) < 2:
        raise DatasetError(
            f"all {len(dataset)} samples are of one {by} ({shown_name(people[0])}), so none is "
            f"left for validation; add another {by}"
        )
    order = np.random.default_rng(seed).permutation(len(people))
    target = val_fraction * len(dataset)
    drawn, count = [], 0
    for number in order.tolist():
        size = int(sizes[number])
        if abs(count + size - target) < abs(count - target):
            drawn.append(number)
            count += size
    if not drawn:  # everyone is larger than twice the share
        drawn = [int(order[np.argmin(sizes[order])])]
    chosen = np.isin(person, drawn)
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), by)


def split_at(dataset: LabelledFaces, start: int, digests: np.ndarray | None = None) -> Split:
    """Samples of training files and, from ``start`` on, samples of files to validate on.

    Args:
        dataset: both, one after the other.
        start: number of the first sample to validate on.
        digests: (N, 2) of the faces, as for :func:`split_dataset`; None goes by names alone.

    Raises:
        DatasetError: if somebody is on both sides, as far as names and faces tell.
    """
    by, names = people_names(dataset, strict=False)
    named = names != ""
    both = set(names[:start][named[:start]]) & set(names[start:][named[start:]])
    if both:
        shown = ", ".join(sorted(map(shown_name, both))[:3])
        raise DatasetError(
            f"--data and --val-data share {len(both)} {by}s ({shown}{' ...' * (len(both) > 3)}): "
            "validation would measure what the net has memorised; leave them out of one, "
            "give them other names if they are other people, or leave out --val-data for a split"
        )
    pairs = [] if digests is None else list(duplicate_faces(digests, names))
    groups = [rows for rows in pairs if rows.min() < start <= rows.max()]
    if groups:
        count = len({row for rows in groups for row in rows.tolist() if row >= start})
        same = " = ".join(
            shown_name(names[row]) or f"row {row}" for row in groups[0][[0, -1]].tolist()
        )
        raise DatasetError(
            f"--data and --val-data share {counted(count, 'face')} under other names ({same}): "
            "validation would measure what the net has memorised; leave them out of one, or leave "
            "out --val-data for a split"
        )
    return Split(np.arange(start), np.arange(start, len(dataset)), "file")
