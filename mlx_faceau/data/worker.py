"""Processes that do a part of this one's work."""

import multiprocessing
import os
import signal
import threading

import cv2


def start_worker() -> None:
    """Leave Ctrl-C to the parent, take one core, and end when the parent is killed."""

    def end_with(parent: "multiprocessing.process.BaseProcess") -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
