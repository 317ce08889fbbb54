"""Rows of training files: a new file is written block by block, existing ones are read so."""

import contextlib
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from mlx_faceau.core.atomic_io import FILE_SUFFIXES, atomic_file, clear_unfinished
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.file_lock import Lock
from mlx_faceau.core.libraries import package_version
from mlx_faceau.errors import DatasetError, counted

from . import schema
from .columns import COLUMNS, HOG, Block, concatenate_blocks
from .dataset import FaceDataset

_LOG = logging.getLogger(__name__)
BLOCK_ROWS = 256  # samples that pass through memory together, about 10 MB
_BYTES_PER_SAMPLE = 39_000  # an image and its labels
_LABEL_ROWS = 1024  # rows in a chunk of everything but images
_LABEL_CHUNK_BYTES = 1 << 20


class RowWriter:
    """A new training file that grows block by block; made by :func:`create_file`.

    Columns that blocks may lack are made when the first block brings them; rows without a value
    hold the column's own "missing".
    """

    def __init__(self, file: h5py.File, compression: str | None) -> None:
        self.rows = 0  # number of samples appended
        self._file, self._compression = file, compression
        # Kept open: a data set that is dropped writes its last chunks where no error can be raised.
        self._columns: dict[str, h5py.Dataset] = {}
        self._buffer: list[Block] = []
        self._written = 0
        file.attrs.update({name: value for name, (value, _) in schema.ATTRIBUTES.items()})
        file.attrs.update(au_names=list(AU_NAMES), writer=f"mlx-faceau {package_version()}")

    def append(self, block: Block) -> None:
        self._buffer.append(block)
        self.rows += len(block["images"])
        if self.rows - self._written >= BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Pass buffered blocks to the HDF5 library."""
        if not self._buffer:
            return
        block = concatenate_blocks(self._buffer)
        for name in [name for name in block if name not in self._columns]:
            column = COLUMNS[name]
            text, images = column.dtype is object, name == "images"
            row_bytes = math.prod(column.shape) * np.dtype(column.dtype).itemsize
            rows = max(schema.CHUNK_ROWS, min(_LABEL_ROWS, _LABEL_CHUNK_BYTES // row_bytes))
            self._columns[name] = self._file.create_dataset(
                name,
                (self._written, *column.shape),  # rows so far have no value
                h5py.string_dtype() if text else column.dtype,
                maxshape=(None, *column.shape),
                chunks=(schema.CHUNK_ROWS if images else rows, *column.shape),
                compression=self._compression if images else None,
                fillvalue=None if text else column.missing,
            )
        for name, dataset in self._columns.items():
            dataset.resize(self.rows, axis=0)
            if name in block:
                dataset[self._written : self.rows] = block[name]
        self._buffer.clear()
        self._written = self.rows

    def write_text(self, name: str, text: str) -> None:
        """Add a text about the whole file as a data set of its own."""
        self._file.create_dataset(name, data=text, dtype=h5py.string_dtype())


@contextlib.contextmanager
def create_file(
    path: Path, compression: str | None = None, allow_empty: bool = False
) -> Iterator[RowWriter]:
    """Write a training file that takes the name ``path`` when the block ends without an error.

    Images are compressed by ``compression``: None, or "lzf" (smaller, slower to read). It raises
    DatasetError and leaves nothing behind if no rows were added (unless ``allow_empty``), or if the
    disk refuses.
    """
    try:
        with atomic_file(path) as temporary:
            file = h5py.File(temporary, "w")
            try:
                writer = RowWriter(file, compression)
                yield writer
                writer.flush()
                file.flush()
            except BaseException:
                _discard(file)
                raise
            file.close()
            if writer.rows == 0 and not allow_empty:
                raise DatasetError(f"{path}: not written, there is no sample")
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))  # which the library hides in a paragraph
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        reason = os.strerror(int(number[1])) if number else reason
        raise DatasetError(f"{path}: cannot be written ({reason})") from error


def _discard(file: h5py.File) -> None:
    """Close a file; what the library still holds goes nowhere.

    On a full disk it would try each block again while it closes, and print a traceback for each.
    """
    if os.name != "nt":  # where the library's file numbers are its own
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, file.id.get_vfd_handle())
        os.close(nothing)
    with contextlib.suppress(OSError, RuntimeError):
        file.close()


def check_target(path: Path, expected_samples: int | None = None) -> None:
    """Raise DatasetError if a new file is named as one of another format, its folder does not
    exist, or its disk lacks room."""
    if path.suffix.lower() in set(FILE_SUFFIXES) - schema.SUFFIXES:
        raise DatasetError(f"{path}: a training file is HDF5; end its name with .h5")
    check_folder(path)
    if expected_samples is None:
        return
    needed, free = expected_samples * _BYTES_PER_SAMPLE, shutil.disk_usage(path.parent).free
    if needed > free:
        raise DatasetError(
            f"{path}: {expected_samples} samples need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; choose another disk"
        )


def check_folder(path: Path) -> None:
    """Raise DatasetError if the folder of a new file does not exist."""
    if not path.parent.is_dir():
        raise DatasetError(f"{path}: folder {path.parent} does not exist; make it first")


def check_new(path: Path, expected_samples: int | None = None) -> None:
    """:func:`check_target`, for a file that must not exist yet."""
    if os.path.lexists(path):
        raise DatasetError(f"{path}: exists already; choose another name or move it away")
    check_target(path, expected_samples)


@contextlib.contextmanager
def create_new_file(
    path: Path, expected_samples: int, compression: str | None = None
) -> Iterator[RowWriter]:
    """:func:`create_file`, where no file may be: two programs at once never replace each other's.

    It raises DatasetError if there is one, or another program is writing it.
    """
    check_new(path, expected_samples)
    busy = DatasetError(f"{path}: another program is writing it; wait until it is done")
    try:
        lock = Lock(Path(f"{path}.lock"), busy)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        check_new(path)
        clear_unfinished(path)
        with create_file(path, compression) as file:
            yield file
    finally:
        lock.release()


def copy_files(sources: Sequence[Path], file: RowWriter) -> None:
    """Append all samples of training files to a new one; HOG features if every file has some."""
    lacking = [schema.has_hog(source) for source in sources].count(False)
    if 0 < lacking < len(sources):
        _LOG.warning("%s left out: %d of %d sources lack them", HOG, lacking, len(sources))
    exclude = (HOG,) if lacking else ()
    for source in sources:
        dataset = FaceDataset(source, keep_outside=True, quiet=True)
        for block in read_blocks(dataset, exclude=exclude):
            file.append(block)
        dataset.close()


def read_blocks(
    dataset: FaceDataset, indices: np.ndarray | None = None, exclude: Collection[str] = ()
) -> Iterator[Block]:
    """Samples with every column that the file has but ``exclude``, at most 256 at a time.

    They come in the order of ``indices`` (n,), or None for all; labels are in crop space. It raises
    DatasetError if global parameters are not, or the file is damaged.
    """
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, np.int64)
    if unplaced := int((dataset.masks["global_mask"][indices] == 0).sum()):
        raise DatasetError(
            f"{dataset.path}: the global parameters of {counted(unplaced, 'sample')} are not in "
            "crop space and there are no warp matrices to move them; they cannot be written into a "
            "new file"
        )
    columns = {
        **dataset.labels,
        "metadata/quality_scores": dataset.quality,
        "metadata/video_names": dataset.videos,
        "metadata/subjects": dataset.subjects,
        "metadata/groups": dataset.groups,
    }
    if dataset.videos is None:  # a split needs names: all samples are of one video
        columns["metadata/video_names"] = np.full(len(dataset), dataset.path.name, object)
    with schema.opened(dataset.path) as file:
        others = [name for name in COLUMNS if name in file and name not in {*columns, *exclude}]
        for name in others:
            schema.check_array(dataset.path, file, name, len(file["images"]))
    for start in range(0, len(indices), BLOCK_ROWS):
        part = indices[start : start + BLOCK_ROWS]
        block = {name: values[part] for name, values in columns.items() if values is not None}
        yield block | {name: dataset.read(name, part) for name in others}
