"""Small nets whose answers depend on every pixel, weight and layer, for tests of what runs them."""

from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import (
    AUPredictionConfig,
    LandmarkPoseConfig,
    ModelConfig,
    random_weights,
)
from mlx_faceau.core.checkpoint import describe, save_checkpoint

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


def write_checkpoint(path: Path, config: ModelConfig, seed: int = 0) -> Path:
    arrays = {f"model.{name}": value for name, value in random_weights(config, seed).items()}
    save_checkpoint(path, arrays, describe(config))
    return path


def random_source(config: ModelConfig) -> Any:
    """The net as the exporters take it; its checkpoint has the kind as hash."""
    from mlx_faceau.convert.source_model import SourceModel

    return SourceModel(config, random_weights(config), describe(config, source_hash=config.kind))


def random_crops(count: int, seed: int = 0) -> np.ndarray:
    """(count, 112, 112, 3) uint8 BGR noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), np.uint8)


def reference_outputs(config: ModelConfig, crops: np.ndarray, seed: int = 0) -> dict:
    """The float64 torch net's answers to BGR crops, by output name."""
    import torch

    from mlx_faceau.torch_fallback import build

    net = build(config)
    net.load_weights_dict(random_weights(config, seed))
    images = torch.from_numpy(crops[..., ::-1].transpose(0, 3, 1, 2) / 255.0)
    with torch.inference_mode():
        outputs = net.double().eval()(images)
    return {name: value.numpy() for name, value in outputs.items()}
