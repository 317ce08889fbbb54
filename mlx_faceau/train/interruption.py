"""Ctrl-C as a request to stop after the running step."""

import signal
import threading
from types import FrameType


class StopRequest:
    """Within the block the first SIGINT sets ``requested``; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, it is never set.
    """

    def __init__(self) -> None:
        self.requested = False
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "StopRequest":
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
