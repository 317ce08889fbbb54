"""How fast and in how much memory videos are decoded, beside OpenCV's VideoCapture.

    python benchmarks/video_decoding.py VIDEO

VIDEO gives the pictures; clips of 1280x720 and 1920x1080 are made of it (H.264, 300 frames). Both
readers decode each clip to BGR arrays in turn, several times over, in one run: figures are the
least of the passes, as other programs only ever add. Memory is looked at over 10,000 frames.
"""

import argparse
import csv
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
from compare import machine_stamp

from mlx_faceau.video.reader import Video

RESULT = Path(__file__).parent / "results" / "video-decoding.csv"
SIZES = ((1280, 720), (1920, 1080))
_FRAMES, _PASSES, _MEMORY_FRAMES, _WARM_UP = 300, 7, 10_000, 500
_STATM = Path("/proc/self/statm")  # Linux; memory is measured nowhere else


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as 'mlx-faceau predict' does
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measured(args.video, Path(folder)))
    stamp = machine_stamp()
    with args.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, {**rows[0], **stamp}, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **stamp} for row in rows)
    sys.stdout.write(args.output.read_text())
    return 0


def measured(source: Path, folder: Path) -> Iterator[dict[str, str]]:
    for size in SIZES:
        path = make_clip(source, folder / f"{size[1]}.mp4", size, _FRAMES)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for _, (name, read) in itertools.product(range(_PASSES), READERS.items()):
            times[name].append(timed(read, path))
        for name, passes in times.items():
            wall, cpu = (min(column) / _FRAMES * 1e3 for column in zip(*passes, strict=True))
            yield row(size, name, wall, cpu, "")
    if _STATM.exists():
        path = make_clip(source, folder / "long.mp4", (640, 360), _MEMORY_FRAMES)
        sizes = []
        start = time.perf_counter(), time.process_time()
        for frame in Video(path).frames():
            if frame.index >= _WARM_UP and frame.index % 100 == 0:
                sizes.append(int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        growth = f"memory {(max(sizes) - sizes[0]) / 2**20:+.1f} MB over {_MEMORY_FRAMES} frames"
        each = 1e3 / _MEMORY_FRAMES
        yield row((640, 360), "mlx_faceau", wall * each, cpu * each, growth)


def row(size: tuple[int, int], reader: str, wall: float, cpu: float, note: str) -> dict[str, str]:
    return {
        "size": f"{size[0]}x{size[1]}",
        "reader": reader,
        "wall_ms_a_frame": f"{wall:.2f}",
        "cpu_ms_a_frame": f"{cpu:.2f}",
        "note": note,
    }


def timed(read: Callable[[Path], int], path: Path) -> tuple[float, float]:
    """Wall and CPU seconds."""
    start = time.perf_counter(), time.process_time()
    if read(path) != _FRAMES:
        raise RuntimeError(f"{path}: not all frames were read")
    return time.perf_counter() - start[0], time.process_time() - start[1]


def with_opencv(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += capture.retrieve()[0]
    capture.release()
    return count


def with_ours(path: Path) -> int:
    return sum(1 for _ in Video(path).frames())


READERS = {"opencv": with_opencv, "mlx_faceau": with_ours}


def make_clip(source: Path, path: Path, size: tuple[int, int], count: int) -> Path:
    """The source's pictures, played over and over, as H.264 of another size."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(itertools.islice(_forever(source), count)):
            resized = frame.reformat(*size, format="yuv420p")
            resized.pts, resized.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(resized))
        file.mux(stream.encode(None))
    return path


def _forever(source: Path) -> Iterator[av.VideoFrame]:
    while True:
        with av.open(str(source)) as file:
            yield from file.decode(video=0)


if __name__ == "__main__":
    sys.exit(main())
