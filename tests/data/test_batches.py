"""Batches: order, mixing, resuming, augmentation, threads."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from training_files import arrays, row_numbers, write

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.augment import augmentation
from mlx_faceau.data.loading.batches import Batches, ShuffleBuffer
from mlx_faceau.errors import DatasetError, FaceauError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return FaceDataset(write(tmp_path_factory.mktemp("batches") / "faces.h5", arrays(300)))


@pytest.fixture
def small_window(monkeypatch):
    """A buffer smaller than the file, so that samples stream through it."""
    monkeypatch.setattr("mlx_faceau.data.loading.batches.SHUFFLE_WINDOW", 64)
    monkeypatch.setattr("mlx_faceau.data.loading.batches._BLOCKS_IN_WINDOW", 1)


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_holds_every_sample_once_with_its_own_image_and_labels(
    dataset, small_window, workers
):
    indices = np.setdiff1d(np.arange(300), [0, 17, 18, 299])  # 296 = 8 * 37
    batches = Batches(dataset, indices, 37, workers=workers)
    seen = []
    for batch in batches.epoch(0):
        rows = batch["index"]
        np.testing.assert_array_equal(row_numbers(batch["images"]), rows)
        for name, values in {**dataset.labels, **dataset.masks}.items():
            np.testing.assert_array_equal(batch[name], values[rows])
            assert batch[name].dtype == np.float32
        assert batch["images"].flags.c_contiguous
        seen += rows.tolist()
    assert sorted(seen) == indices.tolist()
    assert len(batches) == 8


def test_the_last_short_batch_is_dropped_in_training(dataset):
    sizes = [len(batch["index"]) for batch in Batches(dataset, np.arange(100), 32).epoch(0)]
    assert sizes == [32, 32, 32]


def test_order_depends_on_seed_and_epoch_alone(dataset, small_window):
    def order(seed, epoch, workers=0):
        batches = Batches(dataset, np.arange(300), 32, seed, workers=workers)
        return np.concatenate([batch["index"] for batch in batches.epoch(epoch)])

    np.testing.assert_array_equal(order(1, 5), order(1, 5, workers=2))
    assert not np.array_equal(order(1, 5), order(1, 6))
    assert not np.array_equal(order(1, 5), order(2, 5))


@pytest.mark.parametrize("start", [0, 1, 5, 8, 9])
def test_an_epoch_continued_in_the_middle_equals_the_rest_of_the_whole(
    dataset, small_window, start
):
    def brightened(image, labels, rng):
        return image + np.uint8(rng.integers(9)), {**labels, "local_mask": np.float32(0)}

    batches = Batches(dataset, np.arange(300), 32, augment=brightened)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start))
    assert len(rest) == len(whole) - start
    for first, second in zip(whole[start:], rest, strict=True):
        same(first, second)


def test_samples_that_come_several_times_keep_their_images_also_when_continued(
    dataset, small_window
):
    batches = Batches(dataset, np.repeat(np.arange(0, 300, 7), 9), 32, workers=2)
    whole, rest = list(batches.epoch(0)), list(batches.epoch(0, 5))
    assert len(whole) == 43 * 9 // 32
    for batch in whole:
        np.testing.assert_array_equal(row_numbers(batch["images"]), batch["index"])
    for first, second in zip(whole[5:], rest, strict=True):
        same(first, second)


def test_augmentation_changes_a_sample_by_its_own_generator_and_not_the_data_set(dataset):
    def marked(image, labels, rng):
        image[1, 1] = rng.integers(256, size=3)
        return image, {"landmarks": labels["landmarks"] + 1, "local_mask": np.float32(0)}

    before = dataset.labels["landmarks"].copy()
    marks = {}
    for workers in (2, 0):
        batches = Batches(dataset, np.arange(64), 16, 7, marked, workers=workers)
        for batch in batches.epoch(3):
            np.testing.assert_array_equal(batch["landmarks"], before[batch["index"]] + 1)
            assert not batch["local_mask"].any()
            for sample, image in zip(batch["index"].tolist(), batch["images"], strict=True):
                assert marks.setdefault(sample, image[1, 1].tolist()) == image[1, 1].tolist()
    np.testing.assert_array_equal(dataset.labels["landmarks"], before)
    expected = np.random.default_rng((7, 3, 11)).integers(256, size=3)
    assert marks[11] == expected.tolist()


def test_threads_end_when_the_consumer_stops_or_forgets(dataset):
    before = threading.active_count()
    batches = Batches(dataset, np.arange(300), 8, workers=2)
    epoch = batches.epoch(0)
    next(epoch)
    epoch.close()
    forgotten = batches.epoch(0)
    next(forgotten)
    del forgotten
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_while_reading_or_augmenting_reaches_the_consumer(dataset, workers):
    def failing(image, labels, rng):
        raise ZeroDivisionError("in augmentation")

    with pytest.raises(ZeroDivisionError, match="in augmentation"):
        list(Batches(dataset, np.arange(300), 8, augment=failing, workers=workers).epoch(0))

    class Broken:
        labels, masks, blocks = dataset.labels, dataset.masks, dataset.blocks

        def read_images(self, indices):
            raise DatasetError("disk gone")

    with pytest.raises(DatasetError, match="disk gone"):
        list(Batches(Broken(), np.arange(300), 8, workers=workers).epoch(0))


def test_processes_vary_as_threads_do_and_end_when_they_are_forgotten(dataset):
    strong = augmentation("strong")
    expected = list(Batches(dataset, np.arange(64), 16, 7, strong, workers=0).epoch(1))
    batches = Batches(dataset, np.arange(64), 16, 7, strong, workers=1, processes=2)
    for first, second in zip(expected, batches.epoch(1), strict=True):
        same(first, second)
    next(batches.epoch(2))  # the same ones serve further epochs
    started = multiprocessing.active_children()
    assert len(started) == 2
    del batches
    gc.collect()
    for process in started:
        process.join(30)
    assert not any(process.is_alive() for process in started)


def test_a_killed_process_is_an_error_with_a_remedy(dataset):
    batches = Batches(dataset, np.arange(64), 16, augment=killing_itself, processes=1)
    with pytest.raises(FaceauError, match=r"was killed.*fewer --num-processes"):
        next(batches.epoch(0))


def killing_itself(image, labels, rng):
    os._exit(9)


def test_an_error_in_a_process_is_raised_and_forgotten_processes_end(dataset):
    others = set(multiprocessing.active_children())  # of tests before, in the same process
    held = [Batches(dataset, np.arange(64), 16, augment=dividing_by_zero, processes=1)]
    with pytest.raises(ZeroDivisionError):
        next(held[0].epoch(0))
    gc.collect()
    running = set(multiprocessing.active_children()) - others
    assert running
    thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
    thread.start()
    thread.join(30)
    end = time.monotonic() + 30
    # Not join(): the executor's thread joins them too, and the later of two knows no exit status.
    while any(child.is_alive() for child in running) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(child.is_alive() for child in running)


def dividing_by_zero(image, labels, rng):
    return image // 0 if image is None else 1 // 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    faces = write(tmp_path / "faces.h5", arrays(32))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, faces], **pipes)
    assert parent.stdout.readline() == b"1 child\n"
    parent.kill()
    parent.communicate(timeout=60)  # returns once the child, which holds the pipes too, is gone
    assert parent.returncode == -9


def test_processes_end_with_a_parent_that_is_a_process_of_multiprocessing_itself(tmp_path):
    faces = write(tmp_path / "faces.h5", arrays(32))
    parent = multiprocessing.get_context("spawn").Process(target=keep_batches, args=(faces,))
    parent.start()
    parent.join(60)
    ended = parent.exitcode
    parent.kill()
    assert ended == 0


def keep_batches(path):
    """Read an epoch and keep what read it until the process ends."""
    batches = Batches(
        FaceDataset(path), np.arange(32), 16, augment=augmentation("light"), processes=1
    )
    assert len(list(batches.epoch(0))) == 2
    KEPT.append(batches)


KEPT = []
PARENT = """
import multiprocessing, sys, time
import numpy as np
from mlx_faceau.data.loading.augment import augmentation
from mlx_faceau.data.loading.batches import Batches
from mlx_faceau.data.format.dataset import FaceDataset
batches = Batches(
    FaceDataset(sys.argv[1]), np.arange(32), 16, augment=augmentation("light"), processes=1
)
next(batches.epoch(0))
print(len(multiprocessing.active_children()), "child", flush=True)
time.sleep(600)
"""


def test_too_few_samples_and_bad_numbers_are_refused(dataset):
    with pytest.raises(DatasetError, match=r"31 samples, fewer than a batch of 32; use --batch-si"):
        Batches(dataset, np.arange(31), 32)
    with pytest.raises(DatasetError, match="0 samples"):
        Batches(dataset, np.arange(0), 32)
    with pytest.raises(ValueError, match="start"):
        Batches(dataset, np.arange(64), 32).epoch(0, 3)


class Counter:
    """A data set without images that counts reads and knows its size alone."""

    def __init__(self, count):
        self.blocks = np.arange(count) // 16
        self.labels, self.masks = {"au_intensities": np.zeros((count, 17), np.float32)}, {}
        self.largest, self.runs = 0, 0

    def read_images(self, indices):
        self.largest = max(self.largest, len(indices))
        self.runs += 1
        assert np.ptp(indices // 16) == 0
        return np.empty((len(indices), 112, 112, 3), np.uint8)


def test_memory_is_bounded_by_the_buffer_and_blocks_are_read_whole():
    counter = Counter(8192)
    tracemalloc.start()
    batches = Batches(counter, np.arange(8192), 32, workers=1)
    for batch in batches.epoch(0):
        assert len(batch["index"]) == 32
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # the data are 308 MB, the buffer 154 MB
    assert counter.largest == 16
    assert counter.runs == 8192 // 16


def test_neighbours_in_the_file_are_well_mixed():
    count, size, block = 20_000, 32, 16
    order = ShuffleBuffer(np.arange(count), np.arange(count) // block, 4096, (0, 0)).order
    assert sorted(order.tolist()) == list(range(count))
    correlation = np.corrcoef(np.arange(count), order)[0, 1]
    assert abs(correlation) < 0.05
    whole = order[: count // size * size].reshape(-1, size)
    pairs = size * (size - 1) / 2
    same_block = sum(pairs_within(batch // block) for batch in whole) / (len(whole) * pairs)
    ideal = (block - 1) / (count - 1)  # of a full shuffle
    assert same_block < 8 * ideal  # 0.5 % of pairs; read in order it would be 48 %


def pairs_within(keys):
    counts = np.unique(keys, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
