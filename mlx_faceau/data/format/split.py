"""Splitting a data set into files for training, validation and test.

The parts may be balanced by action unit, or follow a list;
:func:`mlx_faceau.data.loading.validation_split.split_dataset` splits within one training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core.plural import counted
from mlx_faceau.errors import DatasetError, UsageError

from .dataset import FaceDataset
from .identity import (
    duplicate_faces,
    face_digests,
    merge_names,
    people_names,
    read_pairs,
    subject_key,
)

_SWEEPS = 20  # over all people, at most
ACTIVE = 1.0  # intensity from which a unit counts as shown when parts are balanced


@dataclass(frozen=True)
class Partition:
    """The samples of each part."""

    parts: dict[str, np.ndarray]  # by name, (n,) int64 ascending sample indices
    by: str  # "subject", "video" or "list": what decided


def partition_dataset(
    dataset: FaceDataset, shares: Mapping[str, float], seed: int = 42
) -> Partition:
    """Split by subject, or by video where no subject is named, into parts of given shares.

    Each part comes as near as whole subjects allow to its share of the samples and of the samples
    that show each action unit: subjects are assigned one by one in random order, each to the part
    that lacks most of what they show, and then moved while that reduces the error.

    Args:
        dataset: the data set.
        shares: by name of the part, positive; they are normalised to a sum of 1.
        seed: the same seed on the same data gives the same parts.

    Raises:
        UsageError: if the shares are not positive.
        DatasetError: if no subject or video is named, or there are fewer of them than parts.

    Reference:
        Sechidis, Tsoumakas, Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.
    """
    if not shares or min(shares.values()) <= 0:
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
    """Split by a list.

    Args:
        dataset: the data set.
        path: CSV with lines ``name,part``: a subject or a video, and the name of its part.

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
            f"{path}: {counted(unlisted, 'sample')} of {dataset.path} without a name on it, and "
            f"{len(unknown)} of its names are not in the file {unknown[:3]}"
        )
    repeated = next(duplicate_faces(face_digests(dataset), found), None)
    if repeated is not None:
        raise DatasetError(
            f"{path}: one face would be in several parts: rows {repeated[:3].tolist()} of "
            f"{dataset.path}, whatever their names"
        )
    parts = {name: np.flatnonzero(found == name) for name in dict.fromkeys(part_of.values())}
    return Partition(parts, "list")
