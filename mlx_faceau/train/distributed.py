"""Processes that train one net together; a launcher starts them, on one machine or several::

    mlx.launch -n 2 --backend ring -- python -m mlx_faceau train au --framework mlx ...
    torchrun --nproc-per-node 2 -m mlx_faceau train au --framework torch ...

All machines need the data, and a resumed checkpoint, under the same path. ``mlx.launch`` may return
0 although a rank failed: the line that training finished is what counts.

Every rank sees its own part of each batch and takes the same step; the first one writes. A rank
that dies or hangs would leave the others waiting for ever: :class:`Watchdog` ends them.
"""

import os
import sys
import threading
import time
from typing import Protocol

GIVEN_UP = 3  # exit status of a rank whose partners are gone


class Ranks(Protocol):
    """A process among those that train together.

    Attributes:
        rank: counted from 0.
        size: number of processes.
    """

    rank: int
    size: int

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; all ranks must ask together."""


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """Seed of one rank's dropout in one step, below 2**63.

    Drawn anew for each step, so that a resumed rank needs no random state of its own.
    """
    return ((seed * 1_000_003 + step) * 4_096 + rank) % 2**63


class Watchdog:
    """Within the block, ends the process when nothing was told for too long.

    Args:
        ranks: alone, a process is never ended.
        seconds: without a sign of life.
    """

    def __init__(self, ranks: Ranks, seconds: float) -> None:
        self.ranks = ranks
        self.seconds = seconds
        self._last = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        self.alive()
        if self.ranks.size > 1:
            threading.Thread(target=self._watch, name="mlx-faceau-watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def alive(self) -> None:
        """A sign of life."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() - self._last > self.seconds:
                self._end()

    def _end(self) -> None:
        """The main thread hangs in the framework, where no exception reaches it."""
        sys.stderr.write(
            f"mlx-faceau: rank {self.ranks.rank} of {self.ranks.size}: no step for "
            f"{self.seconds:g} s: another rank is dead or hangs; go on with --resume\n"
        )
        sys.stderr.flush()
        os._exit(GIVEN_UP)
