"""Batches of a training file: shuffled with bounded memory, resumable, read ahead by threads.

The order of an epoch is a pure function of (seed, epoch). Blocks are read and shuffled by
:mod:`~mlx_faceau.data.loading.shuffle_buffer`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from mlx_faceau.core.plural import counted
from mlx_faceau.data.format.labelled_faces import LabelledFaces
from mlx_faceau.errors import DatasetError, UsageError

from .augmentation_workers import Augment, AugmentationPool, Batch, augment_batch
from .shuffle_buffer import ShuffleBuffer

Transform = Callable[[Batch, int], Batch]  # a batch and its epoch
Read = tuple[np.ndarray, np.ndarray]  # images, indices

SHUFFLE_WINDOW = 4096  # samples in the buffer: 154 MB
_BLOCKS_IN_WINDOW = 8  # at least, for files whose blocks are large


class Batches:
    """Batches of some samples of a data set, epoch by epoch.

    Args:
        dataset: a :class:`~mlx_faceau.data.format.dataset.FaceDataset`, or several.
        indices: (n,) samples to use.
        batch_size: samples in a batch.
        seed: of the order and of the augmentation.
        augment: changes one sample; its generator depends on (seed, epoch, sample index) alone.
        workers: threads that read ahead and augment; 0 does it in the caller's thread.
        processes: that augment in place of the threads, which feed them; they start with the first
            batch.
        part: (rank, ranks): only this one of as many equal parts of each batch is given out. The
            images of all parts are read, those of one are augmented.
        transform: changes a whole batch last, by its epoch; None leaves it as it is.

    Raises:
        DatasetError: if the samples do not fill a batch.
    """

    def __init__(
        self,
        dataset: LabelledFaces,
        indices: np.ndarray,
        batch_size: int,
        seed: int = 42,
        augment: Augment | None = None,
        workers: int = 2,
        processes: int = 0,
        part: tuple[int, int] = (0, 1),
        transform: Transform | None = None,
    ) -> None:
        if (count := len(indices)) < batch_size:
            smaller = f"use --batch-size {count} or less" if count > 1 else "lower --val-split"
            raise DatasetError(
                f"the training side holds {counted(count, 'sample')}, fewer than a batch of "
                f"{batch_size}; {smaller}, or add data"
            )
        self.dataset = dataset
        self.indices = np.sort(np.asarray(indices, dtype=np.int64))
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.under_way = max(workers, processes)
        self._augment_batch = (
            AugmentationPool(processes).augment_batch if processes and augment else augment_batch
        )
        self.part = part
        self.transform = transform

    def __len__(self) -> int:
        """Number of batches in an epoch; a last short one is left out."""
        return len(self.indices) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """The batches of an epoch, from batch ``start`` on exactly as in the whole epoch.

        Threads end when the iterator is used up, closed, or forgotten. What goes wrong in them is
        raised here.

        Args:
            epoch: number of the epoch, >= 0.
            start: index of the first batch wanted.

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

    def order(self, epoch: int) -> np.ndarray:
        """(n,) int64 samples of an epoch in their order."""
        return self._plan(epoch).order

    def _plan(self, epoch: int) -> ShuffleBuffer:
        blocks = self.dataset.blocks[self.indices]
        largest = int(np.unique(blocks, return_counts=True)[1].max())
        window = max(SHUFFLE_WINDOW, _BLOCKS_IN_WINDOW * largest)
        return ShuffleBuffer(self.indices, blocks, window, (self.seed, epoch))

    def _read(self, epoch: int, start: int) -> Iterator[Read]:
        """Images and indices of this rank's part, batch by batch."""
        rank, ranks = self.part
        own = slice(rank * self.batch_size // ranks, (rank + 1) * self.batch_size // ranks)
        plan = self._plan(epoch)
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
