"""A batch in parts, for nets and machines that cannot take it whole."""

import numpy as np


def parts(batch: dict[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """Equal parts of a batch, in order.

    Args:
        batch: arrays of the same length, a multiple of ``count``.
        count: how many.
    """
    size = len(batch["images"]) // count
    return [
        {name: values[i * size : (i + 1) * size] for name, values in batch.items()}
        for i in range(count)
    ]
