"""How fast do training files of each kind read?  python benchmarks/data_formats.py

The same faces as the original tool writes them (gzip, chunks of 1000), rewritten by 'data convert',
and compressed with lzf: whole shuffled epochs through the loader, beside a plain random reader of
h5py (over as many images as it manages in a few seconds), and two worker processes at once on one
file. Each case in a process of its own; the cases alternate.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from compare import RESULTS, write_csv
from data_loading import in_process, ours, peak_memory, random_batches

KINDS = ("original", "converted", "lzf")
PLAIN, LOADER, TWO = "plain h5py, random", "loader", "loader, 2 processes"
PATIENCE = 4.0  # seconds that the plain reader gets
DISTINCT_FACES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="images a second of each kind of training file")
    parser.add_argument("--faces", type=Path, help="training file (default: synthetic faces)")
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "data_formats.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.h5" for kind in KINDS}
        in_process(write_original, files["original"], args.faces, args.samples)
        took = {kind: in_process(convert, files["original"], files[kind]) for kind in KINDS[1:]}
        cases = [(kind, reader) for kind in KINDS for reader in (PLAIN, LOADER, TWO)]
        found: dict[tuple[str, str], list[tuple[float, float, int]]] = {case: [] for case in cases}
        for _ in range(args.rounds):
            for kind, reader in cases:
                found[kind, reader].append(measure(reader, files[kind], args.batch))
        rows = [
            {
                "file": kind,
                "reader": reader,
                "samples": args.samples,
                "batch": args.batch,
                "rounds": args.rounds,
                "images_per_second": round(statistics.median(rate for rate, _, _ in results)),
                "first_batch_seconds": round(statistics.median(t for _, t, _ in results), 3),
                "peak_rss_mb": round(max(peak for _, _, peak in results) / 1e6),
                "file_mb": round(files[kind].stat().st_size / 1e6, 1),
                "convert_seconds": round(took.get(kind, 0.0), 2),
            }
            for (kind, reader), results in found.items()
        ]
    write_csv(args.output, rows)
    for row in rows:
        print(*row.values(), sep="\t")


def measure(reader: str, data: Path, batch: int) -> tuple[float, float, int]:
    """Images a second, seconds to the first batch, peak memory in bytes."""
    if reader != TWO:
        return in_process(read_epoch, reader, data, batch)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        both = [pool.submit(read_epoch, LOADER, data, batch) for _ in range(2)]
        results = [future.result() for future in both]
    rates, firsts, peaks = zip(*results, strict=True)
    return sum(rates), max(firsts), sum(peaks)


def read_epoch(reader: str, data: Path, batch: int) -> tuple[float, float, int]:
    plain = reader == PLAIN
    started = time.perf_counter()
    batches = random_batches(data, batch) if plain else ours("none", data, batch, 2, 0)
    images, first = 0, 0.0
    for pixels in batches:
        images += len(pixels)
        elapsed = time.perf_counter() - started
        first = first or elapsed
        if plain and elapsed > PATIENCE:
            break
    return images / (time.perf_counter() - started), first, peak_memory()


def write_original(path: Path, source: Path | None, count: int) -> None:
    """Faces as the original tool stores them, landmarks in frame pixels."""
    import h5py
    import numpy as np

    from mlx_faceau.core import geometry
    from mlx_faceau.core.facs import AU_NAMES

    faces = read_faces(source, count) if source else draw_faces(count)
    back = geometry.similarity_matrix(3.0, 0.0, (200.0, 100.0))
    warp = geometry.invert(back)
    faces["landmarks"] = geometry.transform_points(back, faces["landmarks"])
    faces["global_params"] = geometry.transform_global_params(back, faces["global_params"])
    faces["warp_matrices"] = np.broadcast_to(warp, (count, 2, 3))
    with h5py.File(path, "w") as file:
        file.attrs.update(color_format="RGB", image_size=(112, 112), au_names=list(AU_NAMES))
        for name, values in faces.items():
            dtype = "u1" if name == "images" else "f4"
            chunks = (min(1000, count), *values.shape[1:])
            file.create_dataset(name, data=values, dtype=dtype, chunks=chunks, compression="gzip")
        people = [f"person {i // 4}" for i in range(count)]
        file.create_dataset("metadata/video_names", data=people, dtype=h5py.string_dtype())


def read_faces(source: Path, count: int) -> dict:
    from mlx_faceau.data.hdf5 import FaceDataset

    faces = FaceDataset(source)
    labels = {name: values[:count] for name, values in faces.labels.items()}
    return {"images": faces.read_images(range(count)), **labels}


def draw_faces(count: int) -> dict:
    """Each of a few synthetic faces many times."""
    import numpy as np

    from mlx_faceau.data.synthetic.people import synthesize

    faces = synthesize(min(DISTINCT_FACES, count), seed=0)
    rows = np.arange(count) % len(faces["images"])
    names = ("images", "landmarks", "global_params", "local_params", "au_intensities")
    return {name: faces[name][rows] for name in names}


def convert(source: Path, output: Path) -> float:
    from mlx_faceau.data.convert import convert_file

    started = time.perf_counter()
    convert_file(source, output, "lzf" if output.stem == "lzf" else None)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
