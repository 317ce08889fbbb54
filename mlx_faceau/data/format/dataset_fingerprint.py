"""A fingerprint of a data set's faces: recognises its parts and the sets that contain it.

Reference:
    Cohen and Kaplan, Summarizing data using bottom-k sketches, PODC 2007.
"""

from collections.abc import Collection
from hashlib import blake2b
from typing import Protocol

import numpy as np

SIZE = 256  # of a twentieth of a data set, one part in 500,000 would hold none of these faces
_DIGEST_BYTES = 8


class Labelled(Protocol):
    """A data set with labels."""

    @property
    def labels(self) -> dict[str, np.ndarray]: ...


def fingerprint(faces: Labelled, rows: np.ndarray) -> list[str]:
    """The 256 smallest digests of the faces' labels, independent of order.

    Args:
        faces: a data set.
        rows: (n,) samples to cover, such as the training side.

    Returns:
        Hexadecimal digests, ascending; fewer of fewer faces.
    """
    return sorted(set(label_digests(faces, rows)))[:SIZE]


def shares_faces(faces: Labelled, digests: Collection[str]) -> bool:
    """Whether a data set holds any face of a fingerprint; other texts in it are ignored."""
    every = np.arange(len(faces.labels["landmarks"]))
    return not set(digests).isdisjoint(label_digests(faces, every))


def label_digests(faces: Labelled, rows: np.ndarray) -> list[str]:
    """One hexadecimal digest of all labels for each sample of ``rows`` (n,)."""
    columns = [np.ascontiguousarray(faces.labels[name]) for name in sorted(faces.labels)]
    found = (b"".join(column[row].tobytes() for column in columns) for row in rows.tolist())
    return [blake2b(face, digest_size=_DIGEST_BYTES).hexdigest() for face in found]
