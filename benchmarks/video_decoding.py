"""How fast and in how much memory videos are decoded, beside OpenCV's VideoCapture.

    python benchmarks/video_decoding.py VIDEO

VIDEO gives the images; clips of 1280x720 and 1920x1080 are made of it (H.264, 300 frames). Both
readers decode each clip to BGR arrays in turn, several times: figures are the least of the passes,
because other programs only ever add time. Memory is observed over 10,000 frames.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
from timing import RESULTS, Row, resident_memory, timed, write_csv

from mlx_faceau.video.reader import Video

SIZES = ((1280, 720), (1920, 1080))
FRAMES, PASSES, MEMORY_FRAMES, WARM_UP = 300, 7, 10_000, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "video-decoding.csv")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as 'mlx-faceau predict' does
    with tempfile.TemporaryDirectory() as folder:
        write_csv(
            args.output, [*speed(args.video, Path(folder)), *memory(args.video, Path(folder))]
        )


def speed(source: Path, folder: Path) -> Iterator[Row]:
    for size in SIZES:
        path = make_clip(source, folder / f"{size[1]}.mp4", size, FRAMES)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for _, (name, read) in itertools.product(range(PASSES), READERS.items()):
            times[name].append(timed(lambda read=read, path=path: read(path)))
        for name, passes in times.items():
            yield row(size, name, *map(min, zip(*passes, strict=True)), FRAMES)


def memory(source: Path, folder: Path) -> Iterator[Row]:
    """Growth of resident memory after a warm-up."""
    path, held = make_clip(source, folder / "long.mp4", (640, 360), MEMORY_FRAMES), []

    def read() -> None:
        for frame in Video(path).frames():
            if frame.index >= WARM_UP and frame.index % 100 == 0:
                held.append(resident_memory() or 0)

    times = timed(read)
    note = f"memory {(max(held) - held[0]) / 2**20:+.1f} MB over {MEMORY_FRAMES} frames"
    yield row((640, 360), "mlx_faceau", *times, MEMORY_FRAMES) | {"note": note}


def row(size: tuple[int, int], reader: str, cpu: float, wall: float, frames: int) -> Row:
    return {
        "size": f"{size[0]}x{size[1]}",
        "reader": reader,
        "wall_ms_a_frame": f"{1e3 * wall / frames:.2f}",
        "cpu_ms_a_frame": f"{1e3 * cpu / frames:.2f}",
        "note": "",
    }


def read_with_opencv(path: Path) -> None:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += capture.retrieve()[0]
    capture.release()
    if count != FRAMES:
        raise SystemExit(f"{path}: OpenCV read {count} of {FRAMES} frames")


def read_with_ours(path: Path) -> None:
    if (count := sum(1 for _ in Video(path).frames())) != FRAMES:
        raise SystemExit(f"{path}: mlx_faceau read {count} of {FRAMES} frames")


READERS = {"opencv": read_with_opencv, "mlx_faceau": read_with_ours}


def make_clip(source: Path, path: Path, size: tuple[int, int], count: int) -> Path:
    """The source's images, repeated until there are enough, as H.264 of another size."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(itertools.islice(repeated(source), count)):
            resized = frame.reformat(*size, format="yuv420p")
            resized.pts, resized.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(resized))
        file.mux(stream.encode(None))
    return path


def repeated(source: Path) -> Iterator[av.VideoFrame]:
    while True:
        with av.open(str(source)) as file:
            yield from file.decode(video=0)


if __name__ == "__main__":
    main()
