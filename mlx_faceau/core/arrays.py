"""Arrays of any framework, for code that is written once for NumPy, MLX and torch."""

import sys
from typing import Any

Array = Any  # of a framework


def namespace(array: Array) -> Any:
    """The module of functions of an array's framework: ``numpy``, ``mlx.core`` or ``torch``."""
    return sys.modules[type(array).__module__]


def without_gradient(array: Array) -> Array:
    """The same values, as constants to a derivative."""
    if hasattr(array, "detach"):  # torch
        return array.detach()
    xp = namespace(array)
    return xp.stop_gradient(array) if hasattr(xp, "stop_gradient") else array  # MLX, or NumPy
