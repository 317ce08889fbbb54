"""The attributes of training files, and checks of a file against them and its columns.

Layout: HDF5, one row a face. Images are RGB; landmarks and global parameters are in pixels of the
112 x 112 crop, except in files of the original tool, which carry no ``format`` attribute.
"""

import errno
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, NUM_AUS
from mlx_faceau.errors import DatasetError

from .columns import COLUMNS, HOG, LABELS

CHUNK_ROWS = 16
PARTIAL = ".partial"  # ending of the folder of shards of an unfinished file
SUFFIXES = {".h5", ".hdf5"}  # any ending will do but those of other formats

TEXTS = ("subjects", "video_names", "groups")  # of each sample, under metadata/
# Root attribute -> its value, and what to do with a file of another one. The original tool's files
# have the last two alone.
ATTRIBUTES: dict[str, tuple[Any, str]] = {
    "format": ("mlx-faceau", "give a file made by 'mlx-faceau data'"),
    "version": (1, "update mlx-faceau"),
    "landmark_space": ("crop", "convert it"),
    "color_format": ("RGB", "convert the images"),
    "image_size": ([112, 112], "crop the images again"),
}
_CHECK_HINT = "see 'mlx-faceau data check'"
_INFLATION = 1100  # bytes that a byte of the file can stand for: deflate's limit is 1032
_MAX_MEMBERS = 1000  # of a group; ours have a dozen
_MAX_DEPTH = 2  # groups in groups that anything is read from
_MAX_CHUNK = 256 << 20  # bytes; one is held as a whole while a row of it is read
_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
# What h5py raises on damaged files: it passes on whatever its converters meet.
_ERRORS = OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; any error of the library becomes a one-line DatasetError."""
    with named_errors(path), open_file(path) as file:
        yield file


def open_file(path: Path, **options: Any) -> h5py.File:
    """Open an HDF5 file for reading; errors of reading from it stay the library's."""
    if path.is_dir():
        raise DatasetError(f"{path}: a folder; give the path of an HDF5 training file")
    if not path.is_file():
        unfinished = path.with_name(path.name + PARTIAL)
        raise DatasetError(
            f"{path}: not finished yet; TrainingDataWriter({path.name!r}).close() merges its "
            f"shards in {unfinished.name}"
            if unfinished.is_dir()
            else f"{path}: no such file; give the path of an HDF5 training file"
        )
    try:  # the HDF5 library does not report a missing permission
        path.open("rb").close()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    with named_errors(path):
        if not h5py.is_hdf5(path):
            raise DatasetError(f"{path}: not an HDF5 file; give a file made by 'mlx-faceau data'")
        return h5py.File(path, "r", locking="best-effort", **options)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn the errors of the HDF5 library into a DatasetError that names the file."""
    try:
        yield
    except _ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        damaged = f"damaged or incomplete; if no program is writing it, write it again ({reason})"
        raise DatasetError(f"{path}: {_in_use(error) or damaged}") from error


def _in_use(error: Exception) -> str:
    """The message for a file that a program has open for writing; "" for other errors."""
    text = str(error)
    if "unable to lock file" in text:
        number = re.search(r"errno = (\d+)", text)
        if number is not None and int(number[1]) not in _LOCKED:
            reason = os.strerror(int(number[1]))
            return f"its disk cannot lock files ({reason}); set HDF5_USE_FILE_LOCKING=FALSE"
        return "in use by another program, which is writing it; wait for it, or end it"
    if "already open for" in text:  # a mark in the file, which a program that was killed leaves
        return "in use by another program, which is writing it; if none is, 'h5clear -s' frees it"
    if "file locking flag" in text:
        return "in use in this very program, which opened it in another way; close it first"
    return ""


def has_hog(path: Path) -> bool:
    with opened(path) as file:
        return HOG in file


def check_root(path: Path, file: h5py.File) -> bool:
    """Check the root attributes; return whether the file is ours (else the original tool's)."""
    ours = "format" in file.attrs
    for name, (expected, remedy) in ATTRIBUTES.items():
        found = file.attrs.get(name)
        found = found.tolist() if isinstance(found, np.ndarray | np.generic) else _text(found)
        if found != expected and (ours or name in ("color_format", "image_size")):
            raise DatasetError(f"{path}: {name} is {found!r}, expected {expected!r}; {remedy}")
    return ours


def au_order(path: Path, file: h5py.File) -> np.ndarray:
    """Columns of the file's ``au_intensities`` in the order of AU_NAMES: (17,) int."""
    names = [_text(name) for name in np.ravel(file.attrs.get("au_names", ()))]
    if sorted(map(str, names)) != sorted(AU_NAMES):
        wrong = sorted(set(map(str, names)) ^ set(AU_NAMES)) or ["a repeated one"]
        raise DatasetError(
            f"{path}: au_names does not name the {NUM_AUS} units once each; "
            f"missing or unknown: {', '.join(wrong)}"
        )
    return np.array([names.index(name) for name in AU_NAMES])


def check_datasets(path: Path, file: h5py.File) -> int:
    """Check presence, shapes, types and sizes of all data sets; return the number of rows."""
    _check_members(path, file)
    check_array(path, file, "images", None)
    count = int(file["images"].shape[0])
    if file["images"].dtype != np.uint8:
        raise DatasetError(f"{path}: 'images' is {file['images'].dtype}, expected uint8 RGB")
    if count == 0:
        raise DatasetError(f"{path}: holds no samples")
    for name in (*LABELS, "bboxes", "warp_matrices", "metadata/quality_scores"):
        if name in file or name in LABELS:
            check_array(path, file, name, count)
            kind = file[name].dtype
            if not np.issubdtype(kind, np.floating):
                raise DatasetError(f"{path}: {name!r} is {kind}, expected float32; {_CHECK_HINT}")
    for name in TEXTS:
        if f"metadata/{name}" in file:
            check_array(path, file, f"metadata/{name}", count)
    return count


def read_texts(path: Path, file: h5py.File, name: str) -> np.ndarray | None:
    """The strings of ``metadata/<name>``: (N,) object array of str, or None where absent."""
    dataset = file.get(f"metadata/{name}")
    if dataset is None:
        return None
    if h5py.check_string_dtype(dataset.dtype) is None:
        raise DatasetError(f"{path}: 'metadata/{name}' is {dataset.dtype}, expected strings")
    try:
        return np.asarray(dataset.asstr()[:], dtype=object)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: 'metadata/{name}' is not UTF-8 text ({error})") from error


def check_array(path: Path, file: h5py.File, name: str, count: int | None) -> None:
    """Raise DatasetError unless a column exists with its shape and ``count`` rows."""
    dataset, shape = file.get(name), COLUMNS[name].shape
    if not isinstance(dataset, h5py.Dataset):
        raise DatasetError(f"{path}: no data set {name!r}; {_CHECK_HINT}")
    found = tuple(dataset.shape or ())
    rows = "N" if count is None else str(count)
    if not found or found[1:] != shape or count not in (None, found[0]):
        expected = f"({', '.join([rows, *map(str, shape)])}{',' if not shape else ''})"
        raise DatasetError(
            f"{path}: {name!r} has shape {found}, expected {expected}; {_CHECK_HINT}"
        )


def _check_members(path: Path, group: h5py.Group, depth: int = 0) -> None:
    """Refuse links to other files, and data sets that claim more than the file can hold.

    Nothing is opened before its link is known to stay in this file.
    """
    names, held = list(islice(group, _MAX_MEMBERS + 1)), path.stat().st_size
    if len(names) > _MAX_MEMBERS:
        raise DatasetError(f"{path}: {group.name} has more than {_MAX_MEMBERS} members")
    for name in names:
        inside = isinstance(group.get(name, getlink=True), h5py.HardLink)
        member = group[name] if inside else None
        if isinstance(member, h5py.Dataset):
            inside = not (member.is_virtual or member.external)
        if not inside:
            raise DatasetError(f"{path}: {name!r} lies in another file; copy it into this one")
        if isinstance(member, h5py.Dataset):
            width = member.dtype.itemsize
            size = (member.size or 0) * width
            chunk = math.prod(map(int, member.chunks or (0,))) * width
            if size > _INFLATION * held or chunk > min(_INFLATION * held, _MAX_CHUNK):
                raise DatasetError(
                    f"{path}: {member.name} claims {size} bytes in chunks of {chunk}, more than a "
                    f"file of {held} bytes can hold or memory should; write it again"
                )
        elif isinstance(member, h5py.Group) and depth < _MAX_DEPTH:
            _check_members(path, member, depth + 1)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
