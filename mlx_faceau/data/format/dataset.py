"""Reading training files: ours and the original tool's.

Labels are small and held in memory; images stay on disk and are read by index.
"""

import hashlib
import logging
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

_LOG = logging.getLogger(__name__)
_HASHED_IMAGES = 8
_MIN_CACHE_BYTES = 1 << 20
_NEARLY_ALL = 0.99  # share of points inside the crop from which crop space is assumed
_SIMILARITY_TOLERANCE = 1e-4  # of the scale


class FaceDataset:
    """A training file, checked when opened.

    Safe with threads, with ``fork`` and with pickling: each process opens the file itself.

    Attributes:
        labels: ``landmarks`` (N, 68, 2) and ``global_params`` (N, 6) in crop pixels,
            ``local_params`` (N, 34), ``au_intensities`` (N, 17) in ``AU_NAMES`` order; float32.
        masks: ``global_mask`` and ``local_mask``, (N,) float32; 0 where that label is unusable.
        subjects: (N,) str, or None where the file names none.
        videos: (N,) str, or None.
        groups: (N,) str (the source of a sample), or None.
        quality: (N,) float32 in [0, 1]; 1 where the file has no scores.
        outside: number of samples of the file with a landmark outside [0, 112].
        left_out: number of samples of the file that are not used: those outside, where they are
            dropped, and those that an original file gives no way to place in the crop.
        rows: (N,) int64, row in the file of each sample.

    Args:
        path: the HDF5 file.
        keep_outside: keep samples with a landmark outside the crop, which the network's sigmoid
            cannot reach. They are counted and logged either way.

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
            labels = _read_labels(self.path, file)
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
                for name in ("subjects", "video_names", "groups")
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
        """Read images by index, in the order given; fastest for runs of neighbours.

        Args:
            indices: (n,) whole numbers in [0, N), in any order, repeats allowed.

        Returns:
            (n, 112, 112, 3) uint8 RGB.

        Raises:
            UsageError: if an index is out of range.
            DatasetError: if the file's images cannot be read.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise UsageError(f"indices must lie in [0, {len(self)}), got {chosen.tolist()[:8]}")
        rows = self.rows[chosen]
        order = np.argsort(rows, kind="stable")
        images = np.empty((len(rows), *schema.IMAGE_SHAPE), np.uint8)
        with schema.named_errors(self.path):
            source = self._images()
            cuts = np.flatnonzero(np.diff(rows[order] // self._chunk_rows)) + 1
            for part in np.split(order, cuts) if len(order) else ():
                first, last = int(rows[part[0]]), int(rows[part[-1]])
                images[part] = source[first : last + 1][rows[part] - first]
        return images

    def _images(self) -> h5py.Dataset:
        if self._file is None or self._process != os.getpid():
            cache = max(_MIN_CACHE_BYTES, 2 * self._chunk_rows * int(np.prod(schema.IMAGE_SHAPE)))
            self._file = schema.open_file(self.path, rdcc_nbytes=cache)
            self._process = os.getpid()
        return self._file["images"]

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
        found = {self.hash, other.hash} if len(other) else {self.hash}
        other.close()
        return found


def _read_labels(path: Path, file: h5py.File) -> dict[str, np.ndarray]:
    labels = {name: file[name][:].astype(np.float32) for name in schema.LABEL_SHAPES}
    for name, values in labels.items():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if bad.size:
            raise DatasetError(
                f"{path}: {name!r} holds NaN or inf in {bad.size} of {len(values)} samples, "
                f"first in row {bad[0]}; drop those rows"
            )
    labels["au_intensities"] = labels["au_intensities"][:, schema.au_order(path, file)]
    return labels


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
