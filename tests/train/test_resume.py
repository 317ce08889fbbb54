"""What a training must have in common with the checkpoint that it goes on from."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py")

from random_nets import AU, write_checkpoint

from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig
from mlx_faceau.train.run import check_same_ranks, run_settings


def checkpoint(**metadata: Any) -> Checkpoint:
    return Checkpoint(Path("run/checkpoint_last.safetensors"), metadata, {})


def test_weights_alone_and_another_net_cannot_be_resumed(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoint_last.safetensors", AU)
    plain = load_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds weights but no training"):
        run_settings(AUTrainConfig, {}, plain)
    exported = replace(plain, metadata={**plain.metadata, "training": {"epochs": 40}})
    with pytest.raises(CheckpointError, match="holds weights but no training"):
        run_settings(AUTrainConfig, {"data": "faces.h5"}, exported)
    with pytest.raises(CheckpointError, match="train it with the other command"):
        run_settings(LandmarkPoseTrainConfig, {}, plain)


def test_a_training_from_before_mirroring_was_recorded_goes_on_mirroring(tmp_path: Path) -> None:
    plain = load_checkpoint(write_checkpoint(tmp_path / "checkpoint_last.safetensors", AU))
    settings = asdict(AUTrainConfig(data="faces.h5", horizontal_flip=0.25))
    recorded = replace(
        plain, metadata={**plain.metadata, "training": settings, "progress": {"epoch": 1}}
    )
    assert run_settings(AUTrainConfig, {}, recorded).horizontal_flip == 0.25
    del settings["horizontal_flip"], settings["relabel_flipped"]
    resumed = run_settings(AUTrainConfig, {"relabel_flipped": False}, recorded)
    assert (resumed.horizontal_flip, resumed.relabel_flipped) == (0.5, False)
    with pytest.raises(CheckpointError, match="--relabel-flipped"):
        run_settings(AUTrainConfig, {"relabel_flipped": True}, recorded)


@pytest.mark.parametrize(("before", "now"), [({}, 2), ({"ranks": 2}, 1), ({"ranks": 2}, 4)])
def test_another_number_of_ranks_is_refused_with_the_right_one(
    before: dict[str, int], now: int
) -> None:
    wanted = before.get("ranks", 1)
    with pytest.raises(CheckpointError, match=f"launch {wanted}, or start a new run"):
        check_same_ranks(checkpoint(**before), now)
    check_same_ranks(checkpoint(**before), wanted)
