"""Compares both nets on MLX's default device with the CPU, for ``benchmark --verify``.

On a GPU this covers the compiled training step, BatchNorm in training and the folded, compiled net
of the MLX backend.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlx_faceau.core import blas
from mlx_faceau.core.architectures import CONFIGS, ModelConfig, random_weights
from mlx_faceau.core.checkpoint import describe, save_checkpoint
from mlx_faceau.core.preprocess import scale_rgb
from mlx_faceau.core.tolerances import FIRST_LOSS, MAX_ERROR, RUNNING_STATISTICS
from mlx_faceau.core.trainer import TrainerSettings
from mlx_faceau.inference.backends.mlx_backend import MLXBackend
from mlx_faceau.models import mx
from mlx_faceau.models.depthwise import device_name
from mlx_faceau.train.mlx_trainer import MLXTrainer

WIDTH, FACES, LEARNING_RATE = 0.25, 8, 1e-3
# Largest differences allowed: of the loss and the statistics relative, of the outputs absolute.
BOUNDS = {
    "loss of the first step": FIRST_LOSS,
    "BatchNorm statistics": RUNNING_STATISTICS,
    **MAX_ERROR,
}


def print_comparison() -> int:
    """Print every difference; the exit status is 1 where one is too large."""
    print(f"nets of width {WIDTH:g} on {device_name()} against the CPU; BLAS: {blas.prepare()}")
    passed = True
    for kind, name, error in differences():
        near = error <= BOUNDS[name]
        passed &= near
        print(f"  {kind:15}{name:24}{error:9.1e}  {'passed' if near else 'FAILED'}")
    return 0 if passed else 1


def differences() -> Iterator[tuple[str, str, float]]:
    """Kind of net, name of a figure (of ``BOUNDS``), and how far it is from the CPU's."""
    device = mx.default_device()
    for config_class in CONFIGS.values():
        config = config_class(width_mult=WIDTH)
        found = figures(config)
        mx.set_default_device(mx.Device(mx.cpu))
        try:
            expected = figures(config)
        finally:
            mx.set_default_device(device)
        for name, values in found.items():
            scale = 1.0 if name in MAX_ERROR else float(np.abs(expected[name]).max())
            yield config.kind, name, float(np.abs(values - expected[name]).max()) / scale


def figures(config: ModelConfig) -> dict[str, np.ndarray]:
    """Everything that is compared, computed on the default device."""
    weights, rng = random_weights(config), np.random.default_rng(0)
    batch = {"images": rng.integers(0, 256, (FACES, 112, 112, 3), np.uint8)}
    for name, shape in config.output_shapes.items():
        batch[name] = rng.uniform(0, 5, (FACES, *shape)).astype(np.float32)
    trainer = MLXTrainer(TrainerSettings(config, weights))
    for module in trainer.net.modules():
        if hasattr(module, "dropouts"):
            module.dropouts = [lambda x: x for _ in module.dropouts]
    loss = np.array(trainer.step(batch, LEARNING_RATE)["loss"])
    state = sorted(trainer.state().items())
    statistics = np.concatenate([value.ravel() for name, value in state if "running_" in name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        arrays = {f"model.{name}": value for name, value in weights.items()}
        save_checkpoint(path, arrays, describe(config))
        outputs = MLXBackend(path).run(scale_rgb(batch["images"]))
    return {"loss of the first step": loss, "BatchNorm statistics": statistics, **outputs}
