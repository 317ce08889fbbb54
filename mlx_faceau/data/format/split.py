"""Splitting a data set so that no person (or, where nobody is named, no video) is on two sides.

One training has two sides; parts for files of their own are balanced by action unit, or follow a
list.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError, UsageError, counted

from .dataset import FaceDataset, LabelledFaces
from .identity import (
    duplicate_faces,
    face_digests,
    merge_names,
    people_names,
    read_pairs,
    shown_name,
    subject_key,
)

_LOG = logging.getLogger(__name__)
_SWEEPS = 20  # over all people, at most
ACTIVE = 1.0  # intensity from which a unit counts as shown when parts are balanced


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
    nearer to its share in (0, 1), so the share is met as closely as whole people allow. With
    ``digests`` (N, 2) of :func:`~mlx_faceau.data.format.identity.face_digests`, people who share a
    face are kept on one side.

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

    It raises DatasetError if somebody is on both sides, as far as names and, by the ``digests`` of
    :func:`split_dataset`, faces tell.
    """
    by, names = people_names(dataset, strict=False)
    if both := set(names[:start]) & set(names[start:]) - {""}:
        shown = ", ".join(sorted(map(shown_name, both))[:3])
        raise DatasetError(
            f"--data and --val-data share {len(both)} {by}s ({shown}{' ...' * (len(both) > 3)}): "
            "validation would measure what the net has memorised; leave them out of one, "
            "give them other names if they are other people, or leave out --val-data for a split"
        )
    pairs = () if digests is None else duplicate_faces(digests, names)
    if groups := [rows for rows in pairs if rows.min() < start <= rows.max()]:
        count = len({row for rows in groups for row in rows.tolist() if row >= start})
        ends = groups[0][[0, -1]].tolist()
        same = " = ".join(shown_name(names[row]) or f"row {row}" for row in ends)
        raise DatasetError(
            f"--data and --val-data share {counted(count, 'face')} under other names ({same}): "
            "validation would measure what the net has memorised; leave them out of one, or leave "
            "out --val-data for a split"
        )
    return Split(np.arange(start), np.arange(start, len(dataset)), "file")


@dataclass(frozen=True)
class Partition:
    parts: dict[str, np.ndarray]  # by name, (n,) int64 ascending sample indices
    by: str  # "subject", "video" or "list": what decided


def partition_dataset(
    dataset: FaceDataset, shares: Mapping[str, float], seed: int = 42
) -> Partition:
    """Split by subject, or by video where no subject is named, into parts of given shares.

    Each part comes as near as whole subjects allow to its share of the samples and of the samples
    that show each action unit: subjects are assigned one by one in random order, each to the part
    that lacks most of what they show, and then moved while that reduces the error. Shares are
    normalised to a sum of 1; the same seed on the same data gives the same parts.

    Raises:
        UsageError: if the shares are not positive.
        DatasetError: if no subject or video is named, or there are fewer of them than parts.

    Reference:
        Sechidis, Tsoumakas, Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.
    """
    if not shares or not all(0 < share < np.inf for share in shares.values()):
        raise UsageError(f"shares are {dict(shares)}, expected positive numbers")
    by, names = people_names(dataset)
    names = merge_names(names, face_digests(dataset))
    people, person = np.unique(names, return_inverse=True)
    if len(people) < len(shares):
        raise DatasetError(
            f"{dataset.path}: {len(people)} {by}s cannot be divided into {len(shares)} parts"
        )
    counted = np.column_stack([np.ones(len(dataset)), dataset.labels["au_intensities"] >= ACTIVE])
    contents = np.zeros((len(people), counted.shape[1]))  # samples, and those that show each unit
    np.add.at(contents, person, counted)
    contents = contents[:, contents.any(axis=0)]
    chosen = _assign(contents, np.array(list(shares.values())), seed)[person]
    parts = {name: np.flatnonzero(chosen == number) for number, name in enumerate(shares)}
    return Partition(parts, by)


def _assign(contents: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """(P,) the part of each person: assigned in random order, then moved while that helps."""
    rng = np.random.default_rng(seed)
    # Rare units weigh as much as common ones: each column is a share of its own total. The number
    # of samples weighs as much as all units together.
    weights = np.sqrt(np.r_[max(1, contents.shape[1] - 1), np.ones(contents.shape[1] - 1)])
    portion = weights * contents / contents.sum(axis=0)
    missing = weights * shares[:, None] / shares.sum()
    chosen, sizes = np.full(len(contents), -1), np.zeros(len(shares), int)
    order = rng.permutation(len(contents)).tolist()
    for _ in range(1 + _SWEEPS):
        moved = 0
        for place, person in enumerate(order):
            old = chosen[person]
            if old >= 0:
                if sizes[old] == 1:
                    continue
                sizes[old] -= 1
                missing[old] += portion[person]
            empty = np.flatnonzero(sizes == 0)
            if len(order) - place <= len(empty):  # as many people are left as parts without any
                part = int(empty[0])
            else:  # the squared sum of what is missing shrinks most
                gains = (2 * missing - portion[person]) * portion[person]
                part = int(np.argmax(gains.sum(axis=1)))
            chosen[person] = part
            sizes[part] += 1
            missing[part] -= portion[person]
            moved += part != old
        if not moved:
            break
    return chosen


def partition_by_list(dataset: FaceDataset, path: Path) -> Partition:
    """Split by a CSV with lines ``name,part``: a subject or a video, and the name of its part.

    Raises:
        DatasetError: if a line is malformed, a name is given twice or is not in the data, a sample
            is of no name on the list, or a face is in two parts.
    """
    part_of: dict[str, str] = {}  # by subject_key
    for line, (name, part) in read_pairs(path, "name,part").items():
        if not part.replace("-", "").replace("_", "").isalnum():
            raise DatasetError(f"{path}: line {line}: {part!r} cannot be a file's name")
        if part_of.setdefault(subject_key(name), part) != part:
            raise DatasetError(f"{path}: line {line}: {name!r} is in two parts")
    found = np.full(len(dataset), "", dtype=object)
    used = set()
    for texts in (dataset.videos, dataset.subjects):  # a subject's line outranks a video's
        for row, name in enumerate([] if texts is None else texts.tolist()):
            if (key := subject_key(name)) in part_of:
                found[row] = part_of[key]
                used.add(key)
    unknown, unlisted = sorted(set(part_of) - used), int((found == "").sum())
    if unknown or unlisted:
        raise DatasetError(
            f"{path}: {counted(unlisted, 'sample')} of {dataset.path} not listed, and "
            f"{counted(len(unknown), 'name')} not in that file: {', '.join(unknown[:3])}"
        )
    if (repeated := next(duplicate_faces(face_digests(dataset), found), None)) is not None:
        raise DatasetError(
            f"{path}: one face would be in several parts: rows {repeated[:3].tolist()} of "
            f"{dataset.path}, whatever their names"
        )
    by, names = people_names(dataset, strict=False)
    places = Counter(person for person, _ in {*zip(names.tolist(), found.tolist(), strict=True)})
    if torn := sorted(shown_name(name) for name, count in places.items() if name and count > 1):
        _LOG.warning(
            "%s: %s in several parts: %s; a part measures what a net memorised of another",
            *(path, counted(len(torn), by), ", ".join(torn[:3]) + ", ..." * (len(torn) > 3)),
        )
    parts = {name: np.flatnonzero(found == name) for name in dict.fromkeys(part_of.values())}
    return Partition(parts, "list")
