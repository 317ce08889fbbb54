"""Augmentation of a batch, in the caller's thread or in processes.

Augmentation holds Python's lock most of the time, so threads share one core; a GPU that trains on
thousands of faces a second needs processes.
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
Seeds = Sequence[tuple[int, ...]]  # (seed of the run, epoch, sample)


def augment_batch(
    augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
) -> tuple[np.ndarray, Batch]:
    """Change the faces of a batch in place, each by a generator of its own; the same arrays.

    Args:
        augment: changes one face.
        images: (B, 112, 112, 3) uint8 RGB.
        labels: (B, ...) each.
        seeds: one for each face's generator.
    """
    for row, seed in enumerate(seeds):
        face = {name: values[row] for name, values in labels.items()}
        images[row], changed = augment(images[row], face, np.random.default_rng(seed))
        for name, value in changed.items():
            labels[name][row] = value
    return images, labels


class AugmentationPool:
    """Runs :func:`augment_batch` in processes, which start with the first batch.

    The function that changes a face must be importable there. A program that starts them guards its
    entry with ``if __name__ == "__main__"``, as Python's multiprocessing asks.

    Args:
        count: of processes, at least 1.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, initializer=_start_worker)
        # A process that was itself started by multiprocessing waits for its children before the
        # executor would end them; and it first closes, with priority 10, the queue that tells them.
        Finalize(self, _shut_down, (self._pool,), exitpriority=20)

    def augment_batch(
        self, augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
    ) -> tuple[np.ndarray, Batch]:
        """New arrays, as :func:`augment_batch` returns them."""
        try:
            return self._pool.submit(augment_batch, augment, images, labels, seeds).result()
        except BrokenProcessPool:
            raise FaceauError(
                "an augmentation process was killed, perhaps because memory ran short; continue "
                "with --resume and fewer --num-processes"
            ) from None


def _shut_down(pool: ProcessPoolExecutor) -> None:
    # The last reference may go in the executor's own thread, which cannot wait for itself; at the
    # exit, where waiting matters, it is the main thread that comes here.
    pool.shutdown(wait=threading.current_thread() is threading.main_thread())


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, take one core, and end when the parent is killed."""
    import cv2

    def end_with(parent: "multiprocessing.process.BaseProcess") -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
