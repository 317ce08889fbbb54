"""The mean of checkpoints' weights, against NumPy's."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from random_nets import AU, LANDMARK, random_weights

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from average_checkpoints import average

from mlx_faceau.core.checkpoint import describe, load_checkpoint, save_checkpoint
from mlx_faceau.errors import CheckpointError, UsageError


def saved(path: Path, config, factor: float) -> Path:
    weights = {name: factor * value for name, value in random_weights(config).items()}
    arrays = {f"model.{name}": value for name, value in weights.items()}
    save_checkpoint(path, arrays, describe(config))
    return path


def test_weights_are_averaged_by_their_shares(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{factor}.safetensors", AU, factor) for factor in (1.0, 2.0, 4.0)]
    average(paths, [0.5, 0.25, 0.25], tmp_path / "mean.safetensors")
    mean = load_checkpoint(tmp_path / "mean.safetensors")
    for name, value in random_weights(AU).items():
        np.testing.assert_allclose(mean.weights()[name], 2.0 * value, rtol=1e-6)
    assert [part["share"] for part in mean.metadata["averaged"]] == [0.5, 0.25, 0.25]
    assert mean.metadata["averaged"][0]["source_hash"] == load_checkpoint(paths[0]).hash


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = (saved(tmp_path / f"{c.kind}.safetensors", c, 1.0) for c in (AU, LANDMARK))
    with pytest.raises(CheckpointError, match="landmark"):
        average([one, other], [0.5, 0.5], tmp_path / "mean.safetensors")
    with pytest.raises(UsageError, match="sum is 1"):
        average([one, one], [0.5, 0.6], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()
