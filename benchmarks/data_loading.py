"""Does training ever wait for its faces?  python benchmarks/data_loading.py

Three questions, each case in a process of its own, on a synthetic, uncompressed training file that
lies in the system's cache after the first round:

    data_loading.csv   how many faces a second the loader delivers in whole epochs, without, with
                       light and with strong augmentation, beside a plain random reader of h5py
    data_mixing.csv    how well an epoch is mixed: neighbours in the file that meet in a batch
    data_waiting.csv   the share of real training steps spent waiting for a batch, and peak memory
"""

import argparse
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from compare import RESULTS, write_csv

RANDOM_READER = "h5py, one random image at a time"
CASES = (RANDOM_READER, "none", "light", "strong")
DISTINCT_FACES = 256
WARM_UP = 2  # steps: the first one waits for the mixing buffer to fill


def main() -> None:
    parser = argparse.ArgumentParser(description="faces a second, mixing, and waiting for faces")
    parser.add_argument("--data", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--samples", type=int, default=16384, help="of the synthetic file")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256], help="loader's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, default=0, help="that augment instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-batch", nargs="*", type=int, default=[8, 32, 64])
    parser.add_argument("--steps", type=int, default=10, help="of each training")
    parser.add_argument("--device", default="auto", help="of the trainings")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder) / "faces.h5"
        if args.data is None:
            in_process(write_faces, data, args.samples)
        rows = [row for batch in args.batch for row in compare(data, batch, args)]
        tell(args.output / "data_loading.csv", rows)
        tell(args.output / "data_mixing.csv", [in_process(mixing, data, b) for b in args.batch])
        if args.train_batch:
            tell(args.output / "data_waiting.csv", [*trainings(data, args)])


def tell(path: Path, rows: list[dict]) -> None:
    """Write a table and print it."""
    write_csv(path, rows)
    print(f"\n{path}")
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>{len(name)}}" for name, value in row.items()), flush=True)


def compare(data: Path, batch: int, args: argparse.Namespace) -> list[dict]:
    """The cases' rows for one batch size; the cases alternate."""
    load = os.getloadavg()[0]
    results: dict[str, list[dict]] = {case: [] for case in CASES}
    for _ in range(args.rounds):
        for case, found in results.items():
            found.append(in_process(measure, case, data, batch, args.workers, args.processes))
    settings = {"batch": batch, "workers": args.workers, "processes": args.processes}
    settings["rounds"] = args.rounds
    return [
        {"case": case, **settings, **summary(found), "load_at_start": round(load, 2)}
        for case, found in results.items()
    ]


def summary(found: list[dict]) -> dict:
    def median(name: str) -> float:
        return statistics.median(result[name] for result in found)

    return {
        "images": found[0]["images"],
        "images_per_second": round(found[0]["images"] / median("wall"), 1),
        "images_per_cpu_second": round(found[0]["images"] / median("cpu"), 1),
        "cores_used": round(median("cpu") / median("wall"), 2),
        "peak_rss_mb": round(max(result["peak"] for result in found) / 1e6, 1),
    }


def trainings(data: Path, args: argparse.Namespace) -> Iterator[dict]:
    """Rows of real training steps with strong augmentation, in every framework that is here."""
    frameworks = [name for name in ("mlx", "torch") if importlib.util.find_spec(name)]
    for net, framework, batch in product(("landmark", "au"), frameworks, args.train_batch):
        settings = {"batch_size": batch, "framework": framework, "device": args.device}
        settings |= {"num_workers": args.workers, "num_processes": args.processes}
        load = os.getloadavg()[0]
        yield {
            **in_process(train, net, data, settings, args.steps),
            "load_at_start": round(load, 2),
        }


def in_process(function, *arguments):
    """The function's result from a fresh process: its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_faces(path: Path, count: int) -> None:
    """A training file of synthetic faces, each of them many times."""
    from mlx_faceau.data.format.writer import TrainingDataWriter
    from mlx_faceau.data.synthetic.people import synthesize

    faces = synthesize(DISTINCT_FACES, seed=0)
    person = [str(number) for number in faces.pop("person")]
    with TrainingDataWriter(path) as writer:
        for start in range(0, count, DISTINCT_FACES):
            frames = list(range(start, start + DISTINCT_FACES))
            writer.add_batch(**faces, video_names=person, subjects=person, frame_indices=frames)


def measure(case: str, data: Path, batch: int, workers: int, processes: int) -> dict:
    """One epoch of a case: images delivered, wall and CPU seconds, peak memory in bytes."""
    loader = (batch, workers, processes)
    batches = random_batches(data, batch) if case == RANDOM_READER else ours(case, data, *loader)
    images, cpu, wall = 0, time.process_time(), time.perf_counter()
    for pixels in batches:
        images += len(pixels)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"images": images, "wall": wall, "cpu": cpu, "peak": peak_memory()}


def peak_memory() -> int:
    """Bytes of this process at most."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ours(level: str, data: Path, batch: int, workers: int, processes: int) -> Iterator:
    import numpy as np

    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.augment import augmentation
    from mlx_faceau.data.loading.batches import Batches

    faces = FaceDataset(data)
    options = {"augment": augmentation(level), "workers": workers, "processes": processes}
    loader = Batches(faces, np.arange(len(faces)), batch, **options)
    if processes:
        next(loader.epoch(1))  # they start once in a training
    return (one["images"] for one in loader.epoch(0))


def random_batches(data: Path, batch: int) -> Iterator:
    import h5py
    import numpy as np

    images = h5py.File(data, "r")["images"]
    order = np.random.default_rng(0).permutation(len(images))
    for start in range(0, len(order) - batch + 1, batch):
        yield np.stack([images[index] for index in order[start : start + batch]])


def mixing(data: Path, batch: int) -> dict:
    """How often two faces of a batch come from the same block of the file, in one epoch.

    The ideal is a full shuffle's; read in the file's order nearly all pairs would be.
    """
    import numpy as np

    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.batches import MIXING_WINDOW, Batches

    faces = FaceDataset(data)
    order = Batches(faces, np.arange(len(faces)), batch).order(0)
    blocks = faces.blocks[order[: len(order) // batch * batch]].reshape(-1, batch)
    pairs = batch * (batch - 1) / 2
    met = [(n * (n - 1) / 2).sum() for n in (np.unique(b, return_counts=True)[1] for b in blocks)]
    sizes = np.unique(faces.blocks, return_counts=True)[1]
    ideal = (sizes * (sizes - 1)).sum() / (len(faces) * (len(faces) - 1))
    return {
        "faces": len(faces),
        "window": MIXING_WINDOW,
        "batch": batch,
        "pairs_of_one_block_percent": round(100 * float(np.mean(met)) / pairs, 4),
        "ideal_percent": round(100 * float(ideal), 4),
        "correlation_with_file_order": round(float(np.corrcoef(np.sort(order), order)[0, 1]), 4),
    }


def train(net: str, data: Path, settings: dict, steps: int) -> dict:
    """Real training steps of a full-size net: their speed, their waiting, their memory."""
    from mlx_faceau.train.config import AUTraining, LandmarkPoseTraining
    from mlx_faceau.train.datasets import open_faces
    from mlx_faceau.train.initial_weights import first_weights
    from mlx_faceau.train.run import build_trainer

    training = LandmarkPoseTraining if net == "landmark" else AUTraining
    config = training(data=(str(data),), augment="strong", **settings)
    faces = open_faces(config)
    weights = first_weights(config, faces.statistics).weights
    trainer = build_trainer(config, faces, weights)
    batches, waits = faces.batches.epoch(0), []

    def feed(count: int) -> Iterator[dict]:
        for _ in range(count):
            asked = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - asked)
            yield batch

    trainer.train_epoch(feed(WARM_UP), lambda step: 1e-4)
    started = time.perf_counter()
    trainer.train_epoch(feed(steps), lambda step: 1e-4)
    seconds = time.perf_counter() - started
    return {
        "net": net,
        "framework": config.framework,
        "device": trainer.describe()["device"],
        "batch": config.batch_size,
        "workers": config.num_workers,
        "processes": config.num_processes,
        "steps": steps,
        "images_per_second": round(steps * config.batch_size / seconds, 1),
        "waiting_percent": round(100 * sum(waits[WARM_UP:]) / seconds, 3),
        "first_batch_seconds": round(waits[0], 2),
        "peak_rss_mb": round(peak_memory() / 1e6),
        "peak_gpu_mb": round(trainer.device_memory() / 1e6),
    }


if __name__ == "__main__":
    main()
