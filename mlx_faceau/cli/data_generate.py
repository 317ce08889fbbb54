"""``mlx-faceau data generate``: training files from videos and photographs."""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import DatasetError, UsageError, counted

if TYPE_CHECKING:
    from mlx_faceau.data.labels.generate import VideoReport
    from mlx_faceau.data.labels.generate_files import InputFile

HELP = (
    "make a training file from videos or photographs with labels; run it again to continue after "
    "an interruption or to add files"
)


def add_arguments(option: Callable[..., argparse.Action]) -> None:
    option("videos", nargs="+", metavar="INPUT", help="videos, photographs, folders or patterns")
    option("--output", required=True, metavar="FILE", help="HDF5 file to write")
    option(
        "--labels",
        default="auto",
        metavar="NAME",
        help="openface-csv (NAME.csv beside each video), mediapipe (--label-model), pyfaceau, "
        "callable:package.module:function or auto: a CSV, else mediapipe where its model is given, "
        "else pyfaceau (default: auto)",
    )
    option(
        "--label-model",
        metavar="FILE",
        help="MediaPipe's face_landmarker.task (float16, version 1)",
    )
    option(
        "--frame-step", type=int, default=1, metavar="N", help="take every Nth frame (default: 1)"
    )
    option("--workers", type=int, default=1, metavar="N", help="number of processes (default: 1)")
    option("--pdm", metavar="FILE", help="shape model (PDM) to check or fit the parameters with")
    option("--subjects", metavar="CSV", help="the person of each file: lines 'file,subject'")
    option("--report", metavar="CSV", help="table of what became of each file")
    option(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="which faces are kept: min_confidence, min_size, min_sharpness, min_brightness, "
        "max_brightness, max_clipped, max_turn, max_landmark_error, min_change or min_quality; "
        "'--limit help' explains them",
    )


def run(args: argparse.Namespace) -> int:
    from mlx_faceau.data.labels.face_labels import is_photograph
    from mlx_faceau.data.labels.generate_files import GeneratorSettings, generate_file
    from mlx_faceau.data.labels.quality import Limits

    if "help" in args.limit:
        for limit in fields(Limits):
            print(f"{limit.name:20}{limit.default!s:>7}  {limit.metadata['help']}")
        return 0
    if args.report:
        _check_report(Path(args.report), Path(args.output))
    settings = GeneratorSettings(
        args.labels, args.frame_step, args.pdm, _limits(args.limit), args.label_model
    )
    subjects = _read_subjects(Path(args.subjects)) if args.subjects else {}
    inputs = _inputs(_find_files(args), subjects)
    if args.subjects and (unnamed := [file.name for file in inputs if file.subject is None]):
        shown = ", ".join(unnamed[:3]) + ", ..." * (len(unnamed) > 3)
        line = f"no subject of {len(unnamed)} of {counted(len(inputs), 'file')} ({shown})"
        print(f"{args.subjects}: {line}: each counts as another person", file=sys.stderr)
    with _progress(len(inputs)) as progress:
        reports = generate_file(inputs, settings, Path(args.output), args.workers, progress)
    if args.report:
        _write_report(Path(args.report), reports)
    photographs, told = [], set[str]()
    for file, report in zip(inputs, reports, strict=True):
        if is_photograph(file.path):
            photographs.append(report)
        else:
            _print_report(report, told)
    if photographs:
        print(_photograph_summary(photographs, Path(args.output).with_suffix(".misses.csv")))
    for licence in sorted({report.licence for report in reports if report.licence}):
        print(f"note: {licence}", file=sys.stderr)
    kept, failed = sum(report.kept for report in reports), [r for r in reports if r.error]
    kind = "photograph" if len(photographs) == len(reports) else "file" if photographs else "video"
    if kept == 0:
        raise DatasetError(f"{args.output}: not written, no {kind} gave a sample")
    used = sum(report.final for report in reports)
    line = f"{args.output}: {counted(kept, 'sample')} of {counted(used, kind)}"
    sampled = [file for file, report in zip(inputs, reports, strict=True) if report.kept]
    if copies := _copies(sampled):
        shown = ", ".join(copies[:3]) + ", ..." * (len(copies) > 3)
        line += f"; copies that add no new face: {shown}"
    print(line)
    if failed:
        partly = ", or not to its end" if any(report.kept for report in failed) else ""
        total = counted(len(reports), kind)
        print(f"{len(failed)} of {total} could not be used{partly}", file=sys.stderr)
    return 1 if failed else 0


def _limits(texts: Sequence[str]) -> Any:
    from mlx_faceau.data.labels.quality import Limits

    known = {limit.name for limit in fields(Limits)}
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            raise UsageError(f"--limit {text}: expected NAME=VALUE, such as min_size=60") from None
        if name not in known:
            raise UsageError(f"--limit {text}: there are {', '.join(sorted(known))}")
    return Limits(**values)


def _find_files(args: argparse.Namespace) -> list[Path]:
    from mlx_faceau.video.images import IMAGE_SUFFIXES
    from mlx_faceau.video.reader import VIDEO_SUFFIXES

    from .inputs import find_inputs

    # OpenFace's CSV belongs to videos; the open labeller labels images too.
    csv_alone = args.labels in ("openface-csv", "auto") and args.label_model is None
    kinds = VIDEO_SUFFIXES if csv_alone else (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)
    found = [source.path for source in find_inputs(args.videos, kinds) if source.path]
    # Patterns match other files too; a file that is named itself is tried whatever it is.
    named = {Path(name) for name in args.videos}
    return [path for path in found if path in named or path.suffix.lower() in kinds]


def _read_subjects(path: Path) -> dict[str, str]:
    """The table's subjects by file; DatasetError if a file has two."""
    from mlx_faceau.data.format.identity import read_pairs

    subjects: dict[str, str] = {}
    for line, (name, subject) in read_pairs(path, "file,subject").items():
        other = subjects.setdefault(Path(name).as_posix(), subject)
        if other != subject:
            raise DatasetError(
                f"{path}: line {line}: {name} is {subject}, and {other} above; name files of one "
                "name with their folders"
            )
    return subjects


def _inputs(paths: Sequence[Path], subjects: dict[str, str]) -> list["InputFile"]:
    """Inputs named by their file names, or by their paths where two have one name.

    The table of subjects may name a file with or without its folders and its ending.
    """
    from mlx_faceau.data.labels.generate_files import InputFile

    if not paths:
        raise UsageError("no videos or photographs among the inputs")
    names, inputs = Counter(path.name for path in paths), []
    for path in paths:
        name = path.name if names[path.name] == 1 else path.as_posix()
        name = name.encode(errors="backslashreplace").decode()  # HDF5 takes UTF-8 alone
        parts = path.absolute().parts
        tails = [Path(*parts[first:]) for first in range(len(parts))] if subjects else []
        known = [name, *(each.as_posix() for t in tails for each in (t, t.with_suffix("")))]
        subject = next((subjects[each] for each in known if each in subjects), None)
        inputs.append(InputFile(path, name, subject))
    return inputs


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """One line on a terminal: finished files, frames, frames a second."""
    from tqdm import tqdm

    form = "{desc}, {n_fmt} frames, {rate_noinv_fmt}, {elapsed}"
    hidden = not sys.stderr.isatty()
    with tqdm(unit=" frames", bar_format=form, delay=0.1, disable=hidden) as bar:

        def show(files: int, frames: int) -> None:
            bar.set_description_str(f"{files}/{total} files", refresh=False)
            bar.update(frames - bar.n)

        yield show


def _print_report(report: "VideoReport", told: set[str]) -> None:
    """Print a video's result; the remedy of a problem only once, with the first that has it."""
    problem = report.error.partition("; ")[0]
    error = problem if problem in told else report.error
    told.add(problem)
    if error and not report.kept:
        print(f"{report.video}: {error}")
        return
    parts = [f"{counted(report.kept, 'sample')} of {counted(report.frames, 'frame')}"]
    if report.damaged:
        parts.append(f"{report.damaged} unreadable")
    if report.faceless:
        parts.append(f"{report.faceless} without a face")
    parts += [f"{count} dropped ({name})" for name, count in report.dropped.most_common()]
    print(f"{report.video}: {', '.join(parts)}")
    if error:
        print(f"{report.video}: ended early: {error}")


def _photograph_summary(reports: Sequence["VideoReport"], path: Path) -> str:
    """Write which photographs gave no sample, and why; return a line about all."""
    misses = [(report.video, report.miss) for report in reports if report.miss]
    kept = counted(sum(report.kept for report in reports), "sample")
    without = f"{counted(len(misses), 'photograph')} without one"
    line = f"{counted(len(reports), 'photograph')}: {kept}, {without}"
    if not misses:
        path.unlink(missing_ok=True)  # of an earlier run
        return line
    _write_csv(path, [("file", "reason"), *misses])
    # Remedies may name the file: what is counted is the problem, shown with its first remedy.
    whole = {reason.partition("; ")[0]: reason for _, reason in misses[::-1]}
    problems = Counter(reason.partition("; ")[0] for _, reason in misses).most_common(3)
    summary = ", ".join(f"{whole[problem]}: {count}" for problem, count in problems)
    return f"{line} (listed in {path}; {summary})"


def _copies(files: Sequence["InputFile"]) -> list[str]:
    """``"NAME = FIRST"`` for each file that has the same bytes as one before it."""
    from mlx_faceau.core.checkpoint import file_hash

    sizes = [file.path.stat().st_size for file in files]
    repeated = Counter(sizes)
    first: dict[str, str] = {}
    found = []
    for file, size in zip(files, sizes, strict=True):
        if repeated[size] > 1:
            original = first.setdefault(file_hash(file.path), file.name)
            if original != file.name:
                found.append(f"{file.name} = {original}")
    return found


_REPORT = ("video", "labeller", "frames", "damaged", "faceless", "kept", "error")  # its columns


def _check_report(path: Path, output: Path) -> None:
    """Refuse, before the work, what is no report of an earlier run, such as OpenFace's labels."""
    from mlx_faceau.data.format.row_io import check_folder

    if path.resolve() == output.resolve():
        raise UsageError(f"--report {path}: is --output too; name another file")
    check_folder(path)
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            ours = file.readline().startswith(",".join(_REPORT).encode())
        if not ours:
            raise UsageError(f"{path}: exists, and is not a report; choose another name or move it")


def _write_report(path: Path, reports: Sequence["VideoReport"]) -> None:
    limits = sorted({name for report in reports for name in report.dropped})
    rows = [
        [getattr(report, name) for name in _REPORT] + [report.dropped[name] for name in limits]
        for report in reports
    ]
    _write_csv(path, [[*_REPORT, *(f"dropped_{name}" for name in limits)], *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    from mlx_faceau.core.atomic_io import atomic_file

    with atomic_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
