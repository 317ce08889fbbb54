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
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from startup import measure
from timing import RESULTS, Row, Times, milliseconds, timed, write_csv

from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
from mlx_faceau.output.result_files import OutputFiles, write_results
from mlx_faceau.video.align import crop_frame
from mlx_faceau.video.overlay import draw
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.reader import WHOLE, Span, Video
from mlx_faceau.video.results import Frame

DETECT_EVERY, STAGE_FRAMES, WARM_UP, STARTS = 30, 60, 500, 5


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
        pipeline = FacePipeline(*models, args.detector, detect_every=DETECT_EVERY)
        found = [
            *stages(pipeline, models, args.video),
            *whole(pipeline, args.video, args.passes),
            first_result(models, args.video, args.detector),
        ]
        if args.memory_frames:
            found.append(memory(pipeline, args.video, args.memory_frames))
        nets = " ".join(dict.fromkeys(Path(model).name for model in models))
        rows += [{"nets": nets, **row} for row in found]
    write_csv(args.output, rows)


def row(stage: str, times: list[Times], note: str = "") -> Row:
    return {"stage": stage, **milliseconds(times), "note": note}


def stages(pipeline: FacePipeline, models: tuple[str, str], path: Path) -> Iterator[Row]:
    counts: list[int] = []
    cpu, wall = timed(lambda: counts.append(sum(1 for _ in Video(path).frames())))
    count = counts[0]  # of the whole file: the decoder reads ahead
    yield row("decode", [(cpu / count, wall / count)], f"{count} frames")
    some = itertools.islice(Video(path).frames(Span(every=2)), STAGE_FRAMES)
    frames = [frame.image for frame in some]
    found = pipeline.image(frames[0])
    if not found.faces:
        raise SystemExit(f"{path}: no face in the first frame")
    landmarks = load_predictor(models[0], threads=1)
    action_units = load_au_predictor(models[1], threads=1)
    matrix = found.faces[0].warp_matrix
    crop = crop_frame(frames[0], matrix)[None]
    for name, call in {
        f"detect (every {DETECT_EVERY}th frame)": pipeline.detector.detect,
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
        yield whole_video(pipeline, video, passes, "whole, per frame, on one core")
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
    bare, real = measure(STARTS, {"bare": ["-c", "pass"], "first": ["-c", code]}).values()
    note = f"{STARTS} starts, less a bare interpreter"
    return row("time to first result", real - np.median(bare, axis=0), note)


class Endless(Video):
    """A video that begins again and again."""

    def frames(self, span: Span = WHOLE) -> Iterator[Frame]:
        turns = itertools.chain([self], map(Video, itertools.repeat(self.path)))
        frames = itertools.chain.from_iterable(Video.frames(video, span) for video in turns)
        for index, frame in enumerate(frames):
            yield replace(frame, index=index, timestamp=index / self.rate)


def memory(pipeline: FacePipeline, path: Path, count: int) -> Row:
    """Growth of resident memory after a warm-up, over many frames (Linux)."""
    held = []

    def run() -> None:
        with closing(pipeline.video(Endless(path))) as results:
            for index, _ in enumerate(itertools.islice(results, count)):
                if index >= min(WARM_UP, count // 2) and index % 100 == 0:
                    pages = int(Path("/proc/self/statm").read_text().split()[1])
                    held.append(pages * os.sysconf("SC_PAGE_SIZE"))

    cpu, wall = timed(run)
    growth = ((size - held[0]) / 2**20 for size in (held[-1], max(held)))
    note = "{:+.1f} MB, at most {:+.1f} MB, over {} frames".format(*growth, count)
    return row("memory", [(cpu / count, wall / count)], note)


if __name__ == "__main__":
    main()
