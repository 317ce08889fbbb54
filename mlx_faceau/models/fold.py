"""BatchNorm folded into the convolutions before it, for inference."""

from collections.abc import Mapping

import numpy as np

from mlx_faceau.core.architectures import BN_EPS


def fold_weights(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of the net without BatchNorm that computes the same in eval mode.

    Each ``NAME.conv.weight`` takes up the scale of ``NAME.norm`` and gains ``NAME.conv.bias``;
    all else stays. Computed in float64.

    Args:
        weights: all weights and statistics of a net, in MLX names and layout.

    Returns:
        float32 weights; no name contains ``.norm.``.
    """
    folded = {}
    for name, value in weights.items():
        layer, inside_norm, part = name.rpartition(".norm.")
        if part == "weight":
            gamma, beta, mean, var = (
                weights[f"{layer}.norm.{part}"].astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / np.sqrt(var + BN_EPS)
            kernel = weights[f"{layer}.conv.weight"].astype(np.float64)
            folded[f"{layer}.conv.weight"] = kernel * scale[:, None, None, None]
            folded[f"{layer}.conv.bias"] = beta - mean * scale
        elif not inside_norm and not name.endswith(".conv.weight"):
            folded[name] = value
    return {name: np.asarray(value, np.float32) for name, value in folded.items()}
