"""Varying the faces of a batch, in the caller's thread or in processes of their own.

Augmentation holds Python's lock most of the time, so threads share one core; a GPU that trains on
thousands of faces a second wants processes.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize

import numpy as np

from mlx_faceau.errors import FaceauError

Batch = dict[str, np.ndarray]
# image (112, 112, 3) uint8 RGB, its labels and masks, a generator of its own -> both, changed
Augment = Callable[[np.ndarray, Batch, np.random.Generator], tuple[np.ndarray, Batch]]
Seeds = Sequence[tuple[int, ...]]  # (seed of the run, epoch, sample, earlier visits)


def vary(
    augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
) -> tuple[np.ndarray, Batch]:
    """Change the faces of a batch in place, each by a generator of its own.

    Args:
        augment: changes one face.
        images: (B, 112, 112, 3) uint8 RGB.
        labels: (B, ...) each.
        seeds: one for each face's generator.

    Returns:
        The same arrays.
    """
    for row, seed in enumerate(seeds):
        face = {name: values[row] for name, values in labels.items()}
        images[row], changed = augment(images[row], face, np.random.default_rng(seed))
        for name, value in changed.items():
            labels[name][row] = value
    return images, labels


class Varying:
    """Does :func:`vary` in processes that start with the first batch and live until forgotten.

    The function that changes a face must be importable there. A program that starts them guards its
    entry with ``if __name__ == "__main__"``, as Python's multiprocessing asks.

    Args:
        count: of processes, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=_settle
        )
        # A process that was itself started by multiprocessing waits for its children before the
        # executor would end them; and it first closes, with priority 10, the queue that tells them.
        Finalize(self, _end, (self._pool,), exitpriority=20)

    def vary(
        self, augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
    ) -> tuple[np.ndarray, Batch]:
        """New arrays, as :func:`vary` leaves them.

        Raises:
            FaceauError: if a process was killed.
        """
        try:
            return self._pool.submit(vary, augment, images, labels, seeds).result()
        except BrokenProcessPool:
            raise FaceauError(
                "a process that varies training faces was killed, perhaps because memory ran "
                "short; go on with --resume and fewer --num-processes"
            ) from None


def _end(pool: ProcessPoolExecutor) -> None:
    """End the processes. The last reference may go in the executor's own thread, which cannot wait
    for itself; at the exit, where waiting matters, it is the main thread that comes here."""
    pool.shutdown(wait=threading.current_thread() is threading.main_thread())


def _settle() -> None:
    """In a new process: leave Ctrl-C to the parent, take one core, and end when the parent does."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes nothing that the process waits for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
