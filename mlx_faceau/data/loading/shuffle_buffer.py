"""Order of a shuffled epoch whose images are read block by block, with bounded memory.

Blocks of neighbouring samples come in random order, each read in one go, and stream into a shuffle
buffer; every sample leaves the buffer from a random slot, into which the next one of the stream
moves. At the end the buffer empties in random order.

Reference:
    Madow, On the Theory of Systematic Sampling, Annals of Mathematical Statistics 1949.
"""

from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]  # (n,) indices -> (n, 112, 112, 3) uint8


class ShuffleBuffer:
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

        def following() -> Iterator[np.ndarray]:  # the stream's images, read block by block
            position, end = self.window + moved, 0
            for block in self.blocks:
                end += len(block)
                if end > position:
                    yield from read(block[max(0, len(block) - (end - position)) :])

        for slot, image in zip(self.slots[moved:].tolist(), following(), strict=True):
            yield buffer[slot].copy()
            buffer[slot] = image
        for slot in self.last[first - moved :].tolist():
            yield buffer[slot]


def draw_systematically(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many draws as there are weights, at even distances along their sum in random order.

    Each place comes as often as its weight over the mean weight says, rounded up or down; over many
    epochs the mean is exact.

    Args:
        weights: (n,) > 0.
        rng: decides the order, and where the first draw lies.

    Returns:
        (n,) int64, ascending places in [0, n).
    """
    count, places = len(weights), rng.permutation(len(weights))
    ends = np.cumsum(weights[places], dtype=np.float64)
    points = (rng.random() + np.arange(count)) / count * ends[-1]
    drawn = np.minimum(np.searchsorted(ends, points, side="right"), count - 1)
    return np.sort(places[drawn])


def count_visits(order: np.ndarray) -> np.ndarray:
    """(n,) int64: how often the sample at each place of an order came before."""
    grouped = np.argsort(order, kind="stable")
    firsts = np.flatnonzero(np.diff(order[grouped], prepend=-1))  # of each sample's visits
    lengths = np.diff(firsts, append=len(order))
    visits = np.empty(len(order), np.int64)
    visits[grouped] = np.arange(len(order)) - np.repeat(firsts, lengths)
    return visits
