"""Runs a checkpoint with MLX: Metal on Apple Silicon, CUDA, or the CPU."""

import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core import blas
from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.core.preprocess import fill_batch, padded_size
from mlx_faceau.errors import BackendError
from mlx_faceau.models import build, mx
from mlx_faceau.models.depthwise import device_name
from mlx_faceau.models.mlx_thread import in_worker_thread

from . import Backend

# Images of one run: on a CPU few enough for its caches.
_MAX_BATCH = {"cpu": 16, "metal": 64, "cuda": 256}


class MLXBackend(Backend):
    """A checkpoint's net in MLX, BatchNorm folded; compiled as a whole on GPUs.

    On a CPU compiling the whole net takes minutes and gains nothing over its compiled pieces.
    """

    name = "mlx"

    def __init__(self, path: Path | str) -> None:
        _check_process()
        checkpoint = load_checkpoint(path)
        self.library = f"mlx {metadata.version('mlx')}"
        self.path, self.config = checkpoint.path, checkpoint.config
        self.metadata = checkpoint.metadata
        self.device, self._place = device_name(), mx.default_device()
        self.max_batch = _MAX_BATCH[self.device]
        net = build(self.config, checkpoint.weights()).fold()
        mx.eval(net.parameters())
        self._net = net if self.device == "cpu" else mx.compile(net)
        self.run(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32))  # compiles what it needs

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        _check_process()
        count = len(images)
        if self.device != "cpu":  # a GPU compiles the net anew for every size
            images = fill_batch(images, padded_size(count))

        def compute() -> dict[str, np.ndarray]:
            with mx.stream(self._place):
                outputs = self._net(mx.array(images))
                mx.eval(outputs)
                return {name: np.array(outputs[name])[:count] for name in self.config.output_shapes}

        return in_worker_thread(compute)

    def describe(self) -> dict[str, Any]:
        """As of every backend; ``blas`` says which library computes matrix products on a CPU."""
        about = super().describe()
        own = about.pop("metadata")
        return {**about, "blas": blas.prepare(), "metadata": own}


@cache
def _first_process() -> int:
    return os.getpid()


def _check_process() -> None:
    """Raise BackendError where MLX would wait for ever: its threads do not survive a fork."""
    if _first_process() != os.getpid():
        raise BackendError(
            "MLX ran before this process was forked and cannot run in it; start processes with "
            'multiprocessing.get_context("spawn"), or open predictors in them alone'
        )
