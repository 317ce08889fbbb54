"""Run an iterator in a thread of its own, beside its consumer, through a bounded queue."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_Queue = queue.Queue[Any]
_Put = Callable[[_Queue, Any, threading.Event], bool]

_LOG = logging.getLogger(__name__)
_POLL = 0.1  # seconds between looks at whether the consumer has gone


class _End:
    """Last message of a producer: the error that ended it, or None, until somebody raises it."""

    error: BaseException | None = None


@contextlib.contextmanager
def run_ahead(items: Iterable[Item], size: int = 4) -> Iterator[Iterator[Item]]:
    """The same items, produced by a thread that runs up to ``size`` items ahead.

    An error of the producer is raised in the consumer, after the items before it. Leaving the
    block stops the producer at its next item and waits for it, so that files it reads are closed.
    An error that the consumer then never came to, of closing or of items that nobody took, is
    logged: whether an item behind the last one was tried at all is chance.

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
    stopped, end = threading.Event(), _End()
    arguments = (items, waiting, stopped, put, end)
    thread = threading.Thread(target=_produce, args=arguments, daemon=True)
    thread.start()
    try:
        yield _consume(waiting)
    finally:
        stopped.set()
        thread.join()
        if end.error is not None:
            _LOG.warning("error behind the last item that was taken: %r", end.error)


def _produce(
    items: Iterable[Any], waiting: "_Queue", stopped: threading.Event, put: "_Put", end: _End
) -> None:
    try:
        for item in items:
            if not put(waiting, item, stopped):
                break
    except BaseException as error:  # handed over to the consumer, who raises it
        end.error = error
    try:
        close = getattr(items, "close", None)
        if close is not None:
            close()
    except BaseException as error:
        end.error = end.error or error
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
            error, item.error = item.error, None
            if error is not None:
                raise error
            return
        yield item
