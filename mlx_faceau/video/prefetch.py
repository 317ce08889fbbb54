"""Run an iterator in a background thread that feeds its consumer through a bounded queue."""

import atexit
import contextlib
import logging
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")

logger = logging.getLogger(__name__)
_POLL = 0.1  # seconds after which a waiting thread checks whether the other side has ended
_AT_EXIT = 5.0  # seconds that a program which ends waits for an item: a camera may give none


@contextlib.contextmanager
def prefetch(
    items: Iterable[Item], size: int = 4, newest: bool = False
) -> Iterator[Iterator[Item]]:
    """The same items, produced by a thread that runs up to ``size`` items ahead.

    An error of the producer is raised in the consumer, after the items before it. Leaving the
    block stops the producer at its next item and waits for it, so that files it reads are closed.
    An error that the consumer then never came to, of closing or of items that nobody took, is
    logged: whether an item behind the last one was tried at all is chance. A program that ends
    within the block stops it too: a thread that the interpreter kills in native code aborts it.
    A consumer in a daemon thread then gets SystemExit, lest it takes the items for all.

    Args:
        items: consumed in the thread only; a generator is closed there too.
        size: how many finished items may wait.
        newest: where there is no room, drop the oldest waiting item instead of waiting, as live
            sources need it.
    """
    waiting: queue.Queue[Any] = queue.Queue(size)
    stopped, ending, end = threading.Event(), threading.Event(), object()
    errors: list[BaseException] = []  # of the producer, until somebody raises them

    def put(item: Any, replace: bool) -> bool:
        """False when the consumer has gone."""
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0 if replace else _POLL)
                return True
            except queue.Full:
                if replace:
                    with contextlib.suppress(queue.Empty):
                        waiting.get_nowait()
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item, newest):
                    break
        except BaseException as error:  # handed over to the consumer, who raises it
            errors.append(error)
        try:
            if hasattr(items, "close"):
                items.close()
        except BaseException as error:
            errors.append(error)
        put(end, False)

    def consume() -> Iterator[Item]:
        while True:
            try:  # with a limit, because Windows cannot interrupt a wait without one
                item = waiting.get(timeout=_POLL)
            except queue.Empty:
                if ending.is_set():
                    raise SystemExit from None
                continue
            if item is end:
                break
            yield item
        if errors:
            raise errors.pop(0)

    def end_with_program() -> None:
        ending.set()
        stopped.set()
        thread.join(_AT_EXIT)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    atexit.register(end_with_program)
    try:
        yield consume()
    finally:
        atexit.unregister(end_with_program)
        stopped.set()
        thread.join()
        for error in errors if not ending.is_set() else ():
            logger.warning("error behind the last item that was taken: %r", error)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last may be shorter. An error comes after what came before."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                full, batch = batch, []
                yield full
    finally:
        if batch:
            yield batch
