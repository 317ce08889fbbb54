"""How fast are training data read?  python benchmarks/data_loading.py

Faces a second that the loader delivers in whole epochs, without, with light and with strong
augmentation. Cases run in turns, each time in a new process, on a synthetic, uncompressed training
file that is in the system's cache after the first round. How long a training waits for its faces
is in its history (``waiting``).
"""

import argparse
import multiprocessing
import platform
import resource
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, Times, timed, write_csv

CASES = ("none", "light", "strong")  # augmentation
SAMPLES = 4096  # of the synthetic file
WORKERS = 2  # the loader's threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256], help="the loader's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "data_loading.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not (data := args.data):
            from mlx_faceau.data.synthetic.people import write_synthetic

            data = Path(folder) / "faces.h5"
            write_synthetic(data, SAMPLES, seed=0)
        rows = [row for batch in args.batch for row in compare(data, batch, args.rounds)]
    write_csv(args.output, rows)


def compare(data: Path, batch: int, rounds: int) -> Iterator[Row]:
    """The cases' rows for one batch size."""
    results: dict[str, list[tuple[int, Times, int]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, found in results.items():
            # A process's peak memory is its own.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found.append(pool.submit(epoch, case, data, batch).result())
    for case, found in results.items():
        images, times, peaks = zip(*found, strict=True)
        cpu, wall = np.median(times, axis=0)
        yield {
            "case": case,
            "batch": batch,
            "workers": WORKERS,
            "rounds": rounds,
            "images": images[0],
            "images_per_second": round(images[0] / wall, 1),
            "images_per_cpu_second": round(images[0] / cpu, 1),
            "cores_used": round(cpu / wall, 2),
            "peak_rss_mb": round(max(peaks) / 1e6, 1),
        }


def epoch(case: str, data: Path, batch: int) -> tuple[int, Times, int]:
    """One epoch of a case: images delivered, seconds, peak memory in bytes."""
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.augment import augmentation
    from mlx_faceau.data.loading.batches import Batches

    faces, sizes = FaceDataset(data), []
    options = {"augment": augmentation(case), "workers": WORKERS}
    loader = Batches(faces, np.arange(len(faces)), batch, **options)
    times = timed(lambda: sizes.extend(len(one["images"]) for one in loader.epoch(0)))
    unit = 1 if platform.system() == "Darwin" else 1024
    return sum(sizes), times, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
