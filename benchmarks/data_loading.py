"""How fast are training data read?  python benchmarks/data_loading.py

Faces a second that the loader delivers in whole epochs, without, with light and with strong
augmentation, beside a plain random reader of h5py. Each case runs in a process of its own, on a
synthetic, uncompressed training file that is in the system's cache after the first round. How long
a training waits for its faces is in its history (``waiting``).
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from timing import RESULTS, Row, load, timed, write_csv

RANDOM_READER = "h5py, one random image at a time"
CASES = (RANDOM_READER, "none", "light", "strong")
DISTINCT_FACES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--samples", type=int, default=16384, help="of the synthetic file")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256], help="the loader's")
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


def peak_memory() -> int:
    """Bytes of this process at most."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
