"""Cost of the video pipeline: each stage, a whole frame, the first result, memory over time.

    python benchmarks/pipeline.py VIDEO [--detector FILE.onnx] \
        [--landmark-model PATH... --au-model PATH...]

The built-in pair is measured unless models are given; several pairs, such as float32 and int8
files, are measured one after the other. Stages are timed one by one in one thread; the whole is
what ``mlx-faceau predict`` does, rows written. CPU time counts all threads of the process. Threads
that share a core make each other's CPU time longer: so the whole is also measured with all its
threads on one core (Linux), and ``load_at_start`` records how busy the machine was.
"""

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from timing import RESULTS, Row, load, resident_memory, timed, timed_process, write_csv

from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
from mlx_faceau.output.result_files import OutputFiles, write_results
from mlx_faceau.video.align import crop_frame
from mlx_faceau.video.detectors import open_detector
from mlx_faceau.video.overlay import draw
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.reader import Span, Video

DETECT_EVERY, STAGE_FRAMES, WARM_UP, STARTS = 30, 60, 500, 5
MEMORY_SIZE = (640, 360)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--landmark-model", nargs="+", default=["builtin"])
    parser.add_argument("--au-model", nargs="+", default=["builtin"])
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--passes", type=int, default=5, help="of the whole video")
    parser.add_argument("--memory-frames", type=int, default=10_000, help="0: no memory row")
    parser.add_argument("--output", type=Path, default=RESULTS / "pipeline.csv")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as 'mlx-faceau predict' does
    rows: list[Row] = []
    for models in zip(args.landmark_model, args.au_model, strict=True):
        load_at_start = load()
        pipeline = FacePipeline(*models, args.detector, detect_every=DETECT_EVERY)
        found = [
            *stages(pipeline, models, args.video, args.detector),
            *whole(pipeline, args.video, args.passes),
            first_result(models, args.video, args.detector),
        ]
        if args.memory_frames:
            found.append(memory(pipeline, args.video, args.memory_frames))
        nets = " ".join(dict.fromkeys(Path(model).name for model in models))
        rows += [{"nets": nets, **row, "load_at_start": load_at_start} for row in found]
    write_csv(args.output, rows)


def row(stage: str, times: list[tuple[float, float]], note: str = "") -> Row:
    cpu, wall = np.transpose(times) * 1e3
    return {
        "stage": stage,
        "cpu_ms_median": f"{np.median(cpu):.2f}",
        "cpu_ms_p95": f"{np.percentile(cpu, 95):.2f}",
        "wall_ms_median": f"{np.median(wall):.2f}",
        "note": note,
    }


def stages(
    pipeline: FacePipeline, models: tuple[str, str], video: Path, detector_name: str
) -> Iterator[Row]:
    counts: list[int] = []
    cpu, wall = timed(lambda: counts.append(sum(1 for _ in Video(video).frames())))
    count = counts[0]  # of the whole file: the decoder reads ahead
    yield row("decode", [(cpu / count, wall / count)], f"{count} frames")
    frames = [frame.image for frame in Video(video).frames(Span(every=2))][:STAGE_FRAMES]
    found = pipeline.image(frames[0])
    if not found.faces:
        raise SystemExit(f"{video}: no face in the first frame")
    detector = open_detector(detector_name)
    landmarks = load_predictor(models[0], threads=1)
    action_units = load_au_predictor(models[1], threads=1)
    matrix = found.faces[0].warp_matrix
    crop = crop_frame(frames[0], matrix)[None]
    for name, call in {
        f"detect (every {DETECT_EVERY}th frame)": detector.detect,
        "crop": lambda frame: crop_frame(frame, matrix),
        "landmark net": lambda _: landmarks.predict_batch(crop),
        "action unit net": lambda _: action_units.predict_batch(crop),
        "overlay": lambda _: draw(found),
    }.items():
        call(frames[0])
        yield row(name, [timed(lambda f=frame, c=call: c(f)) for frame in frames])


def whole(pipeline: FacePipeline, video: Path, passes: int) -> Iterator[Row]:
    """All frames of the video, from the file to rows in a file; then all threads on one core."""
    yield whole_video(pipeline, video, passes, "whole, per frame")
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})  # threads inherit it
        try:
            yield whole_video(pipeline, video, passes, "whole, per frame, on one core")
        finally:
            os.sched_setaffinity(0, cores)


def whole_video(pipeline: FacePipeline, video: Path, passes: int, stage: str) -> Row:
    times = []
    with tempfile.TemporaryDirectory() as folder:
        files = OutputFiles(Path(folder) / "faces.csv")
        frames = write_results(pipeline.video(video), files, "").frames
        for _ in range(passes):
            cpu, wall = timed(lambda: write_results(pipeline.video(video), files, ""))
            times.append((cpu / frames, wall / frames))
    rate = 1 / np.median([wall for _, wall in times])
    return row(stage, times, f"{rate:.0f} frames/s; {passes} passes")


def first_result(models: tuple[str, str], video: Path, detector: str) -> Row:
    """From starting Python to the first face, beyond an interpreter that does nothing."""
    code = (
        "from mlx_faceau import FacePipeline\n"
        f"next(FacePipeline({models[0]!r}, {models[1]!r}, {detector!r}).video({str(video)!r}))"
    )
    real, bare = (
        np.array([timed_process([sys.executable, "-c", c]) for _ in range(STARTS)])
        for c in (code, "pass")
    )
    note = f"{STARTS} starts, less a bare interpreter"
    return row("time to first result", real - np.median(bare, axis=0), note)


def memory(pipeline: FacePipeline, video: Path, count: int) -> Row:
    """Growth of resident memory after a warm-up, over a long clip."""
    held = []

    def run() -> None:
        for found in pipeline.video(clip):
            if found.frame.index >= min(WARM_UP, count // 2) and found.frame.index % 100 == 0:
                held.append(resident_memory() or 0)

    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(video, Path(folder) / "long.mp4", count)
        cpu, wall = timed(run)
    growth = ((size - held[0]) / 2**20 for size in (held[-1], max(held)))
    note = "{:+.1f} MB, at most {:+.1f} MB, over {} frames".format(*growth, count)
    return row("memory", [(cpu / count, wall / count)], note)


def make_clip(source: Path, path: Path, count: int) -> Path:
    """The source's images, repeated until there are enough, as H.264 of another size."""

    def repeated() -> Iterator[av.VideoFrame]:
        while True:
            with av.open(str(source)) as file:
                yield from file.decode(video=0)

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height = MEMORY_SIZE
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(itertools.islice(repeated(), count)):
            resized = frame.reformat(*MEMORY_SIZE, format="yuv420p")
            resized.pts, resized.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(resized))
        file.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
