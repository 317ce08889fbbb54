"""Two processes that train one net, started by ``mlx.launch`` and ``torchrun``."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from rank_worker import faces, trainer_of
from tiny_training import Alone, write_faces

from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.core.trainer import dropout_seed
from mlx_faceau.errors import CheckpointError
from mlx_faceau.train import distributed as ranks_module
from mlx_faceau.train.config import AUTrainConfig
from mlx_faceau.train.datasets import open_data
from mlx_faceau.train.distributed import Watchdog
from mlx_faceau.train.run import run_training

WORKER = Path(__file__).with_name("rank_worker.py")
TIMEOUT = 15  # seconds without a step after which a rank gives up
# How rank, torchrun and mlx.launch tell of a rank that is gone.
MESSAGES = ("another rank is dead or hangs", "Signal 9", "rank 1 exited with code -9")
SETTINGS = [
    *("--epochs", "2", "--batch-size", "2", "--width-mult", "0.1", "--val-split", "0.17"),
    *("--device", "cpu", "--num-workers", "1", "--no-export"),
]
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["torch", "mlx"])
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None or os.name == "nt":
        pytest.skip(f"{name} has no launcher here")
    return name


@pytest.fixture
def launch(framework: str, tmp_path: Path) -> Launch:
    """Runs the worker on two ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2"]
    if framework == "mlx":
        launcher = [str(Path(sys.executable).with_name("mlx.launch")), "-n", "2"]
        launcher += ["--backend", "ring", "--starting-port", str(free_port()), "--"]
        launcher += [sys.executable]

    def run(*arguments: str, folder: str = "run") -> subprocess.CompletedProcess[str]:
        command = [*launcher, str(WORKER), framework, str(tmp_path / folder), *arguments]
        (tmp_path / folder).mkdir(exist_ok=True)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_ranks_take_the_step_of_one_with_the_batches_of_both(
    framework: str, launch: Launch, tmp_path: Path
) -> None:
    done = launch("steps")
    assert done.returncode == 0, done.stderr
    first, second = (np.load(tmp_path / "run" / f"{rank}.npz") for rank in (0, 1))
    for name in first.files:  # weights, moments, average and statistics, after different faces
        if "rng." not in name:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)

    alone = trainer_of(framework)  # both ranks saw the same faces first, so BatchNorm did too
    whole = {name: np.concatenate([values, values]) for name, values in faces(0).items()}
    loss = float(alone.step(whole, 1e-3)["loss"])
    assert first["losses"][0] == pytest.approx(loss, rel=1e-6)
    for name, expected in alone.state().items():
        if name.startswith("optimizer.m.au_head.layers.2"):  # a tenth of the gradient
            scale = np.abs(expected).max()
            np.testing.assert_allclose(first[f"first.{name}"], expected, atol=1e-3 * scale)


@pytest.mark.slow
def test_two_ranks_leave_the_files_of_one_and_resumed_after_a_death_the_same_bits(
    launch: Launch, tmp_path: Path
) -> None:
    data = str(write_faces(tmp_path / "faces.h5"))
    settings = ("--data", data, *SETTINGS, "--ema", "0.9", "--save-every-minutes", "1e-9")
    done = launch("train", *settings, folder="whole")
    assert done.returncode == 0, done.stderr
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert_one_wrote(done, whole)
    assert_gave_up(launch("die", *settings, "--rank-timeout", str(TIMEOUT), folder="broken"))
    last = load_checkpoint(broken / "checkpoint_last.safetensors")
    # Rank 1 dies in the third step of five; the other one may be ended before it saved the second.
    assert last.metadata["progress"]["batch"] in (1, 2)
    resumed = launch("train", "--resume", str(broken), folder="broken")
    assert "finished after 2 epochs" in resumed.stdout, resumed.stderr
    final = "checkpoint_final.safetensors"
    expected, actual = (load_checkpoint(folder / final).arrays for folder in (whole, broken))
    assert expected.keys() == actual.keys()
    for name in expected.keys() - {"loop.history"}:  # it tells the time
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def assert_one_wrote(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """What two ranks left looks like one's, and one alone does not go on with it."""
    assert done.stdout.count("finished after 2 epochs") == 1
    assert done.stderr.count("epoch 2/2") == 1
    history = json.loads((folder / "training_history.json").read_text())
    assert [entry["epoch"] for entry in history["epochs"]] == [1, 2]
    assert load_checkpoint(folder).metadata["ranks"] == 2
    with pytest.raises(CheckpointError, match="trained by 2 ranks, not 1"):
        run_training(AUTrainConfig, {"epochs": 3}, resume=folder)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_with_a_clear_error(launch: Launch, tmp_path: Path) -> None:
    data = str(write_faces(tmp_path / "faces.h5"))
    started = time.monotonic()
    done = launch("hang", "--data", data, *SETTINGS, "--rank-timeout", str(TIMEOUT))
    assert time.monotonic() - started < 3 * TIMEOUT + 60  # starting two processes included
    assert_gave_up(done)


def assert_gave_up(done: subprocess.CompletedProcess[str]) -> None:
    text = done.stdout + done.stderr
    assert any(message in text for message in MESSAGES), text
    assert "finished" not in text


def test_the_parts_of_all_ranks_are_the_batch_of_one(tmp_path: Path) -> None:
    data = str(write_faces(tmp_path / "faces.h5"))
    config = AUTrainConfig(data=data, batch_size=2, val_split=0.17)
    shares = [open_data(config, (rank, 2)).batches for rank in (0, 1)]
    whole = open_data(AUTrainConfig(data=data, batch_size=4, val_split=0.17)).batches
    for *parts, batch in zip(*(b.epoch(1) for b in (*shares, whole)), strict=True):
        for name, expected in batch.items():
            together = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(together, expected)


def test_dropout_differs_between_ranks_and_steps() -> None:
    seeds = {dropout_seed(42, step, rank) for step in range(100) for rank in range(8)}
    assert len(seeds) == 800
    assert max(seeds) < 2**63


def test_the_watchdog_ends_a_rank_that_shows_no_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    together: Any = SimpleNamespace(rank=1, size=2)
    watchdog = Watchdog(together, seconds=0.05)

    def end(status: int) -> None:
        ended.append(status)
        watchdog.__exit__()

    monkeypatch.setattr(ranks_module.os, "_exit", end)
    with watchdog:
        deadline = time.monotonic() + 10
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended[0] == ranks_module.EXIT_STATUS
    assert "rank 1 of 2: no step for 0.05 s" in capsys.readouterr().err


def test_alone_nothing_is_watched() -> None:
    with Watchdog(Alone(), seconds=0.0):
        assert "mlx-faceau-watchdog" not in {t.name for t in threading.enumerate()}
