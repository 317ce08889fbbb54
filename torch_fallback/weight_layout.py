"""Weights between the two layouts: NumPy dictionaries in MLX layout, state dicts of our torch nets.

Names are the same on both sides, so one rule does it: convolutions move their input axis.
MLX keeps (out, height, width, in / groups), torch (out, in / groups, height, width).
"""

from collections.abc import Mapping

import numpy as np
import torch

TO_TORCH = (0, 3, 1, 2)
TO_MLX = (0, 2, 3, 1)
COUNTER = ".num_batches_tracked"  # of torch's BatchNorm; unused at a fixed momentum


def state_dict_from_weights(weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors, in memory of their own, from arrays in MLX names and layout."""
    return {name: torch.from_numpy(moved(value, TO_TORCH)) for name, value in weights.items()}


def weights_from_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Weights in MLX names and layout, in memory of their own, without BatchNorm's counters."""
    return {
        name: moved(value.detach().cpu().numpy(), TO_MLX)
        for name, value in state.items()
        if not name.endswith(COUNTER)
    }


def moved(value: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A copy of a weight, its axes in another order if it is a convolution's."""
    # A copy always: a 1x1 kernel would otherwise stay a view of memory that training overwrites.
    return np.array(value.transpose(axes) if value.ndim == 4 else value, order="C", copy=True)
