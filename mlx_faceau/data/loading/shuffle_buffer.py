"""Order of a shuffled epoch whose images are read block by block, with bounded memory.

Blocks of neighbouring samples come in random order, each read in one go, and stream into a shuffle
buffer; every sample leaves the buffer from a random slot, into which the next one of the stream
moves. At the end the buffer empties in random order.
"""

from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]  # (n,) indices -> (n, 112, 112, 3) uint8


class ShuffleBuffer:
    """The order of one epoch, a pure function of its arguments.

    Attributes:
        blocks: (k,) int64 samples of each block, in the order in which blocks are read.
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
        stream = np.concatenate(self.blocks).tolist()
        buffer, incoming = stream[:window], stream[window:]
        order = []
        slots = rng.integers(len(buffer), size=len(incoming)).tolist()
        for slot, following in zip(slots, incoming, strict=True):
            order.append(buffer[slot])
            buffer[slot] = following
        order += [buffer[slot] for slot in rng.permutation(len(buffer)).tolist()]
        self.order = np.array(order, np.int64)

    def images(self, read: Read, first: int) -> Iterator[np.ndarray]:
        """Images of ``order[first:]``, exactly as in the whole epoch.

        A block is read when its first sample is due, without the samples that are no longer wanted.
        """
        last = np.zeros(int(self.order.max()) + 1, np.int64)  # place of each sample's last visit
        np.maximum.at(last, self.order, np.arange(len(self.order)))
        held: dict[int, np.ndarray] = {}
        blocks = iter(self.blocks)
        for place, sample in enumerate(self.order[first:].tolist(), start=first):
            while sample not in held:
                block = np.unique(next(blocks))
                wanted = block[last[block] >= first]
                if len(wanted):  # copies, so that one that stays does not keep its whole block
                    held.update(zip(wanted.tolist(), map(np.copy, read(wanted)), strict=True))
            yield held[sample] if last[sample] > place else held.pop(sample)
