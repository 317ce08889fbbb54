"""How many faces a second does the loader deliver?  python benchmarks/data_loading.py

Whole epochs of an uncompressed training file, in batches: a plain random reader of h5py, and our
loader without, with light and with strong augmentation. Each case runs in a process of its own, the
cases alternate, and the file lies in the system's cache after the first round.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from compare import RESULTS, write_csv

RANDOM_READER = "h5py, one random image at a time"
CASES = (RANDOM_READER, "none", "light", "strong")
DISTINCT_FACES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="images a second of the data loader")
    parser.add_argument("--data", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--samples", type=int, default=16384, help="of the synthetic file")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "data_loading.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder) / "faces.h5"
        if args.data is None:
            in_process(write_faces, data, args.samples)
        rows = [row for batch in args.batch for row in compare(data, batch, args)]
    write_csv(args.output, rows)
    print_table(rows)
    print(f"\n{args.output}")


def compare(data: Path, batch: int, args: argparse.Namespace) -> list[dict]:
    """The cases' rows for one batch size."""
    load = os.getloadavg()[0]
    results: dict[str, list[dict]] = {case: [] for case in CASES}
    for _ in range(args.rounds):
        for case, found in results.items():
            found.append(in_process(measure, case, data, batch, args.workers))
    settings = {"batch": batch, "workers": args.workers, "rounds": args.rounds}
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


def in_process(function, *arguments):
    """The function's result from a fresh process: its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_faces(path: Path, count: int) -> None:
    """A training file of synthetic faces, each of them many times."""
    from mlx_faceau.data.synthetic import synthesize
    from mlx_faceau.data.writer import TrainingDataWriter

    faces = synthesize(DISTINCT_FACES, seed=0)
    person = [str(number) for number in faces.pop("person")]
    with TrainingDataWriter(path) as writer:
        for start in range(0, count, DISTINCT_FACES):
            frames = list(range(start, start + DISTINCT_FACES))
            writer.add_batch(**faces, video_names=person, subjects=person, frame_indices=frames)


def measure(case: str, data: Path, batch: int, workers: int) -> dict:
    """One epoch of a case: images delivered, wall and CPU seconds, peak memory in bytes."""
    batches = (
        random_batches(data, batch) if case == RANDOM_READER else ours(case, data, batch, workers)
    )
    images, cpu, wall = 0, time.process_time(), time.perf_counter()
    for pixels in batches:
        images += len(pixels)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"images": images, "wall": wall, "cpu": cpu, "peak": peak}


def ours(level: str, data: Path, batch: int, workers: int) -> Iterator:
    import numpy as np

    from mlx_faceau.data.augment import augmentation
    from mlx_faceau.data.batches import Batches
    from mlx_faceau.data.hdf5 import FaceDataset

    faces = FaceDataset(data)
    loader = Batches(
        faces, np.arange(len(faces)), batch, augment=augmentation(level), workers=workers
    )
    return (one["images"] for one in loader.epoch(0))


def random_batches(data: Path, batch: int) -> Iterator:
    import h5py
    import numpy as np

    images = h5py.File(data, "r")["images"]
    order = np.random.default_rng(0).permutation(len(images))
    for start in range(0, len(order) - batch + 1, batch):
        yield np.stack([images[index] for index in order[start : start + batch]])


def print_table(rows: list[dict]) -> None:
    columns = ("images/s", "a CPU s", "cores", "peak MB", "load")
    print(f"{'case':34}{'batch':>6}" + "".join(f"{name:>10}" for name in columns))
    for row in rows:
        names = ("images_per_second", "images_per_cpu_second", "cores_used", "peak_rss_mb")
        values = [row[name] for name in names] + [row["load_at_start"]]
        print(f"{row['case']:34}{row['batch']:6}" + "".join(f"{value:10}" for value in values))


if __name__ == "__main__":
    main()
