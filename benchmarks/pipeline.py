"""What the video pipeline costs: each stage, a whole frame, the first result, memory over time.

    python benchmarks/pipeline.py VIDEO --landmark-model PATH... --au-model PATH... \\
        --detector FILE.onnx

Several pairs of nets, such as float32 and int8 files, are measured one after the other. Stages are
timed one by one in one thread; the whole runs as ``mlx-faceau predict`` runs it, rows written. CPU
time counts all threads of the process. Two threads that share a core make each other's CPU time
longer, be they of this process or of others: ``load_at_start`` and ``other_cores``, what other
processes took meanwhile, tell how far the figures can be trusted. For the same reason the whole is
measured once more with all its threads on one core (Linux): what the work itself takes.
"""

import argparse
import csv
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from compare import machine_stamp

from mlx_faceau.output.openface_csv import Layout
from mlx_faceau.output.overlay import draw
from mlx_faceau.output.result_files import Wanted, record
from mlx_faceau.video.align import FrameCrops, crop_frame
from mlx_faceau.video.appearance import appearance_of, scene_signature
from mlx_faceau.video.detectors import Detector
from mlx_faceau.video.fitting import fit_landmarks, standard_square
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.prefetch import run_ahead
from mlx_faceau.video.reader import Span, Video
from mlx_faceau.video.results import Frame
from mlx_faceau.video.tracking import detect_faces, detect_near

RESULT = Path(__file__).parent / "results" / "pipeline.csv"
_STATM = Path("/proc/self/statm")  # Linux; memory is measured nowhere else
_FRAMES = 60  # of each stage
_WARM_UP = 500  # frames before memory is looked at
_EVERY = 30  # frames between detections
Row = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--landmark-model", nargs="+", required=True)
    parser.add_argument("--au-model", nargs="+", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--passes", type=int, default=5, help="of the whole video")
    parser.add_argument("--memory-frames", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as 'mlx-faceau predict' does
    pairs = list(zip(args.landmark_model, args.au_model, strict=True))
    pipelines = [FacePipeline(*models, args.detector, detect_every=_EVERY) for models in pairs]
    rows = []
    for models, pipeline in zip(pairs, pipelines, strict=True):
        parts = [lambda p=pipeline: stages(p, args.video), lambda p=pipeline: whole(p, args)]
        if hasattr(os, "sched_setaffinity"):
            parts.append(lambda p=pipeline: on_one_core(p, args))
        parts.append(lambda m=models: first_result(m, args))
        for part in parts:
            rows += beside_others(part, precision(pipeline))
    for pipeline in pipelines if args.memory_frames and _STATM.exists() else ():
        rows += beside_others(lambda p=pipeline: memory(p, args), precision(pipeline))
    stamp = machine_stamp()
    table = io.StringIO()
    writer = csv.DictWriter(table, {**rows[0], **stamp}, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **stamp} for row in rows)
    args.output.write_text(table.getvalue())
    sys.stdout.write(table.getvalue())
    return 0


def precision(pipeline: FacePipeline) -> str:
    nets = (pipeline.describe()[name] for name in ("landmark_model", "au_model"))
    return " ".join(dict.fromkeys((net["metadata"] or {}).get("precision", "?") for net in nets))


def beside_others(part: Callable[[], Iterator[Row]], name: str) -> list[Row]:
    """The rows of a part of the measurement, with what else the machine did meanwhile."""
    load, busy, start = os.getloadavg()[0], elsewhere(), time.perf_counter()
    rows = list(part())
    others = (elsewhere() - busy) / (time.perf_counter() - start)
    told = {"load_at_start": f"{load:.1f}", "other_cores": f"{max(0.0, others):.2f}"}
    return [{"nets": name, **row, **told} for row in rows]


def elsewhere() -> float:
    """CPU seconds of all processes but this one and its children (Linux; else 0)."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, first)
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def line(stage: str, cpu: list[float], wall: list[float], note: str = "") -> Row:
    return {
        "stage": stage,
        "cpu_ms_median": f"{np.median(cpu) * 1e3:.2f}",
        "cpu_ms_p95": f"{np.percentile(cpu, 95) * 1e3:.2f}",
        "wall_ms_median": f"{np.median(wall) * 1e3:.2f}",
        "note": note,
    }


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    start = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def measure(stage: str, call: Callable[[np.ndarray], object], frames: list[np.ndarray]) -> Row:
    call(frames[0])
    times = [timed(lambda f=frame: call(f)) for frame in frames]
    return line(stage, *map(list, zip(*times, strict=True)))


def stages(pipeline: FacePipeline, path: Path) -> Iterator[Row]:
    yield decoding(path)
    frames = [frame.image for frame in Video(path).frames(Span(every=2))][:_FRAMES]
    yield measure("scene signature", scene_signature, frames)
    detector, nets = pipeline.detector, (pipeline._landmarks, pipeline._aus)
    yield measure(f"detect (every {_EVERY}th frame)", detector.detect, frames)
    yield from reading(detector, nets, frames)
    found, layout = pipeline.image(frames[0]), Layout()
    yield measure("csv line", lambda _: layout.lines(found), frames)
    yield measure("overlay picture", lambda _: draw(found), frames)


def decoding(path: Path) -> Row:
    """Of the whole file: its decoder reads ahead and keeps frames back."""
    decoded: list[int] = []
    cpu, wall = timed(lambda: decoded.extend(frame.index for frame in Video(path).frames()))
    return line("decode", [cpu / len(decoded)], [wall / len(decoded)], f"{len(decoded)} frames")


def reading(detector: Detector, nets: tuple, frames: list[np.ndarray]) -> Iterator[Row]:
    """From a square to landmarks, and from landmarks to action units."""
    square = detect_faces(detector, FrameCrops(frames[0]))[0].square
    fit = fit_landmarks(nets[0], FrameCrops(frames[0]), [square])[0]
    matrix = FacePipeline(*nets, detector).image(frames[0]).faces[0].warp_matrix
    crop = crop_frame(frames[0], matrix)
    yield measure("crop", lambda f: crop_frame(f, matrix), frames)
    if side := getattr(detector, "region_side", 0):
        yield measure(
            "detect near a track (every 2nd frame)",
            lambda f: detect_near(detector, f, square, side),
            frames,
        )
    yield measure("appearance", lambda _: appearance_of(crop), frames)
    yield measure("landmark net", lambda _: nets[0].predict_batch(crop[None]), frames)
    yield measure("action unit net", lambda _: nets[1].predict_batch(crop[None]), frames)
    four = np.stack([crop] * 4)
    yield measure("action unit net, four frames", lambda _: nets[1].predict_batch(four), frames)
    yield measure(
        "crop + landmark net + frame space",
        lambda f: fit_landmarks(nets[0], FrameCrops(f), [square]),
        frames,
    )
    yield measure("standard square", lambda _: standard_square(fit.landmarks), frames)


def on_one_core(pipeline: FacePipeline, args: argparse.Namespace) -> Iterator[Row]:
    """The same, all its threads on one core; threads inherit where their maker may run."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield from whole(pipeline, args, "whole, per frame, on one core")
    finally:
        os.sched_setaffinity(0, cores)


def whole(
    pipeline: FacePipeline, args: argparse.Namespace, stage: str = "whole, per frame"
) -> Iterator[Row]:
    """All frames of the video, from the file to rows in a file, several times over."""
    frames, times = 0, []

    def run() -> None:
        nonlocal frames
        frames = record(pipeline.video(args.video), wanted, "").frames

    with tempfile.TemporaryDirectory() as folder:
        wanted = Wanted(Path(folder) / "faces.csv")
        run()
        for _ in range(args.passes):
            times.append([seconds / frames for seconds in timed(run)])
    cpu, wall = map(list, zip(*times, strict=True))
    size = next(Video(args.video).frames()).image.shape
    note = f"{1 / np.median(wall):.0f} frames/s; {size[1]}x{size[0]}, {args.passes} passes"
    yield line(stage, cpu, wall, note)


def first_result(models: tuple[str, str], args: argparse.Namespace) -> Iterator[Row]:
    """Seconds from starting Python to the first face, beyond an interpreter that does nothing."""
    code = (
        "from mlx_faceau import FacePipeline\n"
        f"p = FacePipeline({models[0]!r}, {models[1]!r}, {args.detector!r})\n"
        f"next(p.video({str(args.video)!r}))"
    )
    real, bare = ([_run(c) for _ in range(5)] for c in (code, "pass"))
    cpu, wall = ([r[i] - float(np.median([b[i] for b in bare])) for r in real] for i in (0, 1))
    yield line("time to first result", cpu, wall, "5 starts, less a bare interpreter")


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


def memory(pipeline: FacePipeline, args: argparse.Namespace) -> Iterator[Row]:
    """Growth of resident memory after a warm-up; decoding is left out."""
    images = [frame.image for frame in Video(args.video).frames(Span(every=3))][:40]
    source, layout = Looped(images, args.memory_frames), Layout()
    warm, most = 0, 0
    start = time.process_time(), time.perf_counter()
    for found in pipeline._stream(source, Span(), run_ahead, 4, 4):  # type: ignore[arg-type]
        layout.lines(found)
        if found.frame.index == min(_WARM_UP, args.memory_frames // 2):
            warm = _resident()
        elif warm and found.frame.index % 100 == 0:
            most = max(most, _resident())
    cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    growth = f"{(_resident() - warm) / 2**20:+.1f} MB, at most {(most - warm) / 2**20:+.1f} MB"
    count = args.memory_frames
    yield line("memory", [cpu / count], [wall / count], f"{growth}, over {count} frames")


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
