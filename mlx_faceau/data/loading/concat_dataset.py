"""Several data sets as one."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mlx_faceau.data.format.labelled_faces import LabelledFaces


class ConcatDataset:
    """Data sets one after the other, with the attributes of a single one.

    A subject, or a video, that several of them name is the same one.

    Attributes:
        parts: the data sets.
        starts: (parts + 1,) number of the first sample of each, and the number of all.
        labels, masks: as :class:`~mlx_faceau.data.format.dataset.FaceDataset` has them, of all.
        subjects, videos: (N,) str; empty where a part names none.
        blocks: (N,) int64; none holds samples of two parts.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Sequence[LabelledFaces]) -> None:
        self.parts: tuple[Any, ...] = tuple(parts)
        self.starts = np.cumsum([0, *map(len, parts)])
        self.labels = {
            name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels
        }
        self.masks = {
            name: np.concatenate([part.masks[name] for part in parts]) for name in parts[0].masks
        }
        self.subjects, self.videos = (
            np.concatenate([np.full(len(p), "", object) if t is None else t for p, t in texts])
            for texts in ([(p, p.subjects) for p in parts], [(p, p.videos) for p in parts])
        )
        firsts = np.cumsum([0, *(int(part.blocks[-1]) + 1 for part in parts)])
        numbered = zip(parts, firsts.tolist(), strict=False)
        self.blocks = np.concatenate([part.blocks + first for part, first in numbered])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB images by index."""
        wanted = np.asarray(indices, np.int64)
        images = np.empty((len(wanted), 112, 112, 3), np.uint8)
        owners = np.searchsorted(self.starts, wanted, side="right") - 1
        for number in np.unique(owners).tolist():
            own = owners == number
            images[own] = self.parts[number].read_images(wanted[own] - self.starts[number])
        return images

    @cached_property
    def hash(self) -> str:
        """The one file's hash, or SHA-256 of the files' hashes in their order."""
        if len(self.parts) == 1:
            return str(self.parts[0].hash)
        return hashlib.sha256("".join(part.hash for part in self.parts).encode()).hexdigest()
