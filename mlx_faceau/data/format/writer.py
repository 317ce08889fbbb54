"""Writing training files: samples go to small files in a folder, which are merged at the end."""

import contextlib
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import clear_unfinished
from mlx_faceau.core.file_lock import Lock
from mlx_faceau.errors import DatasetError, UsageError

from . import schema
from .columns import HOG, Block, batch_of_one, checked_block
from .dataset import FaceDataset
from .label_provenance import copy_provenance
from .row_io import BLOCK_ROWS, check_target, copy_files, create_file

_LOG = getLogger(__name__)


class TrainingDataWriter:
    """Writes a training file, or extends one of this format; use it in a ``with`` block.

    Every 256 samples, and at every :meth:`flush`, the samples added since become a shard: a small
    training file in the folder ``<path>.partial``, written atomically and named by the row at which
    it begins. :meth:`close` merges the shards into the file and removes the folder. If the program
    is killed, the shards remain, and the next writer on the same path continues with them. The file
    itself is replaced as a whole, so it can be read at any moment. The disk must have room for
    ``expected_samples``, if given.

    Threads may share a writer. Processes cannot: let them return samples to the one that writes, or
    write files of their own and merge them.

    Raises:
        DatasetError: if the file is of another format, its folder does not exist, the disk lacks
            room, or another writer has it open.
    """

    def __init__(self, path: str | os.PathLike[str], expected_samples: int | None = None) -> None:
        self.path = Path(path)  # as given, for messages
        self._file = self.path.absolute()  # the current folder may change before the end
        self._folder = self._file.with_name(self._file.name + schema.PARTIAL)
        self._buffer: list[Block] = []
        self._thread_lock = threading.RLock()
        self._open = False
        check_target(self.path, expected_samples)
        busy = DatasetError(f"{self.path}: another writer has it open; wait until it is done")
        self._lock = Lock(Path(f"{self._file}.lock"), busy)
        try:
            clear_unfinished(self._file)
            self._existing = [self._file] if self._file.exists() else []
            self._rows = sum(map(_count_rows, self._existing))
            for path in self._existing:  # its labels are checked now, not after all the work
                FaceDataset(path, keep_outside=True).close()
            self._shards = self._find_shards()
            written = [*self._existing, *self._shards]
            self._hog = schema.has_hog(written[-1]) if written else None  # None: not known yet
        except BaseException:
            self._lock.release()
            raise
        self._open = True

    def __len__(self) -> int:
        """Number of samples: those of an extended file, and those added."""
        return self._rows + sum(len(block["images"]) for block in self._buffer)

    def __enter__(self) -> "TrainingDataWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with self._thread_lock:
            if not self._open:
                return
            try:
                self.flush()
            finally:
                self._release()
                if self._shards:
                    _LOG.warning(
                        "%s: %d samples are kept; open a writer on %s again to continue or close",
                        *(self._folder, len(self), self._file),
                    )

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
            subject: the person's name; samples of one subject are not split either.
            group: the source of the sample.
            measures: the parts of the score, by the names of
                :data:`mlx_faceau.data.format.columns.MEASURES`.

        Raises:
            UsageError: for a wrong shape, type or value; nothing is added then.
            DatasetError: if the disk refuses.
        """
        named = {name: value for name, value in locals().items() if name != "self"}
        self.add_batch(**batch_of_one(named))

    def add_batch(self, **columns: Any) -> None:
        """Add many samples: the names of :meth:`add_sample` in the plural, each with a leading N.

        ``landmarks``, ``global_params``, ``local_params``, ``au_intensities``, ``hog_features``
        and ``measures`` keep their names; optional ones may be left out or None. It raises what
        :meth:`add_sample` raises.
        """
        if not any(len(values) for values in columns.values() if values is not None):
            return
        block = checked_block(columns)
        with self._thread_lock:
            self._check_open()
            if self._hog is None:
                self._hog = HOG in block
            if self._hog != (HOG in block):
                raise UsageError("hog_features must be given for all samples of a file or for none")
            self._buffer.append(block)
            if len(self) - self._rows >= BLOCK_ROWS:
                self.flush()

    def flush(self) -> None:
        """Write all samples added so far to the disk: a kill loses none of them from here on.

        If the disk refuses, it raises DatasetError, and the samples stay in memory.
        """
        with self._thread_lock:
            self._check_open()
            if not self._buffer:
                return
            try:
                self._folder.mkdir(exist_ok=True)
            except OSError as error:
                raise DatasetError(f"{self._folder}: {error.strerror}") from error
            shard = self._folder / f"{self._rows:012d}.h5"
            with create_file(shard) as file:
                for block in self._buffer:
                    file.append(block)
            self._shards.append(shard)
            self._rows = len(self)
            self._buffer.clear()

    def close(self) -> None:
        """Write what is left, merge the shards into the file, and remove their folder.

        It raises DatasetError if there is no sample, or the disk refuses; the shards stay then.
        """
        with self._thread_lock:
            if not self._open:
                return
            try:
                if len(self) == 0:
                    raise DatasetError(f"{self.path}: not written, no sample was added")
                self.flush()
                if self._shards:
                    with create_file(self._file) as file:
                        copy_files([*self._existing, *self._shards], file)
                        copy_provenance(file, self._existing)
                    shutil.rmtree(self._folder)
            finally:
                self._release()

    def _find_shards(self) -> list[Path]:
        """The shards of an interrupted writer, in order; those already merged are removed.

        A shard's name is the row at which it begins. One that begins before the end of the file was
        merged into it by a writer that was killed before it could remove the folder.
        """
        if not self._folder.exists():
            return []
        if not self._folder.is_dir():
            raise DatasetError(f"{self._folder}: not a folder of shards; move it away")
        shards = []
        merged = self._rows
        for shard in sorted(self._folder.glob(f"{'[0-9]' * 12}.h5")):
            if int(shard.stem) < merged:
                shard.unlink()
                continue
            if int(shard.stem) != self._rows:
                raise DatasetError(
                    f"{shard}: begins at another row than {self._rows}, where {self.path.name} or "
                    "the shard before it ends; move the folder away"
                )
            self._rows += _count_rows(shard)
            shards.append(shard)
        if not shards:
            with contextlib.suppress(OSError):  # it holds something else
                self._folder.rmdir()
        else:
            _LOG.warning(
                "%s: %d samples of an interrupted writer are kept", self.path, self._rows - merged
            )
        return shards

    def _release(self) -> None:
        self._open = False
        self._lock.release()

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError(f"{self.path}: the writer is closed")


def _count_rows(path: Path) -> int:
    with schema.opened(path) as file:
        if not schema.check_root(path, file):
            raise DatasetError(
                f"{path}: written by the original tool; run 'mlx-faceau data convert' on it first"
            )
        return schema.check_datasets(path, file)
