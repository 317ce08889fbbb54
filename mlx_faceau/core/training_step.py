"""What an optimizer step needs in every framework."""

from collections.abc import Mapping

import numpy as np

CLIP_NORM = 1.0  # of all gradients together


def split_batch(batch: Mapping[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """A batch of arrays of one length in ``count`` equal parts, in order."""
    size = len(batch["images"]) // count
    return [
        {name: values[i * size : (i + 1) * size] for name, values in batch.items()}
        for i in range(count)
    ]


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one rank's dropout in one step, below 2**63.

    Drawn anew for each step, so that a resumed rank needs no random state of its own.
    """
    return ((seed * 1_000_003 + step) * 4_096 + rank) % 2**63


def section(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
