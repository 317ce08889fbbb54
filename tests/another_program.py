"""Another program, for what two of them do to one file and what a killed one leaves."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def another_program(code: str, path: Path) -> Iterator[None]:
    """Runs Python code until it has printed ``ready``; it is killed at the end of the block.

    Args:
        code: what it does, and then waits: for its input, which stays open.
        path: its one argument.
    """
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline().strip() == b"ready"
            yield
        finally:
            other.kill()
