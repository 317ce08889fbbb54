"""Reading training files: ours and the original tool's.

Labels are small and held in memory; images stay on disk and are read by index.
"""

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.errors import DatasetError, UsageError

from . import schema
from .columns import COLUMNS, LABELS

_LOG = logging.getLogger(__name__)
_HASHED_IMAGES = 8
_MIN_CACHE_BYTES = 1 << 20
_IMAGE_BYTES = math.prod(COLUMNS["images"].shape)
_NEARLY_ALL = 0.99  # share of points inside the crop from which crop space is assumed
_SIMILARITY_TOLERANCE = 1e-4  # of the scale


class FaceDataset:
    """A training file, checked when opened.

    Safe with threads, with ``fork`` and with pickling: each process opens the file itself.

    Attributes:
        labels: ``landmarks`` (N, 68, 2) and ``global_params`` (N, 6) in crop pixels,
            ``local_params`` (N, 34), ``au_intensities`` (N, 17) in ``AU_NAMES`` order; float32.
        masks: ``global_mask`` and ``local_mask``, (N,) float32; 0 where that label is unusable.
        subjects, videos, groups (the source of a sample): (N,) str, or None where none is named.
        quality: (N,) float32 in [0, 1]; 1 where the file has no scores.
        outside: number of samples of the file with a landmark outside [0, 112].
        left_out: number of samples of the file that are not used: those outside, where they are
            dropped, and those that an original file gives no way to place in the crop.
        rows: (N,) int64, row in the file of each sample.

    Args:
        path: the HDF5 file.
        keep_outside: keep samples with a landmark outside the crop, which the network's sigmoid
            cannot reach. They are counted and, unless ``quiet``, logged either way.

    Raises:
        DatasetError: for a file that is missing, damaged, malformed, in another colour order,
            without a usable landmark space, or with NaN or inf among the labels.
    """

    def __init__(
        self, path: str | os.PathLike[str], keep_outside: bool = False, quiet: bool = False
    ) -> None:
        self.path = Path(path)
        self._keep_outside = keep_outside
        self._file: h5py.File | None = None
        self._process = -1
        with schema.opened(self.path) as file:
            ours = schema.check_root(self.path, file)
            count = schema.check_datasets(self.path, file)
            labels = {name: file[name][:].astype(np.float32) for name in LABELS}
            for name, values in labels.items():
                bad = np.flatnonzero(~np.isfinite(values.reshape(count, -1)).all(axis=1))
                if bad.size:
                    raise DatasetError(
                        f"{self.path}: {name!r} holds NaN or inf in {bad.size} of {count} samples, "
                        f"first in row {bad[0]}; drop those rows"
                    )
            units = labels["au_intensities"]
            labels["au_intensities"] = units[:, schema.au_order(self.path, file)]
            chunks = file["images"].chunks
            self._chunk_rows = int(chunks[0]) if chunks else schema.CHUNK_ROWS
            placed = posed = np.ones(count, bool)
            if not ours:
                warp = file["warp_matrices"][:] if "warp_matrices" in file else None
                placed, posed = _place_in_crop(self.path, labels, warp)
            inside = ((labels["landmarks"] >= 0) & (labels["landmarks"] <= 112)).all(axis=(1, 2))
            self.outside = int((placed & ~inside).sum())
            keep = placed & (inside | keep_outside)
            self.rows = np.flatnonzero(keep)
            self.left_out = count - len(self.rows)
            if self.outside and not quiet:
                _LOG.warning(
                    "%s: %d of %d samples have landmarks outside the crop: %s",
                    *(self.path, self.outside, count, "kept" if keep_outside else "dropped"),
                )
            if not quiet and len(self) == 0:
                raise DatasetError(
                    f"{self.path}: no usable sample among {count}: {self.outside} have landmarks "
                    "outside the crop; crop the faces wider, or keep such samples"
                )
            self.labels = {name: values[keep] for name, values in labels.items()}
            self.masks = {
                "global_mask": posed[keep].astype(np.float32),
                "local_mask": np.ones(len(self.rows), np.float32),
            }
            self.subjects, self.videos, self.groups = (
                None if (text := schema.read_texts(self.path, file, name)) is None else text[keep]
                for name in schema.TEXTS
            )
            quality = file.get("metadata/quality_scores")
            scores = np.ones(count) if quality is None else quality[:]
        self.quality: np.ndarray = scores[keep].astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def blocks(self) -> np.ndarray:
        """(N,) int64: samples with the same number, rows of a chunk, are best read together."""
        return self.rows // max(schema.CHUNK_ROWS, self._chunk_rows)

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB images by index; see :meth:`read`."""
        return self.read("images", indices)

    def read(self, name: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """A column of the file by index, in the order given, as the file holds it.

        Repeats are allowed; runs of neighbours are fastest.

        Raises:
            UsageError: if an index is out of range.
            DatasetError: if the file cannot be read.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise UsageError(f"indices must lie in [0, {len(self)}), got {chosen.tolist()[:8]}")
        rows = self.rows[chosen]
        order = np.argsort(rows, kind="stable")
        column = COLUMNS[name]
        values: np.ndarray = np.empty((len(rows), *column.shape), column.dtype)
        with schema.named_errors(self.path):
            if self._file is None or self._process != os.getpid():
                cache = max(_MIN_CACHE_BYTES, 2 * self._chunk_rows * _IMAGE_BYTES)
                self._file = schema.open_file(self.path, rdcc_nbytes=cache)
                self._process = os.getpid()
            source = self._file[name]
            chunk_rows = source.chunks[0] if source.chunks else schema.CHUNK_ROWS
            cuts = np.flatnonzero(np.diff(rows[order] // chunk_rows)) + 1
            for part in np.split(order, cuts) if len(order) else ():
                first, last = int(rows[part[0]]), int(rows[part[-1]])
                values[part] = source[first : last + 1][rows[part] - first]
        return values

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all labels, masks and names in use, and of 8 evenly spaced images.

        Images between those eight are not covered: a check that a run continues on the same data.
        """
        digest = hashlib.sha256()
        for name, values in sorted({**self.labels, **self.masks}.items()):
            digest.update(f"{name}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        for texts in (self.subjects, self.videos, self.groups):
            digest.update("\0".join([] if texts is None else texts.tolist()).encode() + b"\1")
        picked = np.unique(np.linspace(0, len(self) - 1, _HASHED_IMAGES).astype(np.int64))
        digest.update(self.read_images(picked).tobytes())
        return digest.hexdigest()

    def hashes(self) -> set[str]:
        """The :attr:`hash`, and that of the same file with ``keep_outside`` the other way round."""
        if not self.outside:
            return {self.hash}
        other = FaceDataset(self.path, not self._keep_outside, quiet=True)
        return {each.hash for each in (self, other) if len(each)}


class ConcatDataset:
    """Data sets one after the other, with the attributes of a single one.

    A subject, or a video, that several of them name is the same one; the name is empty where a part
    names none. No block holds samples of two parts.
    """

    def __init__(self, parts: Sequence[FaceDataset]) -> None:
        self.parts = tuple(parts)
        # (parts + 1,) number of the first sample of each, and the number of all
        self.starts = np.cumsum([0, *map(len, parts)])
        self.labels, self.masks = (
            {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
            for columns in ([part.labels for part in parts], [part.masks for part in parts])
        )
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
            return self.parts[0].hash
        return hashlib.sha256("".join(part.hash for part in self.parts).encode()).hexdigest()


LabelledFaces = FaceDataset | ConcatDataset


def _place_in_crop(
    path: Path, labels: dict[str, np.ndarray], warp: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Move the original tool's labels, of frame pixels, to crop space.

    With warp matrices (frame to crop) both kinds are mapped; samples whose matrix is no similarity
    (the original's batch writer stored zeros) are counted and left out. Without any usable matrix
    the landmarks must already lie in the crop: then they are taken as they are and the global
    parameters are masked.

    Returns:
        (N,) bool each: samples whose landmarks are in crop space, and whose parameters are.
    """
    landmarks, global_params = labels["landmarks"], labels["global_params"]
    count = len(landmarks)
    usable = np.zeros(count, bool)
    if warp is not None:  # a rotation and one positive scale, no shear and no mirror
        matrix = np.where(np.isfinite(warp), warp, 0).astype(np.float64)
        a, b = matrix[:, 0, 0], matrix[:, 1, 0]
        scale, shear = np.hypot(a, b), np.hypot(matrix[:, 1, 1] - a, matrix[:, 0, 1] + b)
        usable = (scale > 1e-6) & (shear <= _SIMILARITY_TOLERANCE * scale)
        usable &= np.isfinite(warp).all(axis=(1, 2))
    if usable.any():
        if not usable.all():
            _LOG.warning(
                "%s: %d of %d samples have no usable warp matrix: left out",
                *(path, int((~usable).sum()), count),
            )
        matrix = matrix[usable]
        landmarks[usable] = geometry.transform_points(matrix, landmarks[usable])
        global_params[usable] = geometry.transform_global_params(matrix, global_params[usable])
        return usable, usable
    inside = float(((landmarks >= 0) & (landmarks <= 112)).all(axis=2).mean())
    if inside < _NEARLY_ALL:
        raise DatasetError(
            f"{path}: landmarks are in frame pixels ({inside:.1%} of the points inside the crop) "
            "and there are no usable 'warp_matrices' to move them; write the file again with them"
        )
    _LOG.warning(
        "%s: no usable warp_matrices; %.1f %% of the points lie inside the crop, so the landmarks "
        "are taken as crop space and the global parameters are left out of the loss",
        *(path, 100 * inside),
    )
    return np.ones(count, bool), np.zeros(count, bool)
