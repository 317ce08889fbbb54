"""Average the weights of one net's checkpoints along its training.

    python benchmarks/average_checkpoints.py stage1.safetensors epoch3.safetensors \
        epoch5.safetensors --shares 0.2 0.5 0.3 --output average.safetensors

Averaged weights of fine-tuned nets often transfer better than any one of them (Wortsman et al.,
Model soups, ICML 2022). The result has the metadata of the last checkpoint, and records the files
and shares that it was made of; it can be exported and trained further, but not resumed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlx_faceau.core.checkpoint import load_checkpoint, save_checkpoint
from mlx_faceau.errors import CheckpointError, UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="their sum is 1")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    average(args.checkpoints, args.shares, args.output)


def average(paths: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted mean of the checkpoints' weights, of averaged ones where there are any.

    Raises:
        UsageError: if there are not as many shares as files, or they do not add up to 1.
        CheckpointError: if the files are not checkpoints of one net.
    """
    if len(shares) != len(paths) or not np.isclose(sum(shares), 1):
        raise UsageError(f"--shares {shares}: expected {len(paths)} numbers whose sum is 1")
    checkpoints = [load_checkpoint(path) for path in paths]
    last = checkpoints[-1]
    for each in checkpoints:
        if each.config != last.config:
            raise CheckpointError(f"{each.path}: {each.config}, but {last.path}: {last.config}")
    parts = [each.weights() for each in checkpoints]
    arrays = {
        f"model.{name}": sum(
            share * part[name].astype(np.float64) for share, part in zip(shares, parts, strict=True)
        ).astype(value.dtype)  # type: ignore[union-attr]
        for name, value in parts[-1].items()
    }
    made_of = [
        {"source_hash": each.hash, "share": share}
        for each, share in zip(checkpoints, shares, strict=True)
    ]
    save_checkpoint(output, arrays, {**last.metadata, "averaged": made_of})


if __name__ == "__main__":
    main()
