"""Writing training files: samples gather in a buffer, blocks go to a log beside the file, and the
file takes its name when it is whole."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mlx_faceau.core.file_lock import Lock
from mlx_faceau.errors import DatasetError, UsageError

from . import schema
from .append_log import JOURNAL_ATTRIBUTE, open_journal
from .columns import Block, concatenated, rows_of
from .copying import blocks
from .dataset import FaceDataset
from .label_provenance import copy_provenance
from .rewriting import building, check_new, check_target
from .sample import checked_block, plural

_LOG = getLogger(__name__)
_BUFFERED = 16 * schema.CHUNK_ROWS  # samples; about 10 MB


class TrainingDataWriter:
    """Writes a training file; use it in a ``with`` block.

    Samples go to the log ``<path>.partial``, block by block; :meth:`close` makes the file of them
    and removes the log. If the program is killed, every sample written before the last
    :meth:`flush` is in the log: opening a writer on the same path takes them up. The file itself is
    replaced as a whole, so it can be read at any moment.

    Threads may share a writer. Processes cannot: let them return samples to the one that writes, or
    write files of their own and merge them.

    Args:
        path: the file to make; one of ours that is there already is continued.
        expected_samples: if given, the disk must have room for so many.
        compression: of the images: None, or "lzf" (smaller, slower to read).
        append: False refuses a file that is there, and drops everything when the block ends with
            an error: for files that are made in one go.

    Raises:
        DatasetError: if the file is none of ours (or there at all, without ``append``), its folder
            does not exist, the disk lacks room, or another writer has it open.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        expected_samples: int | None = None,
        compression: str | None = None,
        append: bool = True,
    ) -> None:
        self.path = Path(path)
        self._compression, self._append = compression, append
        self._buffer: list[Block] = []
        self._waiting = 0  # samples in the buffer
        self._guard = threading.RLock()
        self._open = False
        (check_target if append else check_new)(self.path, expected_samples)
        busy = DatasetError(f"{self.path}: another writer has it open; wait until it is done")
        self._lock = Lock(Path(f"{self.path}.lock"), busy)
        try:
            self._existing = _existing(self.path)
            self._journal = open_journal(self.path, append)
        except BaseException:
            self._lock.release()
            raise
        self._open = True
        self._hog = self._known_hog()

    def __len__(self) -> int:
        """Number of samples: those of the file continued, and those added."""
        there = 0 if self._existing is None else len(self._existing)
        return there + self._journal.rows + self._waiting

    def __enter__(self) -> "TrainingDataWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._append:
            self._leave()
        else:
            self.discard()

    def add_sample(
        self,
        *,
        image: np.ndarray,
        landmarks: np.ndarray,
        global_params: np.ndarray,
        local_params: np.ndarray,
        au_intensities: np.ndarray,
        bbox: np.ndarray | Sequence[float],
        video_name: str,
        frame_index: int,
        hog_features: np.ndarray | None = None,
        warp_matrix: np.ndarray | None = None,
        quality_score: float = 1.0,
        subject: str | None = None,
        group: str | None = None,
        measures: Mapping[str, float] | None = None,
    ) -> None:
        """Add one labelled crop.

        Args:
            image: (112, 112, 3) uint8 RGB.
            landmarks: (68, 2) crop pixels.
            global_params: (6,) scale, rx, ry, rz, tx, ty in crop space.
            local_params: (34,).
            au_intensities: (17,) in [0, 5], in ``AU_NAMES`` order.
            bbox: x, y, width, height in frame pixels.
            video_name: what must not be split between training and validation.
            frame_index: frame number in the video, >= 0.
            hog_features: (4464,); in all samples of a file or in none.
            warp_matrix: (2, 3) frame to crop; NaN is stored where it is unknown.
            quality_score: in [0, 1].
            subject: who it is; samples of one subject are not split either.
            group: the source of the sample.
            measures: what the score was made of, by the names of
                :data:`mlx_faceau.data.format.columns.MEASURES`.

        Raises:
            ValueError: for a wrong shape, type or value; nothing is added then.
            DatasetError: if the disk refuses.
        """
        named = {name: value for name, value in locals().items() if name != "self"}
        self.add_batch(**plural(named))

    def add_batch(self, **columns: Any) -> None:
        """Add many samples: the names of :meth:`add_sample` in the plural, each with a leading N.

        ``landmarks``, ``global_params``, ``local_params``, ``au_intensities``, ``hog_features``
        and ``measures`` keep their names; optional ones may be left out or None.

        Raises:
            ValueError: for an unknown or missing name, unequal lengths, or a bad sample; nothing is
                added then.
            DatasetError: if the disk refuses.
        """
        if not any(len(values) for values in columns.values() if values is not None):
            return
        block = checked_block(columns)
        with self._guard:
            self._check_open()
            if self._hog is None:
                self._hog = schema.HOG in block
            if self._hog != (schema.HOG in block):
                raise UsageError("hog_features must be given for all samples of a file or for none")
            self._buffer.append(block)
            self._waiting += rows_of(block)
            if self._waiting >= _BUFFERED:
                self.flush()

    def flush(self) -> None:
        """Bring all samples added so far onto the disk: from here on nothing can lose them.

        Raises:
            DatasetError: if the disk refuses; the samples stay in memory.
        """
        with self._guard:
            self._check_open()
            if not self._buffer:
                return
            try:
                self._journal.append(concatenated(self._buffer))
            except OSError as error:
                raise DatasetError(f"{self.path}: cannot be written ({error.strerror})") from error
            self._buffer.clear()
            self._waiting = 0

    def close(self) -> None:
        """Write what is left, make the file of all samples, and remove the log.

        Raises:
            DatasetError: if there is no sample, or the disk refuses; the log stays then.
        """
        with self._guard:
            if not self._open:
                return
            if len(self) == 0:
                self.discard()
                raise DatasetError(f"{self.path}: not written, no sample was added")
            try:
                self.flush()
                self._finish()
            finally:
                self._release()

    def discard(self) -> None:
        """Drop everything added; a file that was there before is not touched."""
        with self._guard:
            self._buffer.clear()
            self._waiting = 0
            if self._open:
                self._journal.delete()
                self._release()

    def _finish(self) -> None:
        if self._journal.rows:
            name = {JOURNAL_ATTRIBUTE: self._journal.id}
            with building(self.path, self._compression, **name) as builder:
                for block in self._all_blocks():
                    builder.append(block)
                copy_provenance(builder, [] if self._existing is None else [self.path])
        self._journal.delete()

    def _all_blocks(self) -> Iterator[Block]:
        if self._existing is not None:
            yield from blocks(self._existing)
            self._existing.close()
        yield from self._journal.blocks()

    def _leave(self) -> None:
        """The block ended with an error: keep what there is for the next writer."""
        with self._guard:
            if not self._open:
                return
            try:
                self.flush()
            finally:
                kept = self._journal.rows
                if kept == 0:
                    self.discard()
                else:
                    _LOG.warning(
                        "%s: %d samples are kept; open a writer on %s again to go on or to close",
                        *(self._journal.path, kept, self.path),
                    )
                    self._release()

    def _release(self) -> None:
        self._open = False
        self._journal.close()
        self._lock.release()

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError(f"{self.path}: the writer is closed")

    def _known_hog(self) -> bool | None:
        """Whether samples carry HOG features; None while there is no sample."""
        if self._existing is not None:
            return schema.has_hog(self.path)
        return schema.HOG in self._journal.columns if self._journal.rows else None


def _existing(path: Path) -> FaceDataset | None:
    """The file to be continued, if there is one."""
    if not path.exists():
        return None
    with schema.opened(path) as file:
        if not schema.check_root(path, file):
            raise DatasetError(
                f"{path}: written by the original tool; 'mlx-faceau data convert' makes it ours"
            )
    return FaceDataset(path, keep_outside=True)
