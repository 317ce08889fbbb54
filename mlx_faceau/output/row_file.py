"""A text file of results that grows a frame at a time and keeps every finished frame.

While it grows, a marker ``NAME.incomplete`` lies beside it, locked by the program that writes; the
marker is removed when the file is complete. A later run can so tell which results are done
(``--resume``). The lock needs the standard library alone, since predicting must not need more.
"""

import errno
import os
import sys
from pathlib import Path
from typing import IO, BinaryIO, Self

from mlx_faceau.errors import UsageError

from .openface_csv import foreign_columns

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Of JSON lines of videos, of images; of JSON of crops.
_BEGINNINGS = {"jsonl": (b'{"frame"', b'{"file"'), "json": (b'[\n {\n  "file"',)}
_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)


def check_replaceable(path: Path | str, format: str) -> None:
    """Raise UsageError if a file of rows is not one of ours, which alone may be replaced.

    The format is ``csv`` (of ``parquet`` as well), ``jsonl``, or ``json``.
    """
    path, problem = Path(path), ""
    if str(path) == "-" or not path.is_file():
        return
    if format in _BEGINNINGS:
        with path.open("rb") as file:
            head = file.read(16)
        # A run that was killed may have left the beginning of a line.
        if not any(own.startswith(head) or head.startswith(own) for own in _BEGINNINGS[format]):
            problem = "it does not begin as ours do"
    elif names := foreign_columns(path):
        problem = f"column {names[0]!r} is none of ours"
    if problem:
        raise UsageError(
            f"{path}: another program's file ({problem}), which would be replaced; move it, or "
            "give another --output"
        )


def marker_of(path: Path) -> Path:
    """The file that marks ``path`` as growing or unfinished."""
    return path.with_name(path.name + ".incomplete")


def is_complete(path: Path) -> bool:
    """Whether a result exists and was finished."""
    return path.is_file() and not marker_of(path).exists()


class RowFile:
    """A text file of results, replaced if it exists; ``-`` is standard output.

    Every frame's lines reach the system in one write. One that fails (a full disk) takes back what
    it left of its lines, so that the file ends with a finished frame. Leaving the block without an
    error marks the file complete. OSError is raised if another program is writing it.
    """

    def __init__(self, path: Path | str, header: str | None = None) -> None:
        self.path = None if str(path) == "-" else Path(path)
        self._file: IO[bytes]
        self._marker: BinaryIO | None = None
        if self.path is not None:
            if not self.path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such folder", str(self.path.parent))
            # First the marker: an empty file without one would count as complete.
            unfinished = marker_of(self.path).exists()
            self._marker = _locked_marker(self.path)
            try:
                self._file = self.path.open("wb", buffering=0)
            except OSError:
                self._release(complete=not unfinished)
                raise
        if header is not None:
            self.write([header])

    def write(self, lines: list[str]) -> None:
        """Append lines, all or none; OSError if there is no room, or standard output was closed."""
        # Names of files may hold bytes that are no UTF-8.
        data = "".join(line + "\n" for line in lines).encode(errors="backslashreplace")
        if self.path is None:
            if hasattr(sys.stdout, "buffer"):
                sys.stdout.buffer.write(data)
            else:  # what a program has put there may take text alone
                sys.stdout.write(data.decode())
            sys.stdout.flush()
            return
        start = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), start)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def end(self) -> None:
        """Take no more lines, so that the file can be replaced before it is complete."""
        if self.path is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        self._release(complete=kind is None)

    def _release(self, complete: bool) -> None:
        if self._marker is None or self.path is None:
            return
        if sys.platform == "win32":  # which removes no open file
            self._marker.close()
        if complete:
            marker_of(self.path).unlink(missing_ok=True)
        self._marker.close()


def _locked_marker(path: Path) -> BinaryIO:
    """The marker of a result, locked until it is closed or the process ends."""
    marker = marker_of(path)
    while True:
        file: BinaryIO = marker.open("ab")
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file.fileno()), marker.stat()):
                return file
        except FileNotFoundError:
            pass  # its last holder removed it in between
        except OSError as error:
            file.close()
            if error.errno not in _LOCKED:
                raise OSError(error.errno, error.strerror, str(marker)) from None
            text = "another program is writing it; wait, or give another --output"
            raise OSError(errno.EBUSY, text, str(path)) from None
        file.close()
