"""What latency.py, throughput.py and train_step.py time, and how.

Every case (a library) runs in a process of its own, which loads nothing but
what it needs, with its number of threads set before anything is imported. Calls alternate A B C A
B C ..., so that a change of the machine's speed affects all cases alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, load, timed, write_csv

from mlx_faceau.core.architectures import CONFIGS, ModelConfig, initial_weights
from mlx_faceau.core.checkpoint import describe, save_checkpoint
from mlx_faceau.core.preprocess import scale_rgb

Call = Callable[[], object]
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 1e-4, 1.0
WARM_UP_CALLS = 3
MIN_SECONDS = 0.02  # shorter calls are repeated within one measurement
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Set on some machines for old libraries; they would slow the BLAS that is measured.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def main(name: str, task: str, batches: list[int], rounds: int) -> None:
    """The command line of latency.py, throughput.py and train_step.py."""
    parser = argparse.ArgumentParser(description=f"{name}: median times of {task} by library")
    parser.add_argument("--nets", nargs="+", default=[*CONFIGS], choices=[*CONFIGS])
    parser.add_argument("--cases", nargs="+", default=[*CASES[task]], choices=[*CASES[task]])
    parser.add_argument("--batch", nargs="+", type=int, default=batches)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--width-mult", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.csv")
    args = parser.parse_args()
    rows: list[Row] = []
    for net in args.nets:
        for batch in args.batch:
            for threads in args.threads:
                shared = {"net": net, "task": task, "batch": batch, "threads": threads}
                shared["width_mult"] = args.width_mult
                rows += in_turns([{"case": case, **shared} for case in args.cases], args.rounds)
    write_csv(args.output, rows)


def in_turns(cases: list[dict], rounds: int) -> list[Row]:
    """Times of cases that belong together, one row each."""
    workers = [start(case) for case in cases]
    times: list[list[dict]] = [[] for _ in cases]
    load_at_start = load()
    try:
        for worker in workers:
            read(worker)  # it is ready
        for _ in range(rounds):
            for worker, found in zip(workers, times, strict=True):
                worker.stdin.write("go\n")
                worker.stdin.flush()
                found.append(read(worker))
    finally:
        for worker in workers:
            worker.stdin.close()
            worker.wait()
    return [
        {**case, "rounds": rounds, **summary(case, found), "load_at_start": load_at_start}
        for case, found in zip(cases, times, strict=True)
    ]


def start(case: dict) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k not in UNSET}
    environment |= dict.fromkeys(THREADS, str(case["threads"]))
    command = [sys.executable, __file__, json.dumps(case)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=environment)


def read(worker: subprocess.Popen) -> dict:
    for line in worker.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"{worker.args[-1]}: the process ended; its message stands above")


def summary(case: dict, found: list[dict]) -> Row:
    cpu, wall = ([one[clock] for one in found] for clock in ("cpu", "wall"))
    return {
        "cpu_ms_median": round(1000 * statistics.median(cpu), 3),
        "wall_ms_median": round(1000 * statistics.median(wall), 3),
        "wall_ms_p95": round(1000 * float(np.percentile(wall, 95)), 3),
        "images_per_second": round(case["batch"] / statistics.median(wall), 1),
    }


def work(case: dict) -> None:
    """A case's process: a line of times for every line that comes in."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case["batch"], 112, 112, 3), dtype=np.uint8)
    call = CASES[case["task"]][case["case"]](case, images)
    for _ in range(WARM_UP_CALLS):
        call()
    repeats = max(1, round(MIN_SECONDS / timed(call)[1]))
    print(json.dumps({"repeats": repeats}), flush=True)
    for _ in sys.stdin:
        cpu, wall = timed(lambda: [call() for _ in range(repeats)])
        print(json.dumps({"cpu": cpu / repeats, "wall": wall / repeats}), flush=True)


# The calls. Libraries are imported inside: a process loads only what its case needs.


def config_of(case: dict) -> ModelConfig:
    return CONFIGS[case["net"]](width_mult=case["width_mult"])


def checkpoint_of(case: dict, folder: str) -> Path:
    """A checkpoint with untrained weights: speed does not depend on their values."""
    config, path = config_of(case), Path(folder) / "checkpoint_best.safetensors"
    arrays = {f"model.{k}": v for k, v in initial_weights(config, seed=0).items()}
    save_checkpoint(path, arrays, describe(config))
    return path


def infer_mlx(case: dict, images: np.ndarray) -> Call:
    from mlx_faceau.inference.backends import open_backend

    pixels = scale_rgb(images)
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend(checkpoint_of(case, folder), case["net"], "mlx")
    size = backend.max_batch
    parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return lambda: [backend.run(part) for part in parts]


def infer_onnx(case: dict, images: np.ndarray) -> Call:
    import onnxruntime

    from mlx_faceau.convert.export_onnx import export_to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]  # the environment means nothing to it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export_to_onnx(checkpoint_of(case, folder), path)
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(scale_rgb(images).transpose(0, 3, 1, 2))
    return lambda: session.run(None, {"image": pixels})


def torch_net(case: dict, images: np.ndarray):
    """torch, a net, and a function that gives the images as its input."""
    import torch

    from mlx_faceau.torch_fallback import build

    torch.set_num_threads(case["threads"])
    channels_last = case["case"].endswith("channels_last")
    form = torch.channels_last if channels_last else torch.contiguous_format

    def pixels():
        planes = np.ascontiguousarray(scale_rgb(images).transpose(0, 3, 1, 2))
        return torch.from_numpy(planes).contiguous(memory_format=form)

    return torch, build(config_of(case)).to(memory_format=form), pixels


def infer_torch(case: dict, images: np.ndarray) -> Call:
    torch, net, pixels = torch_net(case, images)
    net, scaled = net.eval(), pixels()

    def call() -> list[np.ndarray]:
        with torch.inference_mode():
            return [value.numpy() for value in net(scaled).values()]

    return call


def targets_of(config: ModelConfig, count: int) -> dict[str, np.ndarray]:
    """Plausible targets; their values do not change the work."""
    rng = np.random.default_rng(1)
    if config.kind == "au_prediction":
        return {"au_intensities": rng.uniform(0, 5, (count, 17)).astype(np.float32)}
    pose = rng.uniform([1, -0.3, -0.3, -0.3, 50, 50], [3, 0.3, 0.3, 0.3, 60, 60], (count, 6))
    return {
        "landmarks": rng.uniform(10, 100, (count, 68, 2)).astype(np.float32),
        "global_params": pose.astype(np.float32),
        "local_params": rng.normal(0, 1, (count, 34)).astype(np.float32),
    }


def train_mlx(case: dict, images: np.ndarray) -> Call:
    from mlx_faceau.train.mlx_trainer import MLXTrainer

    config = config_of(case)
    trainer = MLXTrainer(
        config,
        initial_weights(config, seed=0),
        loss_options={},
        scaling={},
        weight_decay=WEIGHT_DECAY,
        seed=0,
    )
    batch = {"images": images, **targets_of(config, len(images))}
    return lambda: trainer.step(batch, LEARNING_RATE)


def train_torch(case: dict, images: np.ndarray) -> Call:
    torch, net, pixels = torch_net(case, images)
    from mlx_faceau.torch_fallback import AUPredictionLoss, LandmarkPoseLoss

    config = config_of(case)
    kinds = {"landmark_pose": LandmarkPoseLoss, "au_prediction": AUPredictionLoss}
    loss = kinds[config.kind]()
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    targets = {k: torch.from_numpy(v) for k, v in targets_of(config, len(images)).items()}

    def call() -> float:
        optimizer.zero_grad()
        value = loss(net(pixels()), targets)["loss"]
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        return value.item()

    return call


CASES: dict[str, dict[str, Callable[[dict, np.ndarray], Call]]] = {
    "inference": {
        "ours": infer_mlx,
        "torch eager": infer_torch,
        "torch channels_last": infer_torch,
        "onnxruntime": infer_onnx,
    },
    "train_step": {
        "ours": train_mlx,
        "torch eager": train_torch,
        "torch channels_last": train_torch,
    },
}

if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
