"""Run an iterator in a thread of its own, beside its consumer, through a bounded queue."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_Queue = queue.Queue[Any]
_Put = Callable[[_Queue, Any, threading.Event], bool]

_POLL = 0.1  # seconds between looks at whether the consumer has gone


class _End:
    """Last message of a producer: the error that ended it, or None."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextlib.contextmanager
def run_ahead(items: Iterable[Item], size: int = 4) -> Iterator[Iterator[Item]]:
    """The same items, produced by a thread that runs up to ``size`` items ahead.

    An error of the producer is raised in the consumer, after the items before it. Leaving the
    block stops the producer at its next item and waits for it, so that files it reads are closed.

    Args:
        items: consumed in the thread alone; a generator is closed there too.
        size: how many finished items may wait.
    """
    with _beside(items, size, _put) as consumed:
        yield consumed


@contextlib.contextmanager
def keep_newest(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Like :func:`run_ahead`, but a slow consumer gets the newest item and never the missed ones.

    What a camera needs: its pictures come whether anybody is ready for them or not.
    """
    with _beside(items, 1, _replace) as consumed:
        yield consumed


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last may be shorter. An error comes after what came before."""
    group: list[Item] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == size:
                full, group = group, []
                yield full
    except BaseException:
        if group:
            yield group
        raise
    if group:
        yield group


@contextlib.contextmanager
def _beside(items: Iterable[Item], size: int, put: "_Put") -> Iterator[Iterator[Item]]:
    waiting: _Queue = queue.Queue(size)
    stopped = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, waiting, stopped, put), daemon=True)
    thread.start()
    try:
        yield _consume(waiting)
    finally:
        stopped.set()
        thread.join()


def _produce(
    items: Iterable[Any], waiting: "_Queue", stopped: threading.Event, put: "_Put"
) -> None:
    end = _End()
    try:
        for item in items:
            if not put(waiting, item, stopped):
                break
    except BaseException as error:  # handed over to the consumer, who raises it
        end = _End(error)
    try:
        close = getattr(items, "close", None)
        if close is not None:
            close()
    except BaseException as error:
        end = _End(end.error or error)
    _put(waiting, end, stopped)


def _put(waiting: "_Queue", item: Any, stopped: threading.Event) -> bool:
    """Wait for room; False when the consumer has gone."""
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False


def _replace(waiting: "_Queue", item: Any, stopped: threading.Event) -> bool:
    """Put an item in the place of one that nobody took; False when the consumer has gone."""
    while not stopped.is_set():
        try:
            waiting.put_nowait(item)
        except queue.Full:
            with contextlib.suppress(queue.Empty):
                waiting.get_nowait()
            continue
        return True
    return False


def _consume(waiting: "_Queue") -> Iterator[Any]:
    while True:
        try:  # with a limit, because Windows cannot interrupt a wait without one
            item = waiting.get(timeout=_POLL)
        except queue.Empty:
            continue
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item
