"""OpenCV's own messages, suppressed where an error of ours replaces them."""

import contextlib
from collections.abc import Iterator

import cv2

_LOG = cv2.utils.logging
ERRORS, NOTHING = _LOG.LOG_LEVEL_ERROR, _LOG.LOG_LEVEL_SILENT


@contextlib.contextmanager
def opencv_log_level(level: int) -> Iterator[None]:
    """Set the level from which OpenCV prints its own messages, inside the block."""
    before = _LOG.getLogLevel()
    _LOG.setLogLevel(level)
    try:
        yield
    finally:
        _LOG.setLogLevel(before)
