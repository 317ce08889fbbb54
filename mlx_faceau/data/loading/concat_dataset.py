"""Several training files as one data set."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import UsageError


class JoinedFaces:
    """Training files one after the other, with the attributes of a single one.

    A subject, or a video, that several files name is the same one.

    Attributes:
        parts: the files.
        starts: (files + 1,) number of the first sample of each, and the number of all.
        labels, masks: as :class:`~mlx_faceau.data.format.dataset.FaceDataset` has them, of all
            files.
        subjects, videos: (N,) str; empty where a file names none.
        blocks: (N,) int64; none holds samples of two files.

    Args:
        parts: the opened files, at least one.
    """

    def __init__(self, parts: Sequence[FaceDataset]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *map(len, parts)])
        self.labels = _joined([part.labels for part in parts])
        self.masks = _joined([part.masks for part in parts])
        self.subjects = _joined_texts([part.subjects for part in parts], self.starts)
        self.videos = _joined_texts([part.videos for part in parts], self.starts)
        firsts = np.cumsum([0, *(int(part.blocks[-1]) + 1 for part in parts)])
        numbered = zip(parts, firsts.tolist(), strict=False)
        self.blocks = np.concatenate([part.blocks + first for part, first in numbered])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read images by index, as :meth:`FaceDataset.read_images` does."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise UsageError(f"indices must lie in [0, {len(self)}), got {wanted.tolist()[:8]}")
        images = np.empty((len(wanted), 112, 112, 3), np.uint8)
        owners = np.searchsorted(self.starts, wanted, side="right") - 1
        for number in np.unique(owners).tolist():
            own = owners == number
            images[own] = self.parts[number].read_images(wanted[own] - self.starts[number])
        return images

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        for part in self.parts:
            part.close()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the files' hashes in their order."""
        return hashlib.sha256("".join(part.hash for part in self.parts).encode()).hexdigest()


def open_datasets(
    paths: Sequence[str | os.PathLike[str]], keep_outside: bool = False
) -> FaceDataset | JoinedFaces:
    """Open one training file, or several as one data set.

    Args:
        paths: at least one.
        keep_outside: keep samples with a landmark outside the crop.

    Raises:
        DatasetError: as :class:`FaceDataset` raises it.
    """
    parts = [FaceDataset(path, keep_outside) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedFaces(parts)


def _joined(columns: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}


def _joined_texts(texts: Sequence[np.ndarray | None], starts: np.ndarray) -> np.ndarray:
    counts = np.diff(starts).tolist()
    filled = [
        np.full(count, "", object) if text is None else text
        for text, count in zip(texts, counts, strict=True)
    ]
    return np.concatenate(filled)
