"""Functions of the user's own, named on the command line as ``package.module:function``."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any

from mlx_faceau.errors import FunctionError, UsageError


def load_function(name: str, option: str) -> Callable[..., Any]:
    """Import the function that a name means; its module may be in the current folder.

    ``option`` is what it was given as, for the UsageError where that fails.
    """
    module_name, _, function_name = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # last: its files hide no installed library
        sys.path.append(here)
    with user_code(option):
        function = getattr(importlib.import_module(module_name), function_name)
    if not callable(function):
        raise UsageError(f"{option}: not a function")
    return function  # type: ignore[no-any-return]


def name_of(function: Callable[..., Any]) -> str:
    """``module:function``, or the class of a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


@contextmanager
def user_code(name: str) -> Iterator[None]:
    """Turn any error of code that is not ours into a FunctionError: whose it is, and where."""
    try:
        yield
    except Exception as error:  # whatever it is, it is not a defect of this package
        text = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        calls = extract_tb(error.__traceback__)[2:]  # without this frame and the one that calls
        calls = [call for call in calls if "importlib" not in call.filename]
        own = [call for call in calls if call.filename == calls[0].filename]
        place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        raise FunctionError(f"{name}: {text}{place}") from error
