"""Trainings that die without warning (SIGKILL) at random moments and are resumed."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.core.checkpoint import load_checkpoint

LAST, FINAL = "checkpoint_last.safetensors", "checkpoint_final.safetensors"
SETTINGS = [
    *("--epochs", "3", "--batch-size", "4", "--width-mult", "0.1", "--val-split", "0.17"),
    *("--ema", "0.9", "--device", "cpu", "--num-workers", "1", "--no-export"),
    *("--save-every-minutes", "1e-9"),  # after every step
]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlx_faceau", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_some_time_after_a_save(process: subprocess.Popen[bytes], last: Path, delay: float) -> bool:
    """Whether the process was still training when it was killed."""
    before = last.stat().st_mtime_ns if last.exists() else 0
    while process.poll() is None:
        if last.exists() and last.stat().st_mtime_ns != before:
            time.sleep(delay)
            process.kill()
            break
        time.sleep(0.01)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("net", "framework"), [("landmark-pose", "torch"), ("au", "mlx")])
def test_killed_at_random_moments_a_training_ends_with_the_same_bits(
    net: str, framework: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    data = str(write_faces(tmp_path / "faces.h5"))
    new = [net, "--data", data, "--framework", framework, *SETTINGS]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(*new, "--output", str(whole)).wait() == 0

    rng = random.Random(7)
    process = start(*new, "--output", str(broken))
    assert kill_some_time_after_a_save(process, broken / LAST, rng.uniform(0, 0.3))
    process = start(net, "--resume", str(broken))
    kill_some_time_after_a_save(process, broken / LAST, rng.uniform(0, 0.3))
    assert start(net, "--resume", str(broken)).wait() == 0

    expected, actual = load_checkpoint(whole / FINAL).arrays, load_checkpoint(broken / FINAL).arrays
    assert expected.keys() == actual.keys()
    for name in expected.keys() - {"loop.history"}:  # it tells the time
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
