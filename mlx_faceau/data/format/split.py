"""Dividing the people of a data set among files: training, validation and test.

:func:`mlx_faceau.data.loading.validation_split.split_dataset` divides for one training; these parts
are files, that other tools can read, and may be balanced by action unit or follow a list.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.data.loading.validation_split import people_names
from mlx_faceau.errors import DatasetError, UsageError

from .dataset import FaceDataset
from .identity import duplicate_faces, face_digests, merge_names, subject_key, unify_spellings

_SWEEPS = 20  # over all people, at most
ACTIVE = 1.0  # intensity from which a unit counts as shown when parts are balanced


@dataclass(frozen=True)
class Partition:
    """Which samples go where.

    Args:
        parts: by name, (n,) int64 ascending sample indices.
        by: "subject", "video" or "list": what stays in one part.
    """

    parts: dict[str, np.ndarray]
    by: str


def partition_dataset(
    dataset: FaceDataset,
    shares: Mapping[str, float],
    by: str | None = None,
    seed: int = 42,
    stratify: bool = True,
) -> Partition:
    """Divide people among parts of given shares.

    Stratified, each part comes as near as whole people allow to its share of the samples and of
    the samples that show each action unit: people are placed one by one in random order, each where
    most is missing of what they show, and then moved while that brings the parts nearer.

    Args:
        dataset: what to divide.
        shares: by name of the part, positive; they are brought to a sum of 1.
        by: "subject" or "video"; None takes subjects where they are named, else videos.
        seed: the same seed on the same data gives the same parts.
        stratify: balance the action units too; else the number of samples alone.

    Raises:
        ValueError: if the shares are not positive or ``by`` is unknown.
        DatasetError: if nobody is named, or there are fewer people than parts.

    Reference:
        Sechidis, Tsoumakas, Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.
    """
    if not shares or min(shares.values()) <= 0:
        raise UsageError(f"shares are {dict(shares)}, expected positive numbers")
    kind, names = _people(dataset, by)
    names = merge_names(names, face_digests(dataset))
    people, person = np.unique(names, return_inverse=True)
    if len(people) < len(shares):
        raise DatasetError(
            f"{dataset.path}: {len(people)} {kind}s cannot be divided among {len(shares)} parts"
        )
    contents = _contents(dataset.labels["au_intensities"], person, stratify)
    chosen = _placed(contents, np.array(list(shares.values())), seed)[person]
    parts = {name: np.flatnonzero(chosen == number) for number, name in enumerate(shares)}
    return Partition(parts, kind)


def _people(dataset: FaceDataset, by: str | None) -> tuple[str, np.ndarray]:
    if by not in (None, "subject", "video"):
        raise UsageError(f"by is {by!r}, expected 'subject' or 'video'")
    if by == "video":
        if dataset.videos is None:
            raise DatasetError(f"{dataset.path}: names no videos")
        return by, unify_spellings(dataset.videos)
    kind, names = people_names(dataset)
    if by is not None and kind != by:
        raise DatasetError(f"{dataset.path}: names no subjects; divide it by video")
    return kind, names


def _contents(units: np.ndarray, person: np.ndarray, stratify: bool) -> np.ndarray:
    """(P, 1 + 17) samples of each person, and samples that show each unit."""
    counted = np.ones((len(units), 1))
    if stratify:
        counted = np.concatenate([counted, units >= ACTIVE], axis=1)
    total = np.zeros((person.max() + 1, counted.shape[1]))
    np.add.at(total, person, counted)
    return np.asarray(total[:, total.sum(axis=0) > 0])


def _placed(contents: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """(P,) the part of each person: placed in random order, then moved while that helps."""
    rng = np.random.default_rng(seed)
    # Rare units weigh as much as common ones: each column is a share of its own total. The number
    # of samples weighs as much as all units together.
    weights = np.sqrt(np.r_[max(1, contents.shape[1] - 1), np.ones(contents.shape[1] - 1)])
    portion = weights * contents / contents.sum(axis=0)
    missing = weights * shares[:, None] / shares.sum()
    chosen, people = np.full(len(contents), -1), np.zeros(len(shares), int)
    order = rng.permutation(len(contents)).tolist()
    for place, someone in enumerate(order):
        empty = np.flatnonzero(people == 0)
        last = len(order) - place <= len(empty)  # as many people are left as parts without any
        part = int(empty[0]) if last else _best(missing, portion[someone])
        chosen[someone] = part
        people[part] += 1
        missing[part] -= portion[someone]
    for _ in range(_SWEEPS):
        moved = 0
        for someone in order:
            old = chosen[someone]
            if people[old] == 1:
                continue
            missing[old] += portion[someone]
            chosen[someone] = part = _best(missing, portion[someone])
            people[old] -= 1
            people[part] += 1
            missing[part] -= portion[someone]
            moved += part != old
        if not moved:
            break
    return chosen


def _best(missing: np.ndarray, portion: np.ndarray) -> int:
    """The part whose lacks, squared and summed, shrink most when it gets this person."""
    return int(np.argmax((2 * missing * portion - portion**2).sum(axis=1)))


def partition_by_list(dataset: FaceDataset, path: Path) -> Partition:
    """Follow a list of who goes where.

    Args:
        dataset: what to divide.
        path: CSV with lines ``name,part``: a subject or a video, and the name of its part.

    Raises:
        DatasetError: if a line is malformed, a name is given twice or is not in the data, samples
            are of nobody on the list, or a face is in two parts.
    """
    wanted = _read_list(path)
    found = np.full(len(dataset), "", dtype=object)
    used = set()
    for texts in (dataset.videos, dataset.subjects):  # a subject's line outranks a video's
        for row, name in enumerate([] if texts is None else texts.tolist()):
            if (key := subject_key(name)) in wanted:
                found[row] = wanted[key]
                used.add(key)
    strangers, unlisted = sorted(set(wanted) - used), int((found == "").sum())
    if strangers or unlisted:
        raise DatasetError(
            f"{path}: {unlisted} samples of {dataset.path} are of nobody on it, and "
            f"{len(strangers)} of its names are not in the file {strangers[:3]}"
        )
    torn = next(duplicate_faces(face_digests(dataset), found), None)
    if torn is not None:
        raise DatasetError(
            f"{path}: one face would be in several parts: rows {torn[:3].tolist()} of "
            f"{dataset.path}, whatever their names"
        )
    parts = {name: np.flatnonzero(found == name) for name in dict.fromkeys(wanted.values())}
    return Partition(parts, "list")


def _read_list(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    wanted: dict[str, str] = {}  # by subject_key
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not cells:
            continue
        if len(cells) != 2 or not all(cells):
            raise DatasetError(f"{path}: line {number} is not 'name,part'")
        if not cells[1].replace("-", "").replace("_", "").isalnum():
            raise DatasetError(f"{path}: line {number}: {cells[1]!r} cannot be a file's name")
        if wanted.setdefault(subject_key(cells[0]), cells[1]) != cells[1]:
            raise DatasetError(f"{path}: line {number}: {cells[0]!r} is in two parts")
    return wanted
