"""Work in a forked process that may be killed: what it told before, and how it ended."""

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

KILLED = "killed"
Work = Callable[[Callable[[Any], None]], object]


def in_child(function: Callable[[], object]) -> None:
    """Call a function in a child; what this process has not done its children inherit undone."""
    _, error = run_child(lambda tell: function())
    if error:
        raise RuntimeError(error)


def load(names: Iterable[str]) -> None:
    """Import modules here, so that children forked later need not, each for itself."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


@dataclass(frozen=True)
class Moment:
    """So many seconds after the child has told so many things."""

    told: int
    seconds: float


def run_child(work: Work, moment: Moment | None = None) -> tuple[list[Any], str]:
    """Work in a forked process, killed at a moment; what it told, and its error.

    This process never computes with torch, so that its children start without threads.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(work, writer)
    os.close(writer)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    lines: list[Any] = []
    with os.fdopen(reader, "rb") as pipe:
        while True:
            if moment is not None and len(lines) == moment.told:
                signal.setitimer(signal.ITIMER_REAL, max(moment.seconds, 1e-4))
            line = pipe.readline()
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if os.WIFSIGNALED(status):
        by_us = os.WTERMSIG(status) == signal.SIGKILL
        return [line for line in lines if not _is_end(line)], KILLED if by_us else f"died {status}"
    return lines[:-1], lines[-1]["error"]


def _is_end(line: Any) -> bool:
    return isinstance(line, dict) and "error" in line


def _answer(work: Work, writer: int) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)

    def tell(what: Any) -> None:
        os.write(writer, json.dumps(what).encode() + b"\n")

    error = ""
    try:
        work(tell)
    except BaseException:
        error = traceback.format_exc()[-2000:]
    tell({"error": error})
    os._exit(0)
