"""Threads that run ahead: order, errors, bounds, leaving early."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mlx_faceau.video.prefetch import batched, prefetch


def test_items_come_in_order() -> None:
    with prefetch(iter(range(100)), size=3) as items:
        assert list(items) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with prefetch(broken()) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="gone"):
            next(items)


def test_groups_hold_all_items_in_order() -> None:
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched(range(4), 2)) == [[0, 1], [2, 3]]
    assert list(batched([], 2)) == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_comes_after_the_group_before_it(error: type[BaseException]) -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise error

    groups = batched(broken(), 3)
    assert [next(groups), next(groups)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(error):
        next(groups)


def test_groups_can_be_left_early() -> None:
    groups = batched(range(5), 2)
    assert next(groups) == [0, 1]
    groups.close()


def test_no_more_items_wait_than_asked_for() -> None:
    made = []
    full = threading.Event()

    def count() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            if i == 4:
                full.set()
            yield i

    with prefetch(count(), size=3) as items:
        next(items)
        assert full.wait(5)
        assert len(made) <= 3 + 3  # in the queue, in hand, consumed and being made


def test_leaving_early_closes_the_producer_and_ends_its_thread() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    with prefetch(endless()) as items:
        next(items)
    assert closed.is_set()
    assert threading.active_count() == before


class BadEnd:
    """Two items; closing fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.items = iter([1, 2])
        self.error = error

    def __iter__(self) -> "BadEnd":
        return self

    def __next__(self) -> int:
        item = next(self.items, None)
        if item is None:
            raise self.error or StopIteration
        return item

    def close(self) -> None:
        raise OSError("cannot close")


def test_an_error_while_closing_comes_after_the_items(caplog: pytest.LogCaptureFixture) -> None:
    with prefetch(BadEnd()) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(OSError, match="cannot close"):
            next(items)
    assert not caplog.records


def test_the_error_that_ended_the_items_goes_before_that_of_closing() -> None:
    with prefetch(BadEnd(ValueError("first"))) as items, pytest.raises(ValueError, match="first"):
        list(items)


@pytest.mark.parametrize("size", [1, 4], ids=["no room for it", "waiting"])
def test_an_error_that_nobody_came_to_is_logged(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    with prefetch(BadEnd(), size) as items:
        assert next(items) == 1
    assert "OSError('cannot close')" in caplog.text


def test_a_slow_consumer_gets_the_newest_item() -> None:
    done = threading.Event()

    def fast() -> Iterator[int]:
        yield 0
        yield from range(1, 50)
        done.set()
        yield 50

    with prefetch(fast(), 1, newest=True) as items:
        first = next(items)
        assert done.wait(5)
        rest = list(items)
    assert [first, *rest] == sorted({first, *rest})
    assert [first, *rest][-1] == 50
    assert len(rest) <= 3


def test_a_program_that_ends_within_the_block_closes_what_is_read() -> None:
    code = """
import time
from mlx_faceau.video.prefetch import prefetch

def items():
    try:
        while True:
            yield time.sleep(0.01)
    finally:
        print("closed")

def passed_on():
    with prefetch(items()) as read:
        yield from read

block = prefetch(passed_on())
next(block.__enter__())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


def test_a_daemon_thread_does_not_take_what_came_before_the_program_ended_for_all() -> None:
    code = """
import atexit, threading, time
from mlx_faceau.video.prefetch import prefetch

atexit.register(time.sleep, 1)  # runs last

def passed_on(items):
    with prefetch(items) as read:
        yield from read

def consume():
    with prefetch(passed_on(passed_on(iter(lambda: time.sleep(0.2), 1)))) as read:
        try:
            for _ in read:
                taken.set()
            print("all")
        finally:
            print("ended")

taken = threading.Event()
threading.Thread(target=consume, daemon=True).start()
taken.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
