"""What a training must have in common with the checkpoint that it goes on from."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("h5py")

from random_nets import AU, write_checkpoint

from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.config import AUTraining, LandmarkPoseTraining, settings_of
from mlx_faceau.train.resume import announce, check_same_ranks, run_settings


def checkpoint(**metadata: Any) -> Checkpoint:
    return Checkpoint(Path("run/checkpoint_last.safetensors"), metadata, {})


def test_weights_alone_and_another_net_cannot_be_resumed(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoint_last.safetensors", AU)
    plain = load_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds weights but no training"):
        run_settings(AUTraining, {}, plain)
    exported = replace(plain, metadata={**plain.metadata, "training": {"epochs": 40}})
    with pytest.raises(CheckpointError, match="holds weights but no training"):
        run_settings(AUTraining, {"data": "faces.h5"}, exported)
    with pytest.raises(CheckpointError, match="train it with the other command"):
        run_settings(LandmarkPoseTraining, {}, plain)


def test_a_training_from_before_mirroring_was_recorded_goes_on_mirroring(tmp_path: Path) -> None:
    plain = load_checkpoint(write_checkpoint(tmp_path / "checkpoint_last.safetensors", AU))
    settings = settings_of(AUTraining(data="faces.h5", mirror=0.25))
    recorded = replace(
        plain, metadata={**plain.metadata, "training": settings, "progress": {"epoch": 1}}
    )
    assert run_settings(AUTraining, {}, recorded).mirror == 0.25
    del settings["mirror"], settings["relabel_mirrored"]
    resumed = run_settings(AUTraining, {"relabel_mirrored": False}, recorded)
    assert (resumed.mirror, resumed.relabel_mirrored) == (0.5, False)
    with pytest.raises(CheckpointError, match="--relabel-mirrored"):
        run_settings(AUTraining, {"relabel_mirrored": True}, recorded)


@pytest.mark.parametrize(("before", "now"), [({}, 2), ({"ranks": 2}, 1), ({"ranks": 2}, 4)])
def test_another_number_of_ranks_is_refused_with_the_right_one(
    before: dict[str, int], now: int
) -> None:
    wanted = before.get("ranks", 1)
    with pytest.raises(CheckpointError, match=f"launch {wanted}, or start a new run"):
        check_same_ranks(checkpoint(**before), SimpleNamespace(size=now))  # type: ignore[arg-type]
    check_same_ranks(checkpoint(**before), SimpleNamespace(size=wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize(("framework", "said"), [("torch", 0), ("mlx", 1)])
def test_another_framework_is_told(
    framework: str, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = AUTraining(data="x", framework="torch")
    caplog.set_level(logging.WARNING)
    announce(checkpoint(training={"framework": framework}), config, None)
    assert [r.message.startswith(f"resuming a {framework} training") for r in caplog.records] == [
        True
    ] * said
