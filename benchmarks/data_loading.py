"""Does training ever wait for its faces?  python benchmarks/data_loading.py

On a synthetic, uncompressed training file that lies in the system's cache after the first round,
each case in a process of its own:

    data_loading.csv   faces a second that the loader delivers in whole epochs, without, with light
                       and with strong augmentation, beside a plain random reader of h5py
    data_waiting.csv   share of real training steps that is spent waiting for a batch; peak memory
"""

import argparse
import importlib.util
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from timing import RESULTS, Row, load, timed, write_csv

RANDOM_READER = "h5py, one random image at a time"
CASES = (RANDOM_READER, "none", "light", "strong")
DISTINCT_FACES = 256
WARM_UP = 2  # steps: the first one waits until the shuffle buffer is full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--samples", type=int, default=16384, help="of the synthetic file")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256], help="the loader's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-batch", nargs="*", type=int, default=[8, 32, 64])
    parser.add_argument("--steps", type=int, default=10, help="of each training")
    parser.add_argument("--device", default="auto", help="of the trainings")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder) / "faces.h5"
        if args.data is None:
            in_process(write_faces, data, args.samples)
        rows = [row for batch in args.batch for row in compare(data, batch, args)]
        write_csv(args.output / "data_loading.csv", rows)
        if args.train_batch:
            write_csv(args.output / "data_waiting.csv", [*trainings(data, args)])


def in_process(function, *arguments):
    """The function's result from a new process: its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def compare(data: Path, batch: int, args: argparse.Namespace) -> Iterator[Row]:
    """The cases' rows for one batch size; the cases alternate."""
    load_at_start = load()
    results: dict[str, list[dict]] = {case: [] for case in CASES}
    for _ in range(args.rounds):
        for case, found in results.items():
            found.append(in_process(epoch, case, data, batch, args.workers))
    for case, found in results.items():
        images = found[0]["images"]
        wall, cpu = (statistics.median(one[clock] for one in found) for clock in ("wall", "cpu"))
        yield {
            "case": case,
            "batch": batch,
            "workers": args.workers,
            "rounds": args.rounds,
            "images": images,
            "images_per_second": round(images / wall, 1),
            "images_per_cpu_second": round(images / cpu, 1),
            "cores_used": round(cpu / wall, 2),
            "peak_rss_mb": round(max(one["peak"] for one in found) / 1e6, 1),
            "load_at_start": load_at_start,
        }


def epoch(case: str, data: Path, batch: int, workers: int) -> dict:
    """One epoch of a case: images delivered, wall and CPU seconds, peak memory in bytes."""
    reader = (
        random_images(data, batch) if case == RANDOM_READER else ours(case, data, batch, workers)
    )
    images = 0

    def read() -> None:
        nonlocal images
        images = sum(len(pixels) for pixels in reader)

    cpu, wall = timed(read)
    return {"images": images, "wall": wall, "cpu": cpu, "peak": peak_memory()}


def ours(level: str, data: Path, batch: int, workers: int) -> Iterator:
    import numpy as np

    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.augment import augmentation
    from mlx_faceau.data.loading.batches import Batches

    faces = FaceDataset(data)
    options = {"augment": augmentation(level), "workers": workers}
    loader = Batches(faces, np.arange(len(faces)), batch, **options)
    return (one["images"] for one in loader.epoch(0))


def random_images(data: Path, batch: int) -> Iterator:
    import h5py
    import numpy as np

    images = h5py.File(data, "r")["images"]
    order = np.random.default_rng(0).permutation(len(images))
    for start in range(0, len(order) - batch + 1, batch):
        yield np.stack([images[index] for index in order[start : start + batch]])


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


def trainings(data: Path, args: argparse.Namespace) -> Iterator[Row]:
    """Rows of real training steps with strong augmentation, in every framework that is here."""
    frameworks = [name for name in ("mlx", "torch") if importlib.util.find_spec(name)]
    for net, framework, batch in product(("landmark", "au"), frameworks, args.train_batch):
        settings = {"batch_size": batch, "framework": framework, "device": args.device}
        settings["num_workers"] = args.workers
        load_at_start = load()
        row = in_process(train, net, data, settings, args.steps)
        yield {**row, "load_at_start": load_at_start}


def train(net: str, data: Path, settings: dict, steps: int) -> Row:
    """Real training steps of a full-size net: their speed, their waiting, their memory."""
    from mlx_faceau.train.config import AUTraining, LandmarkPoseTraining
    from mlx_faceau.train.datasets import open_faces
    from mlx_faceau.train.initial_weights import first_weights
    from mlx_faceau.train.run import build_trainer

    training = LandmarkPoseTraining if net == "landmark" else AUTraining
    config = training(data=(str(data),), augment="strong", **settings)
    faces = open_faces(config)
    trainer = build_trainer(config, faces, first_weights(config, faces.statistics).weights)
    batches, waits = faces.batches.epoch(0), []

    def feed(count: int) -> Iterator[dict]:
        for _ in range(count):
            asked = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - asked)
            yield batch

    trainer.train_epoch(feed(WARM_UP), lambda step: 1e-4)
    seconds = timed(lambda: trainer.train_epoch(feed(steps), lambda step: 1e-4))[1]
    return {
        "net": net,
        "framework": config.framework,
        "device": trainer.describe()["device"],
        "batch": config.batch_size,
        "workers": config.num_workers,
        "steps": steps,
        "images_per_second": round(steps * config.batch_size / seconds, 1),
        "waiting_percent": round(100 * sum(waits[WARM_UP:]) / seconds, 3),
        "first_batch_seconds": round(waits[0], 2),
        "peak_rss_mb": round(peak_memory() / 1e6),
        "peak_gpu_mb": round(trainer.device_memory() / 1e6),
    }


def peak_memory() -> int:
    """Bytes of this process at most."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
