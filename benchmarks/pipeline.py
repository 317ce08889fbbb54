"""What the video pipeline costs: each stage, a whole frame, the first result, memory over time.

    python benchmarks/pipeline.py VIDEO --landmark-model PATH --au-model PATH --detector FILE.onnx

Stages are timed one after the other in one thread; the whole runs as users run it. CPU time counts
all threads of the process and is what a busy machine still measures fairly; wall time is printed
with the load it was measured under.
"""

import argparse
import csv
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.align import FrameCrops, crop_frame
from mlx_faceau.detect import open_detector
from mlx_faceau.faces import Frame
from mlx_faceau.follow import find_candidates, read_shapes, standard_square
from mlx_faceau.looks import look, scene_signature
from mlx_faceau.openface_csv import Layout
from mlx_faceau.overlay import draw
from mlx_faceau.pipeline import FacePipeline
from mlx_faceau.predictor import load_au_predictor, load_predictor
from mlx_faceau.video import Span, Video

RESULT = Path(__file__).parent / "results" / "pipeline.csv"
_FRAMES = 60  # of each stage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--memory-frames", type=int, default=10_000)
    parser.add_argument("--cv-threads", type=int, help="threads of OpenCV; default: its own choice")
    args = parser.parse_args()
    if args.cv_threads is not None:
        cv2.setNumThreads(args.cv_threads)
    rows = [*stages(args), *whole(args), first_result(args)]
    if args.memory_frames:
        rows.append(memory(args))
    threads = f"cv2={cv2.getNumThreads()} OMP={os.environ.get('OMP_NUM_THREADS', '-')}"
    for row in rows:
        row |= {"threads": threads, "load": f"{os.getloadavg()[0]:.1f}"}
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    RESULT.write_text(table.getvalue())
    sys.stdout.write(table.getvalue())
    return 0


def line(stage: str, cpu: list[float], wall: list[float], note: str = "") -> dict[str, str]:
    return {
        "stage": stage,
        "cpu_ms_median": f"{np.median(cpu) * 1e3:.2f}",
        "cpu_ms_p95": f"{np.percentile(cpu, 95) * 1e3:.2f}",
        "wall_ms_median": f"{np.median(wall) * 1e3:.2f}",
        "note": note,
    }


def measure(stage: str, call: Callable[[np.ndarray], object], frames: list[np.ndarray]) -> dict:
    call(frames[0])
    cpu, wall = [], []
    for frame in frames:
        start = time.process_time(), time.perf_counter()
        call(frame)
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return line(stage, cpu, wall)


def stages(args: argparse.Namespace) -> Iterator[dict[str, str]]:
    frames = [frame.image for frame in Video(args.video).frames(Span(every=2))][:_FRAMES]
    capture = cv2.VideoCapture(str(args.video))
    yield measure("decode", lambda _: capture.read(), frames)
    yield measure("scene signature", scene_signature, frames)
    detector = open_detector(args.detector)
    yield measure("detect (every 30th frame)", detector.detect, frames)
    candidate = find_candidates(detector, FrameCrops(frames[0]))[0]
    landmark_net, au_net = load_predictor(args.landmark_model), load_au_predictor(args.au_model)
    square = (candidate.centre, candidate.side)
    shape = read_shapes(landmark_net, FrameCrops(frames[0]), [square])[0]
    found = FacePipeline(landmark_net, au_net, detector).image(frames[0])
    matrix = found.faces[0].warp_matrix
    crop = crop_frame(frames[0], matrix)
    yield measure("crop", lambda f: crop_frame(f, matrix), frames)
    yield measure("look", lambda _: look(crop), frames)
    yield measure("landmark net", lambda _: landmark_net.predict_batch(crop[None]), frames)
    yield measure("action unit net", lambda _: au_net.predict_batch(crop[None]), frames)
    yield measure(
        "crop + landmark net + frame space",
        lambda f: read_shapes(landmark_net, FrameCrops(f), [square]),
        frames,
    )
    yield measure("standard square", lambda _: standard_square(shape.landmarks), frames)
    layout = Layout()
    yield measure("csv line", lambda _: layout.lines(found), frames)
    yield measure("overlay picture", lambda _: draw(found), frames)


def whole(args: argparse.Namespace) -> Iterator[dict[str, str]]:
    pipeline = FacePipeline(args.landmark_model, args.au_model, args.detector)
    next(pipeline.video(args.video))
    for name, layout in (("whole, per frame", None), ("whole and csv, per frame", Layout())):
        start, cpu, count = time.perf_counter(), time.process_time(), 0
        for found in pipeline.video(args.video):
            count += 1
            if layout is not None:
                layout.lines(found)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        yield line(name, [cpu / count], [wall / count], f"{count / wall:.0f} frames/s")


def first_result(args: argparse.Namespace) -> dict[str, str]:
    """Seconds from starting Python to the first face, beyond an interpreter that does nothing."""
    code = (
        "from mlx_faceau import FacePipeline\n"
        f"p = FacePipeline({args.landmark_model!r}, {args.au_model!r}, {args.detector!r})\n"
        f"next(p.video({str(args.video)!r}))"
    )
    real, bare = ([_run(c) for _ in range(5)] for c in (code, "pass"))
    cpu = min(r[0] for r in real) - min(b[0] for b in bare)
    wall = min(r[1] for r in real) - min(b[1] for b in bare)
    return line("time to first result", [cpu], [wall], "best of 5, less a bare interpreter")


def _run(code: str) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


class Looped:
    """A source without end: few pictures, played to and fro."""

    rate, count = 30.0, None

    def __init__(self, images: list[np.ndarray], frames: int) -> None:
        self._images = images + images[::-1]
        self._frames = frames

    def frames(self, span: Span) -> Iterator[Frame]:
        for index in range(self._frames):
            yield Frame(index, index / 30, self._images[index % len(self._images)].copy())


def memory(args: argparse.Namespace) -> dict[str, str]:
    """Growth of resident memory, after 500 frames of warm-up."""
    images = [frame.image for frame in Video(args.video).frames(Span(every=3))][:40]
    pipeline = FacePipeline(args.landmark_model, args.au_model, args.detector)
    layout, start, warm = Layout(), time.process_time(), 0
    source = Looped(images, args.memory_frames)
    for found in pipeline._stream(source, Span(), _ahead()):  # type: ignore[arg-type]
        layout.lines(found)
        if found.frame.index == 500:
            warm = _resident()
    cpu = (time.process_time() - start) / args.memory_frames
    growth = (_resident() - warm) / 2**20
    return line("memory", [cpu], [0], f"{growth:+.1f} MB over {args.memory_frames} frames")


def _ahead() -> Callable:
    from mlx_faceau.background import run_ahead

    return run_ahead


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
