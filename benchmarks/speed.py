"""How long do predictions and training steps take in each framework?

    python benchmarks/speed.py latency|throughput|train_step [--threads 1 2] [--rounds 20]

``latency`` predicts one face, ``throughput`` a batch, ``train_step`` trains on one. Networks are
untrained: times do not depend on the weights. Every case has a process of its own, which loads
nothing but what it needs; calls alternate A B C A B C ..., so that a change of the machine's speed
affects all cases alike.
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, Times, milliseconds, timed, write_csv

from mlx_faceau.cli.benchmark import write_untrained
from mlx_faceau.core.architectures import CONFIGS, ModelConfig, initial_weights
from mlx_faceau.core.preprocess import scale_rgb

TASKS = {"latency": ("mlx", "torch", "onnx"), "throughput": ("mlx", "torch", "onnx")}
TASKS |= {"train_step": ("mlx", "torch")}
WARM_UP_CALLS = 3
MIN_SECONDS = 0.02  # shorter calls are repeated within one measurement
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS])
    parser.add_argument("--frameworks", nargs="+", choices=TASKS["latency"])
    parser.add_argument("--batch", type=int, help="default: 32, of latency 1")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, help="default: 20, of train_step 5")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    batch = args.batch or (1 if args.task == "latency" else 32)
    rounds = args.rounds or (5 if args.task == "train_step" else 20)
    rows: list[Row] = []
    for net, threads in itertools.product(CONFIGS, args.threads):
        case = {"net": net, "task": args.task, "batch": batch, "threads": threads}
        rows += measure(case, args.frameworks or TASKS[args.task], rounds)
    write_csv(args.output or RESULTS / f"{args.task}.csv", rows)


def measure(case: Row, frameworks: Sequence[str], rounds: int) -> Iterator[Row]:
    """One row for each of the frameworks that are compared."""
    # Libraries read these when they are loaded, which is in the new processes.
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(case["threads"]))
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        model = write_untrained(CONFIGS[case["net"]](), Path(folder) / "model")
        workers = [
            ProcessPoolExecutor(1, spawn, prepare, (name, case, model)) for name in frameworks
        ]
        turns = [[worker.submit(time_call).result() for worker in workers] for _ in range(rounds)]
    for name, worker, times in zip(frameworks, workers, zip(*turns, strict=True), strict=True):
        worker.shutdown()
        found = milliseconds(times)
        rate = round(1000 * case["batch"] / found["wall_ms_median"], 1)
        yield {"case": name, **case, "rounds": rounds, **found, "images_per_second": rate}


def prepare(framework: str, case: Row, model: Path) -> None:
    """In a case's process: build and warm up what :func:`time_call` measures."""
    global call, repeats
    images = np.random.default_rng(0).integers(0, 256, (case["batch"], 112, 112, 3), np.uint8)
    if case["task"] == "train_step":
        call = train_call(framework, CONFIGS[case["net"]](), images)
    else:
        call = predict_call(framework, case, model, images)
    for _ in range(WARM_UP_CALLS):
        call()
    repeats = max(1, round(MIN_SECONDS / timed(call)[1]))


def time_call() -> Times:
    cpu, wall = timed(lambda: [call() for _ in range(repeats)])
    return cpu / repeats, wall / repeats


def predict_call(
    framework: str, case: Row, model: Path, images: np.ndarray
) -> Callable[[], object]:
    from mlx_faceau.inference.backends import open_backend

    backend = open_backend(model, case["net"], framework, threads=case["threads"])
    pixels, size = scale_rgb(images), backend.max_batch
    parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return lambda: [backend.run(part) for part in parts]


def train_call(framework: str, config: ModelConfig, images: np.ndarray) -> Callable[[], object]:
    from mlx_faceau.core.trainer import TrainerSettings
    from mlx_faceau.train.run import trainer_class

    rng, batch = np.random.default_rng(1), {"images": images}
    for name, shape in config.output_shapes.items():  # their values do not change the work
        batch[name] = rng.uniform(1, 5, (len(images), *shape)).astype(np.float32)
    trainer = trainer_class(framework)(TrainerSettings(config, initial_weights(config, seed=0)))
    return lambda: float(trainer.step(batch, 1e-3)["loss"])  # waits for a GPU


if __name__ == "__main__":
    main()
