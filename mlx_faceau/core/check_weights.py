"""Weights for checks: every pixel, weight and layer counts in the answers.

An untrained net answers every face almost alike, so that a swapped channel would not show.
"""

import numpy as np

from .architectures import ModelConfig, weight_shapes


def lively_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep signals of order one through all layers, BatchNorm statistics included.

    Args:
        config: settings of the net.
        seed: of the random numbers.

    Returns:
        float32 arrays by the names of :func:`~mlx_faceau.core.architectures.weight_shapes`.
    """
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
