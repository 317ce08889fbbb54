"""Processes that train one net together; a launcher starts them, on one machine or several::

    mlx.launch -n 2 --backend ring -- python -m mlx_faceau train au --framework mlx ...
    torchrun --nproc-per-node 2 -m mlx_faceau train au --framework torch ...

All machines need the data, and a resumed checkpoint, under the same path. ``mlx.launch`` may return
0 although a rank failed: the line that training finished is what counts.

Every rank sees its own part of each batch and takes the same step; the first one writes files. A
rank that dies or hangs would leave the others waiting for ever: :class:`Watchdog` ends them.
"""

import os
import sys
import threading
import time

from mlx_faceau.core.trainer import Ranks

EXIT_STATUS = 3  # of a rank that gave up waiting for the others


class Watchdog:
    """Within the block, ends the process when :meth:`reset` was not called for so many seconds.

    A process that trains alone is never ended.
    """

    def __init__(self, ranks: Ranks, seconds: float) -> None:
        self.ranks = ranks
        self.seconds = seconds
        self._last = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        self.reset()
        if self.ranks.size > 1:
            threading.Thread(target=self._watch, name="mlx-faceau-watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def reset(self) -> None:
        """Start the time anew."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() - self._last <= self.seconds:
                continue
            # The main thread hangs in the framework, where no exception reaches it.
            sys.stderr.write(
                f"mlx-faceau: rank {self.ranks.rank} of {self.ranks.size}: no step for "
                f"{self.seconds:g} s: another rank is dead or hangs; continue with --resume\n"
            )
            sys.stderr.flush()
            os._exit(EXIT_STATUS)
