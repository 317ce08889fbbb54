"""Atomic writing of files, JSON among them, and checks of output folders before long work."""

import contextlib
import errno
import glob
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlx_faceau.errors import UsageError

# Endings of what this package writes, by which a folder, or another file, is meant to be one.
FILE_SUFFIXES = (
    *(".csv", ".json", ".jsonl", ".parquet", ".html", ".txt", ".md", ".png", ".jpg", ".pdf"),
    *(".h5", ".hdf5", ".safetensors", ".pt", ".onnx", ".mlpackage"),
)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary sibling that becomes ``path`` when the block ends well, and vanishes otherwise.

    The bytes are on the disk before the name changes. A symbolic link is kept; its target changes.

    Raises:
        OSError: if the system refuses, or ``path`` is a folder or a device; it names ``path``.
    """
    path = Path(os.path.realpath(path))
    prefix = _prefix(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)  # mkstemp makes files private; open() does not
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # The user knows the file itself, neither the temporary one nor a nameless error.
        ours = error.filename is None or Path(str(error.filename)).name.startswith(prefix)
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def json_text(content: Any) -> str:
    """Indented JSON; NaN and infinities, which it does not know, become null."""
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps(plain, indent=1)


def write_json(path: Path | str, content: Any) -> None:
    """Write :func:`json_text`: complete under its name, or what stood there before."""
    text = json_text(content)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


def _prefix(path: Path) -> str:
    """Of the names of a file's temporary siblings, and of no other file's."""
    name = path.name
    if len(name) > 40:  # no name may be longer than 255 bytes
        name = f"{name[:32]}{zlib.crc32(os.fsencode(name)):08x}"
    return f".{name}."


def clear_unfinished(path: Path) -> None:
    """Remove what killed programs left of an atomic file; none may be writing it now."""
    path = Path(os.path.realpath(path))
    random = "?" * 8  # as mkstemp's
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}{random}{glob.escape(path.suffix)}"):
        left.unlink()


def check_output_folder(path: Path | str) -> None:
    """Raise an error, before long work, unless a path is a folder, or free and named as one."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file; name a folder with --output")
    if path.suffix.lower() in FILE_SUFFIXES and not path.exists():
        raise UsageError(f"--output {path}: names a folder here; leave {path.suffix} out")


def prepare_output_folder(path: Path | str, names: Iterable[str]) -> None:
    """Make a folder, and raise OSError before long work if these files cannot be written there."""
    path = Path(path)
    check_output_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (path / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path / name))
    with tempfile.TemporaryFile(dir=path):
        pass
