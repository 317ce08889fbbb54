"""Kills a process that writes samples, at random moments, and looks at what is left.

The child writes samples with flushes, closes, and opens the same file again, for ever; after every
flush it says how many samples it has brought to the disk. Each sample's pixels and labels follow
from its number, so that the survivors can be checked one by one.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

_STEP = 23  # samples between flushes: no multiple of a chunk
_FLUSHES = 15  # before the file is closed and continued


def sample(number: int) -> dict[str, Any]:
    """The arguments of one sample, all of them a function of its number."""
    rng = np.random.default_rng(number)
    return {
        "image": rng.integers(0, 256, (112, 112, 3), np.uint8),
        "landmarks": rng.uniform(10, 100, (68, 2)).astype("f4"),
        "global_params": np.r_[1, rng.uniform(-0.4, 0.4, 3), 55, 56].astype("f4"),
        "local_params": rng.standard_normal(34).astype("f4"),
        "au_intensities": rng.uniform(0, 5, 17).astype("f4"),
        "bbox": [0, 0, 112, 112],
        "video_name": f"video {number // 100}",
        "frame_index": number,
    }


def write_for_ever(path: Path) -> None:
    from mlx_faceau.data.format.writer import TrainingDataWriter

    while True:
        with TrainingDataWriter(path) as writer:
            for _ in range(_FLUSHES):
                for _ in range(_STEP):
                    writer.add_sample(**sample(len(writer)))
                writer.flush()
                print(len(writer), flush=True)


def run_kills(path: Path, count: int, seed: int, longest: float) -> list[dict[str, Any]]:
    """Kill a writer so many times, each time going on with the file that was left.

    Args:
        longest: seconds from the first flush to the kill, at most.

    Returns:
        For each kill: seconds, ``flushed`` samples the child was sure of, ``kept`` samples found,
        how many of the flushed are ``lost``, and how many of those kept are ``wrong``.
    """
    moments = random.Random(seed)
    return [_one_kill(path, moments.uniform(0, longest)) for _ in range(count)]


def _one_kill(path: Path, seconds: float) -> dict[str, Any]:
    child = subprocess.Popen(
        [sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    flushed = [int(child.stdout.readline())]
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
    output, _ = child.communicate()
    flushed += [int(line) for line in output.split("\n")[:-1]]
    kept, wrong = _survivors(path)
    return {
        "seconds": round(seconds, 3),
        "flushed": flushed[-1],
        "kept": kept,
        "lost": max(0, flushed[-1] - kept),
        "wrong": wrong,
    }


def _survivors(path: Path) -> tuple[int, int]:
    """Samples of the file that a new writer makes of what is left, and how many are not theirs."""
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.format.writer import TrainingDataWriter

    TrainingDataWriter(path).close()
    faces = FaceDataset(path)
    images = faces.read_images(range(len(faces)))
    wrong = 0
    for number in range(len(faces)):
        truth = sample(number)
        same = (images[number] == truth["image"]).all() and all(
            (values[number] == truth[name]).all() for name, values in faces.labels.items()
        )
        wrong += not same or faces.videos[number] != truth["video_name"]
    faces.close()
    return len(faces), wrong


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]))
