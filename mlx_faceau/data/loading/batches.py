"""Batches of a training file: shuffled with bounded memory, resumable, read ahead by threads.

The order of an epoch is a pure function of (seed, epoch). Blocks of neighbouring samples come in
random order, each read in one go, and stream into a shuffle buffer; every sample leaves the buffer
from a random slot, into which the next one of the stream moves. At the end the buffer empties in
random order.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mlx_faceau.data.format.dataset import LabelledFaces
from mlx_faceau.errors import DatasetError, UsageError, counted

from .augment import Augment, AugmentationPool, Batch, augment_batch

Transform = Callable[[Batch, int], Batch]  # a batch and its epoch
Read = tuple[np.ndarray, np.ndarray]  # images, indices

SHUFFLE_WINDOW = 4096  # samples in the buffer: 154 MB
_BLOCKS_IN_WINDOW = 8  # at least, for files whose blocks are large


@dataclass(eq=False)
class Batches:
    """Batches of some samples of a data set, epoch by epoch.

    It raises DatasetError if the samples do not fill a batch.
    """

    dataset: LabelledFaces
    indices: np.ndarray  # (n,) samples to use
    batch_size: int
    seed: int = 42  # of the order and of the augmentation
    # Changes one sample; its generator depends on (seed, epoch, sample index) alone.
    augment: Augment | None = None
    workers: int = 2  # threads that read ahead and augment; 0 does it in the caller's thread
    # That augment in place of the threads, which feed them; they start with the first batch.
    processes: int = 0
    # (rank, ranks): only this one of as many equal parts of each batch is given out. The images of
    # all parts are read, those of one are augmented.
    part: tuple[int, int] = (0, 1)
    transform: Transform | None = None  # changes a whole batch last, by its epoch

    def __post_init__(self) -> None:
        if (count := len(self.indices)) < self.batch_size:
            smaller = f"use --batch-size {count} or less" if count > 1 else "lower --val-split"
            raise DatasetError(
                f"the training side holds {counted(count, 'sample')}, fewer than a batch of "
                f"{self.batch_size}; {smaller}, or add data"
            )
        self.indices = np.sort(np.asarray(self.indices, dtype=np.int64))
        self.under_way = max(self.workers, self.processes)
        self._augment_batch = augment_batch
        if self.processes and self.augment:
            self._augment_batch = AugmentationPool(self.processes).augment_batch

    def __len__(self) -> int:
        """Number of batches in an epoch; a last short one is left out."""
        return len(self.indices) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """The batches of an epoch, from batch ``start`` on exactly as in the whole epoch.

        Threads end when the iterator is used up, closed, or forgotten. What goes wrong in them is
        raised here.

        Yields:
            ``images`` (B, 112, 112, 3) uint8 RGB, ``landmarks``, ``global_params``,
            ``local_params``, ``au_intensities``, ``global_mask``, ``local_mask`` (float32) and
            ``index`` (B,) int64, the samples' numbers in the data set; what ``transform`` adds.
        """
        if not 0 <= start <= len(self):
            raise UsageError(f"start is {start}, expected 0..{len(self)}")
        raw = self._read(epoch, start)
        if self.under_way:
            return self._ahead(raw, epoch)
        return (self._finish(*read, epoch) for read in raw)

    def _read(self, epoch: int, start: int) -> Iterator[Read]:
        """Images and indices of this rank's part, batch by batch."""
        blocks = self.dataset.blocks[self.indices]
        largest = int(np.unique(blocks, return_counts=True)[1].max())
        window = max(SHUFFLE_WINDOW, _BLOCKS_IN_WINDOW * largest)
        plan = ShuffleBuffer(self.indices, blocks, window, (self.seed, epoch))
        rank, ranks = self.part
        own = slice(rank * self.batch_size // ranks, (rank + 1) * self.batch_size // ranks)
        images = plan.images(self.dataset.read_images, start * self.batch_size)
        for batch in range(start, len(self)):
            chosen = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            whole = np.stack(list(islice(images, self.batch_size)))
            yield whole[own], plan.order[chosen][own]

    def _finish(self, images: np.ndarray, index: np.ndarray, epoch: int) -> Batch:
        columns = {**self.dataset.labels, **self.dataset.masks}
        labels = {name: values[index] for name, values in columns.items()}
        if self.augment is not None:
            seeds = [(self.seed, epoch, sample) for sample in index.tolist()]
            images, labels = self._augment_batch(self.augment, images, labels, seeds)
        batch = {"images": images, **labels, "index": index}
        return batch if self.transform is None else self.transform(batch, epoch)

    def _ahead(self, raw: Iterator[Read], epoch: int) -> Generator[Batch]:
        """One thread reads, others finish; a fixed number of batches is under way."""
        reader = ThreadPoolExecutor(1, "mlx-faceau-reader")
        finishers = ThreadPoolExecutor(self.under_way, "mlx-faceau-batch")

        def finished(reading: Future[Read | None]) -> Batch | None:
            read = reading.result()
            return None if read is None else self._finish(*read, epoch)

        def under_way() -> Future[Batch | None]:
            return finishers.submit(finished, reader.submit(next, raw, None))

        try:
            pending = deque(under_way() for _ in range(2 * self.under_way))
            while (batch := pending.popleft().result()) is not None:
                pending.append(under_way())
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
            finishers.shutdown(cancel_futures=True)


class ShuffleBuffer:
    """The order of one epoch, a pure function of its arguments.

    ``indices`` (n,) are ascending, neighbours with the same number in ``blocks`` (n,) are read
    together, and ``window`` samples are in the buffer.
    """

    def __init__(
        self, indices: np.ndarray, blocks: np.ndarray, window: int, seed: tuple[int, int]
    ) -> None:
        rng = np.random.default_rng(seed)
        neighbours = np.split(indices, np.flatnonzero(np.diff(blocks)) + 1)
        # samples of each block, in the order in which blocks are read
        self.blocks = [neighbours[i] for i in rng.permutation(len(neighbours))]
        stream = np.concatenate(self.blocks).tolist()
        buffer, incoming = stream[:window], stream[window:]
        order = []
        slots = rng.integers(len(buffer), size=len(incoming)).tolist()
        for slot, following in zip(slots, incoming, strict=True):
            order.append(buffer[slot])
            buffer[slot] = following
        order += [buffer[slot] for slot in rng.permutation(len(buffer)).tolist()]
        self.order = np.array(order, np.int64)  # (n,) samples as they leave the buffer

    def images(self, read: Callable[[np.ndarray], np.ndarray], first: int) -> Iterator[np.ndarray]:
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
