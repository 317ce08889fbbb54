"""Arrays of any framework, for code that is written once for NumPy, MLX and torch."""

import sys
from typing import Any

Array = Any  # of a framework


def namespace(array: Array) -> Any:
    """The module of functions of an array's framework: ``numpy``, ``mlx.core`` or ``torch``."""
    return sys.modules[type(array).__module__]
