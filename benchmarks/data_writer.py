"""How fast are samples written, and does a kill lose any?  python benchmarks/data_writer.py

Samples a second through TrainingDataWriter, from the first to the closed file, with and without HOG
features; and a writer that is killed at random moments, again and again on one file.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from compare import RESULTS, write_csv

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))


KILLS_A_FILE = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="samples a second written; kills survived")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = [
            throughput(Path(folder), hog, one_by_one, args)
            for hog in (False, True)
            for one_by_one in (True, False)
        ]
        write_csv(args.output / "data_writer.csv", rows)
        for row in rows:
            print(row)
        if args.kills:
            survive(Path(folder), args)


def throughput(folder: Path, hog: bool, one_by_one: bool, args: argparse.Namespace) -> dict:
    load = os.getloadavg()[0]
    times = [write(folder / "out.h5", hog, one_by_one, args.samples) for _ in range(args.rounds)]
    adding, whole = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "hog": hog,
        "added": "one by one" if one_by_one else "in batches of 256",
        "samples": args.samples,
        "rounds": args.rounds,
        "samples_per_second": round(args.samples / whole),
        "samples_per_second_before_closing": round(args.samples / adding),
        "load_at_start": round(load, 2),
    }


def write(path: Path, hog: bool, one_by_one: bool, count: int) -> tuple[float, float]:
    """Seconds until all samples were added, and until the file was closed."""
    from mlx_faceau.data.format.writer import TrainingDataWriter

    batch = samples(256, hog)
    start = time.perf_counter()
    with TrainingDataWriter(path) as writer:
        for first in range(0, count, 256):
            part = {name: values[: count - first] for name, values in batch.items()}
            if one_by_one:
                for row in range(len(part["images"])):
                    writer.add_sample(
                        **{SINGULAR.get(name, name): values[row] for name, values in part.items()}
                    )
            else:
                writer.add_batch(**part)
        added = time.perf_counter() - start
    whole = time.perf_counter() - start
    path.unlink()
    return added, whole


SINGULAR = {
    **{"images": "image", "bboxes": "bbox", "warp_matrices": "warp_matrix"},
    **{"video_names": "video_name", "frame_indices": "frame_index", "subjects": "subject"},
}


def samples(count: int, hog: bool) -> dict:
    """Random pixels: nothing on the way can make them smaller."""
    rng = np.random.default_rng(0)
    params = rng.uniform(0.1, 0.4, (count, 6))
    batch = {
        "images": rng.integers(0, 256, (count, 112, 112, 3), np.uint8),
        "landmarks": rng.uniform(10, 100, (count, 68, 2)),
        "global_params": params,
        "local_params": rng.standard_normal((count, 34)),
        "au_intensities": rng.uniform(0, 5, (count, 17)),
        "bboxes": rng.uniform(0, 100, (count, 4)),
        "warp_matrices": rng.standard_normal((count, 2, 3)),
        "video_names": [f"video {i // 50}" for i in range(count)],
        "frame_indices": list(range(count)),
        "subjects": [f"person {i // 50}" for i in range(count)],
    }
    return {**batch, "hog_features": rng.random((count, 4464))} if hog else batch


def survive(folder: Path, args: argparse.Namespace) -> None:
    """Ten kills a file, each going on with what the one before left."""
    from killing import run_kills

    kills = []
    for first in range(0, args.kills, KILLS_A_FILE):
        count = min(KILLS_A_FILE, args.kills - first)
        found = run_kills(folder / f"killed{first}.h5", count, seed=first, longest=1.0)
        kills += [{"file": first // KILLS_A_FILE, **kill} for kill in found]
    write_csv(args.output / "data_writer_kills.csv", kills)
    totals = {name: sum(kill[name] for kill in kills) for name in ("lost", "wrong")}
    print(f"{len(kills)} kills: {totals}")


if __name__ == "__main__":
    main()
