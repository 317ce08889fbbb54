"""A file read in a process of its own: whatever a parser in C does there, this process goes on."""

import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from mlx_faceau.errors import DatasetError

Result = TypeVar("Result")

_SECONDS = 120.0  # a small file may take
_BYTES_A_SECOND = 1e6  # and more for large ones; the slowest network disk is faster


def run_in_subprocess(
    function: Callable[..., Result], path: Path, *more: Any, seconds: float | None = None
) -> Result:
    """Call ``function(path, *more)`` in a process of its own.

    Args:
        function: at the top of a module; its result can be pickled.
        path: the file it reads.
        more: its other arguments.
        seconds: after which it counts as hanging; None goes by the file's size.

    Returns:
        What the function returned.

    Raises:
        DatasetError: if the process dies or hangs.
        Exception: what the function raised.
    """
    if seconds is None:
        size = path.stat().st_size if path.exists() else 0
        seconds = _SECONDS + size / _BYTES_A_SECOND
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, function, path, *more), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise _unreadable(path, f"hung for {seconds:.0f} seconds")
        error, result = receiver.recv()
    except EOFError:
        process.join()
        raise _unreadable(path, f"died ({_cause(process.exitcode)})") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _tell(sender: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the caller hears it too, and says so
    logging.basicConfig(format="%(message)s")
    answer: tuple[Exception | None, Any]
    try:
        answer = None, function(*arguments)
    except Exception as error:  # handed over to the caller, who raises it
        answer = error, None
    sender.send(answer)


def _unreadable(path: Path, what: str) -> DatasetError:
    return DatasetError(
        f"{path}: the process that read it {what}: the file is damaged; write it again"
    )


def _cause(status: int | None) -> str:
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
