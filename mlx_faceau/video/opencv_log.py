"""OpenCV's own messages, suppressed where an error of ours replaces them."""

import contextlib
import threading
from collections.abc import Iterator

import cv2

_LOG = getattr(cv2.utils, "logging", cv2)  # before OpenCV 4.13 cv2 itself has both functions
ERRORS, NOTHING = 2, 0  # LOG_LEVEL_ERROR, LOG_LEVEL_SILENT
_lock = threading.Lock()
_before: list[int] = []  # levels that open blocks found, of all threads


@contextlib.contextmanager
def opencv_log_level(level: int) -> Iterator[None]:
    """Set the level from which OpenCV prints its own messages, inside the block.

    It holds for the whole process: the first block's level returns when the last one ends.
    """
    with _lock:
        _before.append(_LOG.getLogLevel())
        _LOG.setLogLevel(level)
    try:
        yield
    finally:
        with _lock:
            # Blocks of several threads end in any order: all but the last leave the level alone.
            first = _before[0]
            _before.pop()
            if not _before:
                _LOG.setLogLevel(first)
