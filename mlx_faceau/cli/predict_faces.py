"""``mlx-faceau predict`` on whole images, videos, folders and webcams."""

import argparse
import csv
import json
import logging
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.core.architectures import LandmarkPoseConfig
from mlx_faceau.core.artifact_metadata import net_metadata
from mlx_faceau.core.facs import MAX_INTENSITY, NUM_AUS, PRESENCE_KEY
from mlx_faceau.core.pdm import PDM, read_pdm
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.errors import CheckpointError, FaceauError, FunctionError, UsageError, counted
from mlx_faceau.inference.backends.choice import find_files
from mlx_faceau.output import openface_csv
from mlx_faceau.output.result_files import (
    CROP_NAME,
    FORMATS,
    OutputFiles,
    Summary,
    write_results,
)
from mlx_faceau.output.row_file import check_replaceable, is_complete
from mlx_faceau.output.run_record import run_record
from mlx_faceau.video.images import read_image
from mlx_faceau.video.overlay import VIDEO_SUFFIXES as OVERLAY_SUFFIXES
from mlx_faceau.video.overlay import LiveWindow
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.pose import Camera
from mlx_faceau.video.reader import WHOLE, Span, Video
from mlx_faceau.video.results import FrameResult, ResultStream
from mlx_faceau.weights.builtin import pdm_for

from .inputs import Input, find_inputs, shard
from .model_metadata import read_model

logger = logging.getLogger(__name__)

_LONGEST_NAME = 255  # bytes of a file's, on every common file system
_OVERLAY_ENDINGS = f".overlay{OVERLAY_SUFFIXES[0]}", ".overlay.png"  # of a video, of an image


@dataclass(frozen=True)
class Job:
    """A video, a webcam, or the images of one table; and the files to write."""

    name: str
    inputs: list[Input]
    files: OutputFiles


def run_faces(args: argparse.Namespace, settings: dict[str, Any], note: str) -> int:
    """Predict what parsed arguments name; the exit status.

    ``settings`` are the options among them that differ from their defaults, for the record;
    ``note`` is printed when the run starts.
    """
    if not args.landmark_model:
        raise UsageError(
            "--au-model alone: crops are cut by the landmarks; give --landmark-model PATH or "
            "builtin as well, or --aligned for 112x112 crops"
        )
    span = Span(args.start, args.end, args.frame_step)
    layout = _layout(args)
    threshold = args.presence_threshold
    if threshold is not None and not 0 <= threshold <= MAX_INTENSITY:
        raise UsageError(f"--presence-threshold {threshold}: expected an intensity in [0, 5]")
    camera = _camera(args.camera_intrinsics)
    jobs = _jobs(find_inputs(args.inputs), args, layout)
    for job in jobs:
        _check_names(job.files)
        check_replaceable(job.files.rows, job.files.format)
    jobs = [job for job in jobs if not (args.resume and _is_made(job.files) and _is_whole(job))]
    if not jobs:
        sys.stderr.write("nothing left to do: the tables are complete\n")
        return 0
    cv2.setNumThreads(1)  # decoding, both nets and writing run in parallel already
    pipeline = FacePipeline(
        args.landmark_model,
        args.au_model,
        args.detector,
        args.backend,
        detect_every=args.detect_every,
        max_faces=args.max_faces,
        min_confidence=args.min_confidence,
        providers=args.providers,
        camera=camera,
        pdm=layout.pdm,
    )
    sys.stderr.write(note)
    described = pipeline.describe()
    record = run_record(described, settings)
    if threshold is None:
        thresholds = openface_csv.presence_thresholds(described.get("au_model", {}))
    else:
        thresholds = (threshold,) * NUM_AUS
    if "aus" in layout.groups:
        record[PRESENCE_KEY] = dict(zip(openface_csv.PRESENCE_NAMES, thresholds, strict=True))
    total = sum(len(job.inputs) for job in jobs)
    failed: list[Input] = []
    for job in jobs:
        files = replace(
            job.files,
            layout=replace(job.files.layout, presence_thresholds=thresholds),
            record={"source": job.name, "table": Path(job.files.table).name, **record},
        )
        try:
            job = replace(job, files=files)
            summary = _run_job(pipeline, job, span, failed, total, args.show)
        except FaceauError as error:  # a bad file never ends a batch; a full disk (OSError) does
            if total == 1:
                raise
            if rest := [source for source in job.inputs if source not in failed]:
                _report_failure(job.name, error)
                failed += rest
        else:
            _print_summary(job, summary, record)
    if failed:
        sys.stderr.write(f"{len(failed)} of {total} inputs could not be read\n")
    return 0 if not failed else 1 if len(failed) < total else 2


def _is_made(files: OutputFiles) -> bool:
    """Whether an earlier run finished the files. Of drawn images one suffices, since those that
    cannot be read have none; of images' crops none, since those without a face have none."""
    drawn, crops = _paths(files.overlay), files.aligned_faces
    return (
        is_complete(Path(files.rows))
        and Path(files.table).is_file()
        and (files.report is None or files.report.is_file())
        and (not drawn or any(path.is_file() for path in drawn))
        and (not isinstance(crops, Path) or crops.is_dir())
    )


def _is_whole(job: Job) -> bool:
    """Whether a finished table has all images that can be read."""
    if not job.files.layout.file_column:
        return True
    try:
        with Path(job.files.rows).open(encoding="utf-8", newline="") as rows:
            if job.files.format == "jsonl":
                listed = {_printable(json.loads(line)[openface_csv.FILE_COLUMN]) for line in rows}
            else:
                listed = {row[0] for row in csv.reader(rows) if row}
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise UsageError(
            f"{job.files.rows}: not as it was written ({error}); leave out --resume to replace it, "
            "or give another --output"
        ) from None
    return not any(
        _can_be_read(source.path)
        for source in job.inputs
        if source.path and _printable(str(source.path)) not in listed
    )


def _printable(name: str) -> str:
    """As tables have it: names of files may hold bytes that are no UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _can_be_read(path: Path) -> bool:
    with suppress(FaceauError):
        read_image(path)
        return True
    return False


def _run_job(
    pipeline: FacePipeline, job: Job, span: Span, failed: list[Input], total: int, show: bool
) -> Summary:
    """Predict and write one job; images that cannot be read are reported and go to ``failed``."""
    first = job.inputs[0]
    if first.is_image:
        images = _image_results(pipeline, job.inputs, failed if total > 1 else None)
        results, frames = ResultStream(images), len(job.inputs)
    elif first.path is None:
        results, frames = pipeline.live(first.camera, span), None
    else:
        video = Video(first.path)
        results, frames = pipeline.video(video, span), _expected(video, span)
    window = LiveWindow(job.name) if show else None
    shown = takewhile(lambda _: window is None or window.is_open, results)
    written = 0

    def count(result: FrameResult) -> None:
        nonlocal written
        written += 1
        advance()
        if window is not None:
            window.show(result)

    unit = "images" if first.is_image else "frames"
    with closing(results), _progress_bar(job.name, frames, unit) as advance:
        try:
            return write_results(shown, job.files, job.name, results.rate, count)
        except BaseException:
            if written and str(job.files.table) != "-":
                sys.stderr.write(f"{job.files.rows}: {written} finished {unit} are in it\n")
            raise


def _image_results(
    pipeline: FacePipeline, inputs: Sequence[Input], failed: list[Input] | None
) -> Iterator[FrameResult]:
    """The images' results, numbered; one that fails is added to ``failed``, or raises for None."""
    count = 0
    for source in inputs:
        try:
            result = pipeline.image(str(source.path))
        except FaceauError as error:
            if failed is None:
                raise
            _report_failure(source.name, error)
            failed.append(source)
            continue
        yield replace(result, frame=replace(result.frame, index=count))
        count += 1


def _report_failure(name: str, error: FaceauError) -> None:
    sys.stderr.write(f"mlx-faceau: {error}\n")
    if isinstance(error, FunctionError):
        logger.info("the traceback of %s", name, exc_info=error)


def _expected(video: Video, span: Span) -> int | None:
    if video.count is None:
        return None
    last = video.count if span.end is None else min(video.count, span.end * video.rate)
    return max(1, (int(last) - int(span.start * video.rate)) // span.every)


@contextmanager
def _progress_bar(name: str, total: int | None, unit: str) -> Iterator[Callable[[], object]]:
    """On a terminal: share done, frames a second and the time left; without tqdm nothing."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield lambda: None
        return
    # Photographs take seconds each on a busy machine; tqdm would then print "2.1s/ images".
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    with tqdm(
        desc=name, total=total, unit=f" {unit}", disable=None, leave=False, bar_format=form
    ) as bar:
        yield bar.update


def _print_summary(job: Job, summary: Summary, record: dict[str, Any]) -> None:
    """One line a job, with every file that was written; to standard error beside rows on stdout."""
    stream = sys.stderr if str(job.files.table) == "-" else sys.stdout
    frames = counted(summary.frames, "image" if job.inputs[0].is_image else "frame")
    without = f", {summary.faceless} without a face" if summary.faceless else ""
    drawn = [path for path in summary.written if path.name.endswith(".overlay.png")]
    several = set(drawn) if len(drawn) > 1 else set()  # all in one folder
    named = [path for path in summary.written if path not in several]
    files = [f"{path}/" if path.is_dir() else str(path) for path in named]
    if several:
        files.append(f"{drawn[0].with_name('*.overlay.png')} ({len(drawn)} files)")
    files = files or ["standard output"]
    models = sorted({str(model["name"]) for model in record["models"].values()})
    made_by = ", ".join([*models, f"detector {record['detector']}"])
    stream.write(f"{job.name}: {frames}{without} -> {', '.join(files)} ({made_by})\n")
    for note in summary.notes:
        sys.stderr.write(note + "\n")


def _layout(args: argparse.Namespace) -> openface_csv.Layout:
    pdm = _pdm(args)
    there = [g for g in openface_csv.GROUPS if (g != "3d" or pdm) and (g != "aus" or args.au_model)]
    groups = there if args.columns is None else [g.strip() for g in args.columns.split(",")]
    if "aus" in groups and not args.au_model:
        raise UsageError("--columns aus: there is no action unit net; give --au-model")
    return openface_csv.Layout(groups, pdm)


def _camera(text: str | None) -> Camera | None:
    if text is None:
        return None
    try:
        return Camera(*(float(value) for value in text.split(",")))
    except (TypeError, ValueError):
        raise UsageError(
            f"--camera-intrinsics {text}: expected FX,FY,CX,CY in pixels; focal lengths are "
            "positive, all are finite"
        ) from None


def _pdm(args: argparse.Namespace) -> PDM | None:
    """The PDM that is given, which must be the net's own; else the open one where that is it."""
    metadata: dict[str, Any] = {}
    with suppress(CheckpointError):  # opening the net raises it again
        files = find_files(args.landmark_model, LandmarkPoseConfig.kind).values()
        metadata = next((read_model(file) for file in files if isinstance(file, Path)), metadata)
    metadata = net_metadata(metadata, LandmarkPoseConfig.kind)
    if args.pdm is None:
        return pdm_for(metadata)
    pdm, own = read_pdm(args.pdm), pdm_of(metadata)
    if own and own["hash"] not in ("", pdm.hash):
        raise UsageError(
            f"--pdm {args.pdm}: the landmark net was trained with another one ({own['name']}, "
            f"SHA-256 {own['hash'][:12]}...); leave it out, or give that one"
        )
    return pdm


def _jobs(inputs: list[Input], args: argparse.Namespace, layout: openface_csv.Layout) -> list[Job]:
    """What to run: each video by itself, all images together; two never write one file.

    Of a shard its own jobs; their files are named by all inputs, so that shards share none.
    """
    if args.format == "json":
        raise UsageError("--format json is for --aligned; here the formats are csv, jsonl, parquet")
    ending = Path(args.output or "").suffix.lower().lstrip(".")
    if args.format and ending in FORMATS and ending != args.format:
        raise UsageError(
            f"--output {args.output}: contradicts --format {args.format}; leave one out"
        )
    if not ending and Path(args.output or "").name.lower().lstrip(".") in FORMATS:
        raise UsageError(f"--output {args.output}: has no name before its ending")
    form = args.format or (ending if ending in FORMATS else "csv")
    images = [source for source in inputs if source.is_image]
    if images and Span(args.start, args.end, args.frame_step) != WHOLE:
        if len(images) == len(inputs):
            raise UsageError("--start, --end and --frame-step are for videos, not for images")
        sys.stderr.write(
            "--start, --end and --frame-step are for the videos, images are taken whole\n"
        )
    folder_named = len(args.inputs) == 1 and Path(args.inputs[0]).is_dir()
    alone = args.file_per_image or (len(images) == 1 and not folder_named)
    by_themselves = [source for source in inputs if alone or not source.is_image]
    groups = [(source.name, Path(source.name).stem, [source]) for source in by_themselves]
    if images and not alone:
        # Named after the one folder that was given, whose name has no ending.
        name = Path(args.inputs[0]).resolve().name if folder_named else "images"
        name += "" if args.shard is None else f"-{args.shard.replace('/', '-of-')}"
        groups.append((name, name, images))
        if args.smooth or args.subtract_neutral:
            sys.stderr.write("--smooth and --subtract-neutral change videos alone, not images\n")
    stems = _distinct_stems([(name, stem) for name, stem, _ in groups], "inputs")
    taken = set(shard(inputs, args.shard))
    named = ((name, stem, group) for (name, _, group), stem in zip(groups, stems, strict=True))
    of_shard = [each for each in named if not taken.isdisjoint(each[2])]
    single = args.output == "-" or ending in FORMATS
    if single and len(of_shard) > 1:
        raise UsageError(f"--output {args.output}: {len(of_shard)} tables need a folder")
    folder = Path("." if args.output is None or single else args.output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder}: not a folder, nor a .{', .'.join(FORMATS)}")
    if ending[:1].isalpha() and not single and not folder.exists() and args.output[-1] not in "/\\":
        raise UsageError(
            f"--output {args.output}: a table ends with .{', .'.join(FORMATS)}; for a folder of "
            f"this name, write {args.output}/"
        )
    crops = args.aligned_faces
    for made in (folder, crops):
        if made:
            Path(made).mkdir(parents=True, exist_ok=True)
    jobs = []
    for name, stem, group in of_shard:
        base = Path(args.output).with_suffix("") if ending in FORMATS else folder / stem
        files = OutputFiles(
            args.output if single else Path(f"{base}.{form}"),
            form,
            replace(layout, file_column=group[0].is_image),
            overlay=_beside(base, group, taken, *_OVERLAY_ENDINGS) if args.overlay else None,
            aligned_faces=_beside(Path(crops) / base.name, group, taken) if crops else None,
            report=Path(f"{base}.report.html") if args.report else None,
            smooth=args.smooth and not group[0].is_image,
            subtract_neutral=args.subtract_neutral and not group[0].is_image,
        )
        jobs.append(Job(name, [source for source in group if source in taken], files))
    _check_inputs_stay(inputs, jobs)
    return jobs


def _check_inputs_stay(inputs: Sequence[Input], jobs: Sequence[Job]) -> None:
    drawn = {path.resolve() for job in jobs for path in _paths(job.files.overlay)}
    cut = {path.resolve() for job in jobs for path in _paths(job.files.aligned_faces)}
    for path in [source.path.resolve() for source in inputs if source.path and (drawn or cut)]:
        crop = CROP_NAME.fullmatch(path.name)
        if path in drawn or (crop and {path.parent, path.with_name(crop[1])} & cut):
            flag = "--output" if path in drawn else "--aligned-faces"
            raise UsageError(f"{path}: is an input and would be replaced; give another {flag}")


def _paths(place: Path | Mapping[str, Path] | None) -> list[Path]:
    return [place] if isinstance(place, Path) else [*(place or {}).values()]


def _beside(
    base: Path, group: list[Input], taken: set[Input], of_video: str = "", of_image: str = ""
) -> Path | dict[str, Path]:
    """The path, with its ending, of what is made of a video; or by path of each taken image.

    The only image goes by the table's name.
    """
    if not group[0].is_image:
        return Path(f"{base}{of_video}")
    stems = [base.name]
    if len(group) > 1:
        stems = _distinct_stems([(s.name, Path(s.name).stem) for s in group], "images")
    return {
        str(source.path): base.with_name(f"{stem}{of_image}")
        for source, stem in zip(group, stems, strict=True)
        if source in taken
    }


def _distinct_stems(names: Sequence[tuple[str, str]], what: str) -> list[str]:
    """Of each name its stem, both of which are given; or the name itself where stems repeat."""
    shared = Counter(_file_key(stem) for _, stem in names)
    distinct = [stem if shared[_file_key(stem)] == 1 else name for name, stem in names]
    used = Counter(map(_file_key, distinct))
    if double := next((name for name in distinct if used[_file_key(name)] > 1), None):
        raise UsageError(
            f"{double}: two {what} of this name; name each file once, and run folders separately"
        )
    return distinct


def _file_key(name: str) -> str:
    """Equal where the system takes two names for one file's."""
    if sys.platform not in ("darwin", "win32"):
        return name
    return unicodedata.normalize("NFC", name).casefold()


def _check_names(files: OutputFiles) -> None:
    """Inputs with the longest names that systems take leave no room for endings of ours."""
    crops = [path.with_name(f"{path.name}_face_00.png") for path in _paths(files.aligned_faces)]
    made = [Path(files.rows).with_suffix(".run.json"), *_paths(files.overlay), *crops]
    made += [files.report] if files.report else []
    for path in made:
        if len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise UsageError(f"{path.name}: too long a name to be written; rename the input")
