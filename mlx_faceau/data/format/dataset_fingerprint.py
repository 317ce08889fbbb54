"""A few faces of a data set, by which larger parts of it, and sets that hold them, are known again.

Reference:
    Cohen and Kaplan, Summarizing data using bottom-k sketches, PODC 2007.
"""

from collections.abc import Collection
from hashlib import blake2b
from typing import Protocol

import numpy as np

SIZE = 256  # faces: of a twentieth of a data set, one part in 500,000 would hold none of them
_BYTES = 8  # of each face's digest


class Labelled(Protocol):
    """The part of a data set that tells its faces apart."""

    @property
    def labels(self) -> dict[str, np.ndarray]: ...


def sketch(faces: Labelled, rows: np.ndarray) -> list[str]:
    """The 256 faces with the least digests: the same ones, wherever and in whatever order they lie.

    Args:
        faces: a data set. Its labels tell faces apart, pictures are not read.
        rows: (n,) which of them, such as a training side.

    Returns:
        Digests in hexadecimal, ascending; fewer of fewer faces.
    """
    return sorted(set(label_digests(faces, rows)))[:SIZE]


def holds_any(faces: Labelled, sketched: Collection[str]) -> bool:
    """Whether a data set holds any of the sketched faces; other texts among them do no harm."""
    every = np.arange(len(faces.labels["landmarks"]))
    return not set(sketched).isdisjoint(label_digests(faces, every))


def label_digests(faces: Labelled, rows: np.ndarray) -> list[str]:
    """What tells the faces of ``rows`` (n,) apart, by their labels alone: n digests."""
    columns = [np.ascontiguousarray(faces.labels[name]) for name in sorted(faces.labels)]
    found = (b"".join(column[row].tobytes() for column in columns) for row in rows.tolist())
    return [blake2b(face, digest_size=_BYTES).hexdigest() for face in found]
