"""Reading a file in another process, whose crash in a C library does not end this one."""

import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from mlx_faceau.errors import DatasetError

Result = TypeVar("Result")

_SECONDS = 120.0  # for a small file
_BYTES_PER_SECOND = 1e6  # more time for large ones; the slowest network disk is faster


def run_in_subprocess(
    function: Callable[..., Result], path: Path, *more: Any, seconds: float | None = None
) -> Result:
    """The result, or the exception, of ``function(path, *more)``, called in another process.

    The function is one of the top of a module, and its result can be pickled. DatasetError is
    raised if the process dies or takes longer than ``seconds``, or as the file's size allows.
    """
    if seconds is None:
        size = path.stat().st_size if path.exists() else 0
        seconds = _SECONDS + size / _BYTES_PER_SECOND
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, path, *more), daemon=True)
    process.start()
    sender.close()
    end = f"hung for {seconds:.0f} seconds"
    try:
        if receiver.poll(seconds):
            error, result = receiver.recv()
            if error is not None:
                raise error
            return result  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        status = process.exitcode or 0
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        end = f"died ({cause})"
    finally:
        process.kill()
        process.join()
        receiver.close()
    raise DatasetError(
        f"{path}: the process that read it {end}: the file is damaged; write it again"
    )


def _call(sender: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the caller handles it
    logging.basicConfig(format="%(message)s")
    try:
        result = function(*arguments)
    except Exception as error:  # raised again by the caller
        sender.send((error, None))
    else:
        sender.send((None, result))
