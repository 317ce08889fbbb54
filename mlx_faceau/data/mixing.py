"""Order of a shuffled epoch whose images are read block by block, with bounded memory.

Blocks of neighbouring samples come in random order, each read in one go, and stream into a mixing
buffer; every sample leaves the buffer from a random slot, into which the next one of the stream
moves. At the end the buffer empties in random order.
"""

from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]  # (n,) indices -> (n, 112, 112, 3) uint8


class MixingPlan:
    """The order of one epoch, a pure function of its arguments.

    Attributes:
        order: (n,) int64, the samples in the order in which they leave the buffer.

    Args:
        indices: (n,) ascending sample indices.
        blocks: (n,) number of the block of each; neighbours in the same one are read together.
        window: samples in the buffer.
        seed: (seed of the run, epoch).
    """

    def __init__(
        self, indices: np.ndarray, blocks: np.ndarray, window: int, seed: tuple[int, int]
    ) -> None:
        rng = np.random.default_rng(seed)
        neighbours = np.split(indices, np.flatnonzero(np.diff(blocks)) + 1)
        self.blocks = [neighbours[i] for i in rng.permutation(len(neighbours))]
        self.stream = np.concatenate(self.blocks)
        self.window = min(window, len(indices))
        moves = len(indices) - self.window  # samples that come after the buffer is full
        self.slots = rng.integers(self.window, size=moves)
        self.last = rng.permutation(self.window)  # order in which the full buffer empties
        self.order = self._simulate(len(indices))[0]

    def _simulate(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first ``count`` samples, and the buffer's content after them."""
        buffer = self.stream[: self.window].tolist()
        incoming = self.stream[self.window :].tolist()
        order = []
        for slot, following in zip(self.slots[:count].tolist(), incoming, strict=False):
            order.append(buffer[slot])
            buffer[slot] = following
        rest = max(0, count - len(incoming))
        order += [buffer[slot] for slot in self.last[:rest].tolist()]
        return np.array(order, np.int64), np.array(buffer, np.int64)

    def images(self, read: Read, first: int) -> Iterator[np.ndarray]:
        """Images of ``order[first:]``, exactly as in the whole epoch."""
        moved = min(first, len(self.slots))
        buffer = read(self._simulate(moved)[1])
        following = self._following(read, self.window + moved)
        for slot, image in zip(self.slots[moved:].tolist(), following, strict=True):
            yield buffer[slot].copy()
            buffer[slot] = image
        for slot in self.last[first - moved :].tolist():
            yield buffer[slot]

    def _following(self, read: Read, position: int) -> Iterator[np.ndarray]:
        """Images of the stream from a position on, read block by block."""
        ends = np.cumsum([len(block) for block in self.blocks])
        for block, end in zip(self.blocks, ends.tolist(), strict=True):
            if end > position:
                yield from read(block[max(0, len(block) - (end - position)) :])
