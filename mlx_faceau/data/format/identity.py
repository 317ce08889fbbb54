"""Who is the same person: names in several spellings, and one face under several names.

Splits keep a person on one side. Files from several hands write one name in several ways, or hold
the same faces twice under other names.
"""

import unicodedata
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from .dataset_fingerprint import label_digests

if TYPE_CHECKING:
    from mlx_faceau.data.loading.batches import Source

_READ_AT_ONCE = 256
_BYTES = 16  # of a picture's digest
_MOST_NAMES = 8  # what more people share is no face: a black picture, labels of failed frames


def subject_key(name: str) -> str:
    """What the spellings of a name have in common.

    Case, Unicode form, invisible characters, and spaces, hyphens and underscores are of no account,
    unless these divide two numbers: ``Subj 01`` is ``subj_01``, but ``1-11`` is not ``11-1``.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kinds = [(character, unicodedata.category(character)) for character in folded]
    spaced = (" " if kind in ("Pd", "Pc", "Cc") else c for c, kind in kinds if kind != "Cf")
    key = ""
    for word in "".join(spaced).replace("\N{MINUS SIGN}", " ").split():
        key += " " * (key[-1:].isdigit() and word[0].isdigit()) + word
    return key or name


def unify_spellings(names: np.ndarray) -> np.ndarray:
    """(N,) names with one spelling of each person's."""
    chosen: dict[str, str] = {}
    for name in sorted(set(names.tolist())):
        chosen.setdefault(subject_key(name), name)
    return np.array([chosen[subject_key(name)] for name in names.tolist()], object)


def spellings(names: np.ndarray | None) -> list[list[str]]:
    """The names that are written in several ways, each with its spellings."""
    found: dict[str, list[str]] = {}
    for name in sorted(set() if names is None else set(names.tolist())):
        found.setdefault(subject_key(name), []).append(name)
    return [written for written in found.values() if len(written) > 1]


def face_digests(faces: "Source") -> np.ndarray:
    """(N, 2) what tells faces apart: a digest of the picture and one of the labels.

    Reads all pictures once.
    """
    rows = np.arange(len(faces.labels["landmarks"]))
    pictures: list[str] = []
    for start in range(0, len(rows), _READ_AT_ONCE):
        images = faces.read_images(rows[start : start + _READ_AT_ONCE])
        pictures += [blake2b(image.tobytes(), digest_size=_BYTES).hexdigest() for image in images]
    return np.array([pictures, label_digests(faces, rows)]).T


def duplicate_faces(digests: np.ndarray, names: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that hold one face under more than one name.

    Args:
        digests: (N, 2) from :func:`face_digests`.
        names: (N,) whose face it is; a row without a name counts as a person.

    Yields:
        (n,) int64 rows of equal pictures, then of equal labels; a row may come twice.
    """
    own = np.where(names == "", [f"row:{row}" for row in range(len(names))], names)
    for column in digests.T:
        _, face, counts = np.unique(column, return_inverse=True, return_counts=True)
        order = np.argsort(face, kind="stable")
        for rows in np.split(order, np.cumsum(counts)[:-1]):
            if len(rows) > 1 and 1 < len(set(own[rows].tolist())) <= _MOST_NAMES:
                yield rows


def merge_names(names: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """(N,) names, of which those that share a face have become one."""
    merged = {name: name for name in names.tolist()}

    def root(name: str) -> str:
        while merged[name] != name:
            name = merged[name]
        return name

    for rows in duplicate_faces(digests, names):
        roots = sorted({root(name) for name in names[rows].tolist() if name})
        merged.update(dict.fromkeys(roots[1:], roots[0]) if roots else {})
    return np.array([root(name) for name in names.tolist()], names.dtype)
