"""``mlx-faceau predict`` on whole pictures, videos, folders and cameras."""

import argparse
import glob
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.core.pdm import PDM, read_pdm
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.errors import CheckpointError, FaceauError, FunctionError, UsageError, printable
from mlx_faceau.output.openface_csv import GROUPS, Layout, foreign_columns
from mlx_faceau.output.result_files import FORMATS, Summary, Wanted, record
from mlx_faceau.video.images import IMAGE_SUFFIXES, is_image, read_image
from mlx_faceau.video.overlay import VIDEO_SUFFIXES as OVERLAY_SUFFIXES
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.pose import Camera
from mlx_faceau.video.reader import VIDEO_SUFFIXES, Span, Video
from mlx_faceau.video.results import FrameResult
from mlx_faceau.weights.builtin import is_builtin, pdm_for

from .model_metadata import read_builtin, read_description

logger = logging.getLogger(__name__)

_LIVE_RATE = 30.0  # frames a second of a camera's overlay
_PROGRESS_EVERY = 0.5  # seconds
_NAMED = 5  # of the files in a folder that are passed over


@dataclass(frozen=True)
class Input:
    """One picture, video or camera."""

    path: Path | None  # None for a camera
    camera: int = 0

    @property
    def name(self) -> str:
        return self.path.name if self.path else f"webcam{self.camera}"

    @property
    def is_picture(self) -> bool:
        return self.path is not None and is_image(self.path)


def run_faces(args: argparse.Namespace) -> int:
    """Predict what parsed arguments name; the exit status."""
    if not args.landmark_model:
        raise UsageError(
            "--au-model alone: faces are cut out by their landmarks; give --landmark-model PATH or "
            "builtin as well, or --aligned for 112x112 crops"
        )
    span = Span(args.start, args.end, args.every)
    layout = _layout(args)
    camera = _camera(args.camera)
    form = _form(args)
    jobs = list(_jobs(shard(find_inputs(args.inputs), args.shard), args, form, layout))
    for _, wanted in jobs:
        _check_replaceable(wanted)
    if args.resume:
        jobs = [job for job in jobs if not job[1].is_done]
    if not jobs:
        sys.stderr.write("nothing left to do\n")
        return 0
    cv2.setNumThreads(1)  # frames are read, followed and written side by side already
    failed = _run_all(_pipeline(args, camera, layout.pdm), jobs, span)
    if failed:
        sys.stderr.write(f"{failed} of {len(jobs)} inputs could not be read\n")
    return 0 if not failed else 1 if failed < len(jobs) else 2


def _pipeline(args: argparse.Namespace, camera: Camera | None, pdm: PDM | None) -> FacePipeline:
    return FacePipeline(
        args.landmark_model,
        args.au_model,
        args.detector,
        args.backend,
        detect_every=args.detect_every,
        max_faces=args.max_faces,
        min_confidence=args.min_confidence,
        providers=args.providers,
        camera=camera,
        pdm=pdm,
    )


def _run_all(pipeline: FacePipeline, jobs: list[tuple[Input, Wanted]], span: Span) -> int:
    """How many inputs could not be read; the error of an only one is raised."""
    failed = 0
    for source, wanted in jobs:
        try:
            _run_one(pipeline, source, wanted, span)
        except FaceauError as error:  # a bad file never ends a batch; a full disk (OSError) does
            if len(jobs) == 1:
                raise
            sys.stderr.write(f"mlx-faceau: {error}\n")
            if isinstance(error, FunctionError):
                logger.info("the traceback of %s", source.name, exc_info=error)
            failed += 1
    return failed


def find_inputs(
    names: list[str], kinds: Sequence[str] = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
) -> list[Input]:
    """What the names mean: folders and patterns expanded in sorted order.

    Files of a folder that are passed over are counted and named on standard error.

    Args:
        names: files, folders, patterns or cameras.
        kinds: endings that are taken from folders.

    Raises:
        ValueError: for a path that does not exist, or a folder or pattern without anything in it.
    """
    return [found for name in names for found in _expand(name, kinds)]


def name_passed_over(folder: Path, names: Sequence[str]) -> None:
    """Count and name the files of a folder that are not read, on standard error."""
    if names:
        named = ", ".join(map(printable, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)
        count = f"{len(names)} other file{'' if len(names) == 1 else 's'}"
        sys.stderr.write(f"{folder}: {count} passed over ({named})\n")


def _expand(name: str, kinds: Sequence[str]) -> Iterator[Input]:
    path = Path(name)
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.is_file() and p.name[0] != "."]
        paths = [p for p in files if p.suffix.lower() in kinds]
        # Where videos alone are wanted OpenFace's files lie beside them, which are not inputs.
        known = kinds if ".png" in kinds else (*kinds, ".csv", ".hog")
        others = [p.name for p in files if p.suffix.lower() not in known]
        if not paths:
            what = "pictures or videos" if ".png" in kinds else "videos"
            raise UsageError(f"{path}: no {what} in this folder")
        name_passed_over(path, others)
        yield from map(Input, paths)
    elif path.is_file():
        yield Input(path)
    elif (number := _camera_number(name)) is not None:
        yield Input(None, number)
    else:
        paths = [Path(p) for p in sorted(glob.glob(name, recursive=True)) if Path(p).is_file()]
        if not paths:
            raise UsageError(f"{name}: no such file or folder")
        yield from map(Input, paths)


def _camera_number(name: str) -> int | None:
    kind, _, number = name.partition(":")
    if kind == "webcam":
        number = number or "0"
    elif name.isdigit():
        number = name
    else:
        return None
    return int(number) if number.isdigit() else None


def shard(inputs: list[Input], text: str | None) -> list[Input]:
    """The Ith of N parts; every Nth input, so that neighbours of like length are spread.

    Raises:
        ValueError: if the text is not ``I/N`` with 1 <= I <= N.
    """
    if text is None:
        return inputs
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8")
    return inputs[int(first) - 1 :: int(second)]


def _layout(args: argparse.Namespace) -> Layout:
    pdm = _pdm(args)
    there = [g for g in GROUPS if (g != "3d" or pdm) and (g != "aus" or args.au_model)]
    groups = there if args.groups is None else [g.strip() for g in args.groups.split(",")]
    if "aus" in groups and not args.au_model:
        raise UsageError("--groups aus: there is no action unit net; give --au-model")
    return Layout(groups, pdm, args.presence_from)


def _camera(text: str | None) -> Camera | None:
    if text is None:
        return None
    try:
        camera = Camera(*(float(value) for value in text.split(",")))
    except (TypeError, ValueError):
        raise UsageError(f"--camera {text}: expected FX,FY,CX,CY in pixels") from None
    if not (camera.focal_x > 0 and camera.focal_y > 0):
        raise UsageError(f"--camera {text}: focal lengths are positive")
    return camera


def _pdm(args: argparse.Namespace) -> PDM | None:
    """The PDM that is given, which must be the net's own; else the open one where that is it.

    Raises:
        ValueError: if the landmark net was taught with another one.
    """
    try:
        builtin = is_builtin(args.landmark_model)
        metadata = (
            read_builtin("landmark_pose")
            if builtin
            else read_description(Path(args.landmark_model))
        )
    except CheckpointError:
        metadata = {}  # opening the net will say so
    if args.pdm is None:
        return pdm_for(metadata)
    pdm, taught = read_pdm(args.pdm), pdm_of(metadata)
    if taught and taught["hash"] not in ("", pdm.hash):
        raise UsageError(
            f"--pdm {args.pdm}: the landmark net was taught with another one ({taught['name']}, "
            f"SHA-256 {taught['hash'][:12]}...); leave it out, or give that one"
        )
    return pdm


def _form(args: argparse.Namespace) -> str:
    if args.format == "json":
        raise UsageError("--format json is for --aligned; videos are written as csv or jsonl")
    ending = _ending(args.output)
    return str(args.format or (ending if ending in FORMATS else "csv"))


def _ending(output: str | None) -> str:
    return Path(output or "").suffix.lower().lstrip(".")


def _jobs(
    inputs: list[Input], args: argparse.Namespace, form: str, layout: Layout
) -> Iterator[tuple[Input, Wanted]]:
    """Each input with its result files; two never share one."""
    single = args.output == "-" or _ending(args.output) in FORMATS
    if single and len(inputs) > 1:
        raise UsageError(
            f"--output {args.output}: {len(inputs)} inputs need a folder to write to, one file each"
        )
    folder = _result_folder("." if args.output is None or single else args.output)
    stems = Counter(Path(source.name).stem for source in inputs)
    names = Counter(source.name for source in inputs)
    for source in inputs:
        if names[source.name] > 1:
            raise UsageError(f"{source.name}: two inputs of this name; run their folders apart")
        stem = Path(source.name).stem
        base = folder / (stem if stems[stem] == 1 else source.name)
        table = args.output if single else Path(f"{base}.{form}")
        if single and args.output != "-":
            base = Path(args.output).with_suffix("")
        picture = ".png" if source.is_picture else OVERLAY_SUFFIXES[0]
        yield (
            source,
            Wanted(
                table,
                form,
                layout,
                overlay=Path(f"{base}.overlay{picture}") if args.overlay else None,
                report=Path(f"{base}.report.html") if args.report else None,
                smooth=args.smooth,
                calibrate=args.calibrate,
            ),
        )


def _check_replaceable(wanted: Wanted) -> None:
    """Rows may replace older ones of ours, not a file with columns that we never write."""
    if wanted.form == "jsonl" or str(wanted.rows) == "-":
        return
    if foreign := foreign_columns(Path(wanted.rows)):
        raise UsageError(
            f"{wanted.rows}: another program's file (column {foreign[0]!r} is none of ours), which "
            "would be replaced; move it, or give another folder with --output"
        )


def _result_folder(name: str) -> Path:
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder}: not a folder, and no ending {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run_one(pipeline: FacePipeline, source: Input, wanted: Wanted, span: Span) -> None:
    progress = Progress(source.name)
    wanted = replace(wanted, about=about(pipeline))
    results: Iterable[FrameResult]
    rate = _LIVE_RATE
    if source.path is None:
        results = pipeline.live(source.camera, span)
    elif source.is_picture:
        results = (pipeline.image(image) for image in [read_image(source.path)])
    else:
        video = Video(source.path)
        rate = video.rate / span.every
        progress.total = None if video.count is None else _expected(video, span)
        results = pipeline.video(video, span)
    try:
        summary = record(results, wanted, source.name, rate, progress.step)
    except BaseException:
        progress.clear()
        if progress.frames and str(wanted.table) != "-":
            sys.stderr.write(f"{wanted.rows}: {progress.frames} finished frames are in it\n")
        raise
    progress.clear()
    _say(source, wanted, summary, pipeline)


def _expected(video: Video, span: Span) -> int:
    last = video.count or 0
    if span.end is not None:
        last = min(last, int(span.end * video.rate))
    return max(1, (last - int(span.start * video.rate)) // span.every)


def about(pipeline: FacePipeline) -> dict[str, str]:
    """What a pipeline's results come from: version, date, nets with their hashes, detector."""
    from mlx_faceau.core.libraries import package_version

    told = pipeline.describe()
    nets = {"landmark net": "landmark_model", "action unit net": "au_model"}
    return {
        "made with": f"mlx-faceau {package_version()} on {time.strftime('%Y-%m-%d')}",
        **{title: _net(told[key]) for title, key in nets.items() if key in told},
        "face detector": told["detector"],
    }


def _net(told: dict[str, Any]) -> str:
    model = told["model"]
    return f"{model['name']} by {told['backend']}, SHA-256 of its checkpoint {model['hash']}"


def _say(source: Input, wanted: Wanted, summary: Summary, pipeline: FacePipeline) -> None:
    stream = sys.stderr if str(wanted.table) == "-" else sys.stdout
    without = f", {summary.faceless} without a face" if summary.faceless else ""
    frames = f"{summary.frames} frame{'' if summary.frames == 1 else 's'}"
    told = pipeline.describe()
    nets = {told[key]["model"]["name"] for key in ("landmark_model", "au_model") if key in told}
    by = ", ".join([*sorted(nets), f"detector {told['detector']}"])
    stream.write(f"{source.name}: {frames}{without} -> {wanted.table} ({by})\n")
    for note in summary.notes:
        sys.stderr.write(note + "\n")


class Progress:
    """One line on a terminal: share, frames a second, time left."""

    def __init__(self, name: str, total: int | None = None) -> None:
        self.total = total
        self.frames = 0
        self._name = name
        self._start = self._shown = time.monotonic()
        self._visible = sys.stderr.isatty()

    def step(self, _: FrameResult) -> None:
        self.frames += 1
        now = time.monotonic()
        if self._visible and now - self._shown >= _PROGRESS_EVERY:
            self._shown = now
            sys.stderr.write(f"\r\x1b[K{self.line(now - self._start)}")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """The text after so many seconds."""
        rate = self.frames / max(seconds, 1e-9)
        text = f"{self._name}: {self.frames} frames, {rate:.0f} frames/s"
        if self.total:
            left = max(0, self.total - self.frames) / rate
            share = min(100, 100 * self.frames // self.total)
            text += f", {share} %, {int(left // 60)}:{int(left % 60):02d} left"
        return text

    def clear(self) -> None:
        if self._visible:
            sys.stderr.write("\r\x1b[K")
