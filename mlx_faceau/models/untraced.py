"""Keeps fused loops fused while MLX differentiates.

MLX runs a compiled function operation by operation when it is called during a transformation,
because its graph may have to be differentiated. The body of a custom function has its own
derivative and needs none of that. The record of running transformations belongs to a thread, so
the body runs on another one. On GPUs the whole training step is compiled instead.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import mlx.core as mx

P = ParamSpec("P")
R = TypeVar("R")


def untraced(body: Callable[P, R]) -> Callable[P, R]:
    """Decorate the body of a custom function, or its vjp, that calls compiled functions."""

    @wraps(body)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if mx.default_device() != mx.Device(mx.cpu):
            return body(*args, **kwargs)
        stream = mx.default_stream(mx.cpu)

        def on_this_stream() -> R:
            with mx.stream(stream):
                return body(*args, **kwargs)

        return _thread().submit(on_this_stream).result()

    return call


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlx-untraced")
