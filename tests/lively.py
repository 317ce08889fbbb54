"""Small nets whose answers depend on every pixel, weight and layer, for tests of what runs them.

An untrained net answers every face almost alike, so that a swapped channel would not show.
"""

from pathlib import Path

import numpy as np

from mlx_faceau.architectures import (
    AUPredictionConfig,
    LandmarkPoseConfig,
    ModelConfig,
    weight_shapes,
)
from mlx_faceau.checkpoint import describe, save_checkpoint

LANDMARK = LandmarkPoseConfig(width_mult=0.25)
AU = AUPredictionConfig(width_mult=0.25)
BOTH = (LANDMARK, AU)

# How far two float32 implementations may differ, by output.
TOLERANCE = {
    "landmarks": 1e-3,
    "global_params": 1e-3,
    "local_params": 1e-3,
    "au_intensities": 1e-4,
}


def lively_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep signals of order one through all layers, BatchNorm statistics included."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        if len(shape) > 1:
            fan_in = int(np.prod(shape[1:]))
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        elif name.endswith(("norm.weight", "running_var")):
            value = rng.uniform(0.7, 1.3, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        if name.endswith("excite.bias"):
            value += 2  # gates that are half open would damp the signal in every block
        weights[name] = value.astype(np.float32)
    if config.kind == "au_prediction":  # most units answer, near 2
        weights["au_head.layers.2.weight"] *= np.float32(0.3)
        weights["au_head.layers.2.bias"] += 1
    return weights


def write_checkpoint(path: Path, config: ModelConfig, seed: int = 0) -> Path:
    arrays = {f"model.{name}": value for name, value in lively_weights(config, seed).items()}
    save_checkpoint(path, arrays, describe(config))
    return path


def random_crops(count: int, seed: int = 0) -> np.ndarray:
    """(count, 112, 112, 3) uint8 BGR noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), np.uint8)


def reference_outputs(config: ModelConfig, crops: np.ndarray, seed: int = 0) -> dict:
    """The float64 torch net's answers to BGR crops, by output name."""
    import torch

    from mlx_faceau.torch_fallback import build

    net = build(config)
    net.load_weights_dict(lively_weights(config, seed))
    images = torch.from_numpy(crops[..., ::-1].transpose(0, 3, 1, 2) / 255.0)
    with torch.inference_mode():
        outputs = net.double().eval()(images)
    return {name: value.numpy() for name, value in outputs.items()}
