"""OpenCV's own messages, kept from the terminal where ours say more."""

import contextlib
from collections.abc import Iterator

import cv2

_LOG = cv2.utils.logging
ERRORS, NOTHING = _LOG.LOG_LEVEL_ERROR, _LOG.LOG_LEVEL_SILENT


@contextlib.contextmanager
def opencv_says(level: int) -> Iterator[None]:
    """Inside the block OpenCV prints what is at least as grave as ``level``."""
    before = _LOG.getLogLevel()
    _LOG.setLogLevel(level)
    try:
        yield
    finally:
        _LOG.setLogLevel(before)
