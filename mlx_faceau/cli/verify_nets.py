"""Compares training and prediction on this device with the CPU, for ``benchmark --verify``.

On a GPU this is the one place that meets the compiled training step, the fused BatchNorm and the
folded, compiled net of the MLX backend together.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core.architectures import CONFIGS, ModelConfig, random_weights
from mlx_faceau.core.checkpoint import describe, save_checkpoint
from mlx_faceau.core.preprocess import scale_rgb
from mlx_faceau.core.tolerances import FIRST_LOSS, MAX_ERROR, RUNNING_STATISTICS
from mlx_faceau.inference.backends.mlx_backend import MLXBackend
from mlx_faceau.models import mx
from mlx_faceau.train.mlx_trainer import MLXTrainer

WIDTH, FACES, LEARNING_RATE = 0.25, 8, 1e-3
# Largest differences allowed: of the loss and the statistics relative, of the outputs absolute.
BOUNDS = {
    "loss of the first step": FIRST_LOSS,
    "BatchNorm statistics": RUNNING_STATISTICS,
    **MAX_ERROR,
}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class NetReport:
    """How far one figure of one net on this device is from the CPU's."""

    kind: str
    figure: str
    error: float

    @property
    def passed(self) -> bool:
        return self.error <= BOUNDS[self.figure]


def verify_nets() -> list[NetReport]:
    """Compare MLX's default device with the CPU: one training step and one batch predicted."""
    configs = [config_class(width_mult=WIDTH) for config_class in CONFIGS.values()]
    here = [dict(_figures(config)) for config in configs]
    device = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    try:
        wanted = [dict(_figures(config)) for config in configs]
    finally:
        mx.set_default_device(device)
    return [
        NetReport(config.kind, figure, _error(figure, ours[figure], cpus[figure]))
        for config, ours, cpus in zip(configs, here, wanted, strict=True)
        for figure in ours
    ]


def _error(figure: str, got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference: absolute of a net's outputs, relative of what training gives."""
    scale = 1.0 if figure in MAX_ERROR else float(np.abs(expected).max())
    return float(np.abs(got - expected).max()) / scale


def _figures(config: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of everything compared, computed on the default device."""
    weights, batch = random_weights(config), _batch(config)
    trainer = MLXTrainer(config, weights, loss_options={}, scaling={}, weight_decay=0.0, seed=0)
    for module in trainer.net.modules():
        if hasattr(module, "dropouts"):
            module.dropouts = [lambda x: x for _ in module.dropouts]
    yield "loss of the first step", trainer.train_epoch([batch], lambda _: LEARNING_RATE)["loss"]
    state = trainer.state().items()
    statistics = [value.ravel() for name, value in sorted(state) if "running_" in name]
    yield "BatchNorm statistics", np.concatenate(statistics)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        arrays = {f"model.{name}": value for name, value in weights.items()}
        save_checkpoint(path, arrays, describe(config))
        yield from MLXBackend(path).run(scale_rgb(batch["images"])).items()


def _batch(config: ModelConfig) -> Arrays:
    rng = np.random.default_rng(0)
    batch: Arrays = {"images": rng.integers(0, 256, (FACES, 112, 112, 3), np.uint8)}
    for name, shape in config.output_shapes.items():
        batch[name] = rng.uniform(0, 5, (FACES, *shape)).astype(np.float32)
    return batch
