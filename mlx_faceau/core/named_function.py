"""Functions of the user's own, named on the command line as ``package.module:function``."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load_function(name: str, option: str) -> Callable[..., Any]:
    """Import the function that a name means; its module may lie in the current folder.

    Args:
        name: ``package.module:function``.
        option: what it was given as, for the error.

    Raises:
        ValueError: if there is no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # last: its files hide no installed library
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{option}: {error}") from None
    if not callable(function):
        raise ValueError(f"{option}: not a function")
    return function  # type: ignore[no-any-return]
