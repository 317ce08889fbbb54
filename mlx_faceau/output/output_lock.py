"""A file that says "somebody is writing here", and a lock on it that ends with the process.

By the standard library alone: predicting must not need more. (Training has :mod:`.lock`.)
"""

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)


class Claim:
    """The file is there while somebody writes, and stays where that ended without a word.

    Args:
        path: of the file; one that a program left behind is taken over.
        what: is being written, for the error.

    Raises:
        OSError: if another program holds it, or it cannot be made.
    """

    def __init__(self, path: Path, what: Path) -> None:
        self.path = path
        while True:
            self._file: BinaryIO = path.open("ab")
            try:
                _lock(self._file)
            except OSError as error:
                self._file.close()
                if error.errno not in _HELD:
                    raise OSError(error.errno, error.strerror, str(path)) from None
                text = "another program is writing it; wait, or give another --output"
                raise OSError(errno.EBUSY, text, str(what)) from None
            if _is_there(self._file, path):
                return
            self._file.close()  # its last holder removed it in between

    def leave(self) -> None:
        """Let go of the file and let it stay."""
        self._file.close()

    def settle(self) -> None:
        """Remove the file and let go of it."""
        if sys.platform == "win32":
            self._file.close()
        self.path.unlink(missing_ok=True)
        self._file.close()


def _is_there(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
