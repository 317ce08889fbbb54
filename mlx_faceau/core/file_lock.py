"""A lock that one process holds at a time, for training and its files.

It needs filelock, which predicting must do without: result files have a lock of their own.
"""

import os
from pathlib import Path

from mlx_faceau.errors import FaceauError

from .libraries import import_library

filelock = import_library("filelock", "train")


class Lock:
    """Held from its making until it is released, or its process ends.

    Where another process holds the lock's file, the refusal is raised.
    """

    def __init__(self, path: Path, refusal: FaceauError) -> None:
        self._path = path
        self._lock = filelock.FileLock(path, timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise refusal from None

    def release(self) -> None:
        """Remove the file and let the next one in."""
        if os.name != "nt":  # while it is held: the next one's lock must not be removed
            self._path.unlink(missing_ok=True)
        self._lock.release()
