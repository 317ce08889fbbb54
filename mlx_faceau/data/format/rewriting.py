"""Building an HDF5 training file from blocks of rows, under a temporary name until it is whole."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.libraries import package_version
from mlx_faceau.errors import DatasetError, UsageError

from . import schema
from .columns import COLUMNS, Block, rows_of

BYTES_PER_SAMPLE = 39_000  # an image and its labels
_LABEL_ROWS = 1024  # rows in a chunk of everything but images
_LABEL_CHUNK_BYTES = 1 << 20


class FileBuilder:
    """A new training file that grows block by block.

    Columns that blocks may lack are made when the first block brings them; rows before and after
    hold the column's own "missing".

    Args:
        file: opened for writing, empty.
        compression: of the images: None, or "lzf" (smaller, slower to read).

    Raises:
        ValueError: for another compression.
    """

    def __init__(self, file: h5py.File, compression: str | None = None) -> None:
        self._file = file
        if compression not in (None, "lzf"):
            raise UsageError(f"compression is {compression!r}, expected None or 'lzf'")
        self._compression = compression
        # Kept open: a data set that is dropped writes its last chunks where no error can be raised.
        self._columns: dict[str, h5py.Dataset] = {}
        self.rows = 0
        file.attrs.update(
            format=schema.FORMAT,
            version=schema.VERSION,
            landmark_space="crop",
            color_format="RGB",
            image_size=(112, 112),
            au_names=list(AU_NAMES),
            writer=f"mlx-faceau {package_version()}",
        )

    def append(self, block: Block) -> None:
        """Add the rows of a block."""
        start, end = self.rows, self.rows + rows_of(block)
        for name in block:
            if name not in self._columns:
                self._columns[name] = self._create(name)
        for name, dataset in self._columns.items():
            dataset.resize(end, axis=0)
            if name in block:
                dataset[start:end] = block[name]
        self.rows = end

    def note(self, name: str, text: str) -> None:
        """Add a text about the whole file as a data set of its own."""
        self._file.create_dataset(name, data=text, dtype=h5py.string_dtype())

    def _create(self, name: str) -> h5py.Dataset:
        column = COLUMNS[name]
        text = column.dtype is None
        size = 16 if column.dtype is None else np.dtype(column.dtype).itemsize
        row_bytes = max(1, int(np.prod(column.shape))) * size
        rows = max(schema.CHUNK_ROWS, min(_LABEL_ROWS, _LABEL_CHUNK_BYTES // row_bytes))
        images = name == "images"
        return self._file.create_dataset(
            name,
            (self.rows, *column.shape),
            h5py.string_dtype() if text else column.dtype,
            maxshape=(None, *column.shape),
            chunks=(schema.CHUNK_ROWS if images else rows, *column.shape),
            compression=self._compression if images else None,
            fillvalue=None if text or column.missing is None else column.missing,
        )


@contextlib.contextmanager
def building(
    path: Path, compression: str | None = None, **attributes: Any
) -> Iterator[FileBuilder]:
    """A builder whose file takes the name ``path`` when the block ends well.

    Args:
        path: replaced if it exists.
        compression: see :class:`FileBuilder`.
        attributes: further root attributes.

    Raises:
        DatasetError: if no rows were added, or the disk refuses; nothing of it stays then.
    """
    try:
        with atomic_file(path) as temporary:
            with _opened(temporary) as file:
                builder = FileBuilder(file, compression)
                file.attrs.update(attributes)
                yield builder
            if builder.rows == 0:
                raise DatasetError(f"{path}: not written, there is no sample")
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path}: cannot be written ({_reason(error)})") from error


def check_target(path: Path, expected_samples: int | None = None) -> None:
    """See that a file can be made there.

    Raises:
        DatasetError: if the folder does not exist or its disk lacks room.
    """
    if not path.parent.is_dir():
        raise DatasetError(f"{path}: folder {path.parent} does not exist; make it first")
    if expected_samples is None:
        return
    needed, free = expected_samples * BYTES_PER_SAMPLE, shutil.disk_usage(path.parent).free
    if needed > free:
        raise DatasetError(
            f"{path}: {expected_samples} samples need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; choose another disk"
        )


def check_new(path: Path, expected_samples: int | None = None) -> None:
    """:func:`check_target`, for a file that must not be there yet."""
    if os.path.lexists(path):
        raise DatasetError(f"{path}: exists already; choose another name or move it away")
    check_target(path, expected_samples)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A new file; where the block fails, the library writes what it still holds into nothing.

    On a full disk it would try each block again while it closes, and print a traceback for each.
    """
    file = h5py.File(path, "w")
    try:
        yield file
        file.flush()
    except BaseException:
        if os.name != "nt":  # where the library's file numbers are its own
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, file.id.get_vfd_handle())
            os.close(nothing)
        with contextlib.suppress(OSError, RuntimeError):
            file.close()
        raise
    file.close()


def _reason(error: Exception) -> str:
    """The system's own words, which the library hides in a paragraph."""
    number = re.search(r"errno = (\d+)", str(error))
    if number is not None:
        return os.strerror(int(number[1]))
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
