"""From a stream of results to files: rows, overlay, report; finished frames survive any end."""

import contextlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_faceau.errors import BrokenLibrary, MissingDependency, UsageError, VideoError
from mlx_faceau.video.overlay import VIDEO_SUFFIXES, OverlayVideo
from mlx_faceau.video.prefetch import prefetch
from mlx_faceau.video.results import FrameResult, write_picture

from .neutral_calibration import NeutralBaseline
from .openface_csv import Layout
from .report import Report
from .smoothing import smoothed
from .writers import RowFile, is_complete, json_lines, write_parquet

FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class Wanted:
    """What to make of a recording.

    Args:
        table: file of rows; ``-`` is standard output.
        form: ``csv`` (OpenFace's), ``jsonl``, or ``parquet`` (written from the CSV at the end).
        layout: columns of the rows.
        overlay: drawn video (``.mp4``), or picture for a single frame; None for none.
        report: ``.html`` page; None for none.
        smooth: filter every face over time.
        calibrate: subtract each person's resting face at the end.
        about: what made it, for the report.

    Raises:
        ValueError: if these do not go together.
    """

    table: Path | str
    form: str = "csv"
    layout: Layout = field(default_factory=Layout)
    overlay: Path | None = None
    report: Path | None = None
    smooth: bool = False
    calibrate: bool = False
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"format {self.form!r} is none of {', '.join(FORMATS)}")
        if str(self.table) == "-" and (self.calibrate or self.form == "parquet"):
            raise UsageError(
                "standard output takes csv or jsonl without calibration: both that and parquet "
                "are made of the finished file; give --output"
            )
        if self.calibrate and "aus" not in self.layout.groups:
            raise UsageError("there are no action units to calibrate; give --au-model")

    @property
    def rows(self) -> Path | str:
        """The file that grows with the recording: for Parquet, the CSV beside it."""
        return Path(self.table).with_suffix(".csv") if self.form == "parquet" else self.table

    @property
    def is_done(self) -> bool:
        """Whether an earlier recording finished it; without pyarrow the CSV is all there is."""
        if not is_complete(Path(self.rows)):
            return False
        return Path(self.table).is_file() or importlib.util.find_spec("pyarrow") is None


@dataclass
class Summary:
    """What a recording came to."""

    frames: int = 0
    faces: int = 0
    faceless: int = 0
    notes: list[str] = field(default_factory=list)


def record(
    results: Iterable[FrameResult],
    wanted: Wanted,
    title: str,
    rate: float = 30.0,
    progress: Callable[[FrameResult], None] = lambda _: None,
) -> Summary:
    """Consume results and write what is wanted of them.

    The results are computed in a thread of their own while rows and pictures are written.

    Args:
        results: of one video, camera or picture.
        wanted: what to write.
        title: heading of the report.
        rate: frames a second of the overlay.
        progress: called after each written frame.

    Raises:
        OSError: if a file cannot be written; rows written before stay.
        VideoError: from the source or the overlay, likewise; or if there is no frame.
    """
    summary = Summary()
    baseline = NeutralBaseline() if wanted.calibrate else None
    report = Report(title, wanted.about) if wanted.report else None
    is_csv = wanted.form != "jsonl"
    header = wanted.layout.header() if is_csv else None
    lines = wanted.layout.lines if is_csv else lambda found: json_lines(found, wanted.layout)
    with prefetch(smoothed(results) if wanted.smooth else results) as ready:
        first = next(ready, None)  # before any older result is replaced
        if first is None:
            raise VideoError(f"{title}: there is no frame in what is wanted of it")
        with (
            RowFile(wanted.rows, header) as rows,
            _overlay(wanted.overlay, rate) as add_overlay,
        ):
            for found in itertools.chain([first], ready):
                rows.write(lines(found))
                add_overlay(found)
                if baseline is not None:
                    baseline.add(found)
                if report is not None:
                    report.add(found)
                _count(summary, found)
                progress(found)
            _finish(wanted, baseline, report, summary)
    if baseline is not None:
        summary.notes += [f"{title}: {note}" for note in baseline.notes()]
    return summary


def _count(summary: Summary, found: FrameResult) -> None:
    summary.frames += 1
    summary.faces += len(found.faces)
    summary.faceless += not found.faces


def _finish(
    wanted: Wanted, baseline: NeutralBaseline | None, report: Report | None, summary: Summary
) -> None:
    """What can be made of all rows only; until it is done the rows count as unfinished."""
    if baseline is not None and wanted.form == "jsonl":
        baseline.rewrite_jsonl(Path(wanted.rows))
    elif baseline is not None:
        baseline.rewrite_csv(Path(wanted.rows), wanted.layout.presence_from)
    if wanted.form == "parquet":
        try:
            write_parquet(Path(wanted.rows), Path(wanted.table))
        except (MissingDependency, BrokenLibrary) as error:
            summary.notes.append(f"{wanted.rows} stays as it is, no Parquet file: {error}")
    if report is not None and wanted.report is not None:
        report.write(wanted.report, baseline)


@contextlib.contextmanager
def _overlay(path: Path | None, rate: float) -> Iterator[Callable[[FrameResult], None]]:
    if path is None:
        yield lambda _: None
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        with OverlayVideo(path, rate) as video:
            yield video.add
    else:
        yield lambda found: write_picture(path, found.draw())
