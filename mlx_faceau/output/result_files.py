"""From a stream of results to files: table, overlay, report; finished frames survive any end."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.libraries import import_library
from mlx_faceau.errors import UsageError, VideoError
from mlx_faceau.video.overlay import OverlayVideo
from mlx_faceau.video.prefetch import prefetch
from mlx_faceau.video.results import FrameResult, write_picture

from .neutral_calibration import NeutralCalibration
from .openface_csv import Layout
from .report import ImageReport, VideoReport
from .row_file import RowFile, is_complete
from .row_formats import json_lines, write_parquet
from .run_record import as_facts
from .smoothing import smoothed

FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class OutputFiles:
    """What to write of a video, or of several images.

    Args:
        table: file of rows; ``-`` is standard output.
        format: ``csv`` (OpenFace's), ``jsonl``, or ``parquet`` (written from the CSV at the end).
        layout: columns of the rows; with ``file_column`` the results are images of their own, not
            frames of one video.
        overlay: drawn video; or, by ``source`` of the result, the drawn image of each.
        aligned_faces: folder for the crops of a video's faces, ``frame_000001_face_00.png`` and so
            on; or, by ``source`` of the result, the beginning of their paths. Crops of these names
            from an earlier run are removed first.
        report: ``.html`` page; None for none.
        smooth: filter every face over time.
        subtract_neutral: subtract each person's neutral face at the end.
        record: what made the results (see :mod:`.run_record`), for the report and a file
            ``NAME.run.json`` beside the table; empty for none.

    Raises:
        UsageError: if these do not go together.
        MissingDependency: for Parquet without pyarrow.
    """

    table: Path | str
    format: str = "csv"
    layout: Layout = field(default_factory=Layout)
    overlay: Path | Mapping[str, Path] | None = None
    aligned_faces: Path | Mapping[str, Path] | None = None
    report: Path | None = None
    smooth: bool = False
    subtract_neutral: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format {self.format!r} is none of {', '.join(FORMATS)}")
        if str(self.table) == "-" and (self.subtract_neutral or self.format == "parquet"):
            raise UsageError(
                "standard output takes csv or jsonl without neutral calibration: both that and "
                "parquet are made of the finished file; give --output"
            )
        if self.subtract_neutral and "aus" not in self.layout.groups:
            raise UsageError("there are no action units to calibrate; give --au-model")
        if self.format == "parquet":
            import_library("pyarrow", "parquet")  # before long work

    @property
    def rows(self) -> Path | str:
        """The file that grows with the results: for Parquet, the CSV beside it."""
        return Path(self.table).with_suffix(".csv") if self.format == "parquet" else self.table

    @property
    def is_done(self) -> bool:
        """Whether an earlier run finished it, with the report and the overlay asked for.

        Of images one drawn one suffices: those that cannot be read have none.
        """
        if not (is_complete(Path(self.rows)) and Path(self.table).is_file()):
            return False
        if self.report is not None and not self.report.is_file():
            return False
        drawn = self.overlay
        if isinstance(drawn, Mapping):
            return any(path.is_file() for path in drawn.values())
        return drawn is None or drawn.is_file()


@dataclass
class Summary:
    """What was read and written."""

    frames: int = 0
    faces: int = 0
    faceless: int = 0
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def write_results(
    results: Iterable[FrameResult],
    files: OutputFiles,
    title: str,
    rate: float = 30.0,
    progress: Callable[[FrameResult], None] = lambda _: None,
) -> Summary:
    """Consume results and write files of them.

    The results are computed in a thread of their own while rows and overlays are written.

    Args:
        results: of one video or camera, or of several images.
        files: what to write.
        title: heading of the report.
        rate: frames a second of the overlay.
        progress: called after each written frame.

    Raises:
        OSError: if a file cannot be written; rows written before stay.
        VideoError: from the source or the overlay, likewise; or if there is no frame.
    """
    summary = Summary()
    images = files.layout.file_column
    about = as_facts(files.record) if files.record else {}
    calibration = NeutralCalibration() if files.subtract_neutral else None
    report = (ImageReport if images else VideoReport)(title, about) if files.report else None
    csv = files.format != "jsonl"
    with prefetch(smoothed(results) if files.smooth else iter(results)) as ready:
        first = next(ready, None)  # before any older result is replaced
        if first is None:
            raise VideoError(f"{title}: there is no frame in the part asked for")
        with (
            RowFile(files.rows, files.layout.header() if csv else None) as rows,
            _overlay(files.overlay, rate, summary.written) as add_overlay,
        ):
            if files.aligned_faces is not None:
                summary.written.append(_prepare_crops(files.aligned_faces))
            if files.record and rows.path is not None:
                record_path = rows.path.with_suffix(".run.json")
                with atomic_file(record_path) as temporary:
                    temporary.write_text(json.dumps(files.record, indent=1) + "\n", "utf-8")
                summary.written.append(record_path)
            for result in itertools.chain([first], ready):
                rows.write(files.layout.lines(result) if csv else json_lines(result, files.layout))
                add_overlay(result)
                if files.aligned_faces is not None:
                    _write_crops(result, files.aligned_faces)
                if calibration is not None:
                    calibration.add(result)
                if report is not None:
                    report.add(result)
                summary.frames += 1
                summary.faces += len(result.faces)
                summary.faceless += not result.faces
                progress(result)
            _finish(files, calibration, report, summary)
    if calibration is not None:
        summary.notes += [f"{title}: {note}" for note in calibration.notes()]
    return summary


def _finish(
    files: OutputFiles,
    calibration: NeutralCalibration | None,
    report: VideoReport | ImageReport | None,
    summary: Summary,
) -> None:
    """What needs all rows; until it is done the table counts as unfinished."""
    if calibration is not None and files.format == "jsonl":
        calibration.rewrite_jsonl(Path(files.rows))
    elif calibration is not None:
        calibration.rewrite_csv(Path(files.rows), files.layout.presence_thresholds)
    if report is not None and files.report is not None:
        if isinstance(report, VideoReport):
            report.write(files.report, calibration)
        else:
            report.write(files.report)
        summary.written.insert(0, files.report)
    if str(files.table) == "-":
        return
    if files.format == "parquet":
        write_parquet(Path(files.rows), Path(files.table), files.record)
        summary.written.insert(0, Path(files.table))
    summary.written.insert(0, Path(files.rows))


def _prepare_crops(target: Path | Mapping[str, Path]) -> Path:
    """Make the folder of the crops, without those of an earlier run; returns the folder."""
    images = set() if isinstance(target, Path) else {start.name for start in target.values()}
    folder = target if isinstance(target, Path) else next(iter(target.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        crop = re.fullmatch(r"(.+)_face_\d{2,}\.png", path.name)
        if crop and (crop[1] in images or (not images and re.fullmatch(r"frame_\d{6,}", crop[1]))):
            path.unlink()
    return folder


def _write_crops(result: FrameResult, target: Path | Mapping[str, Path]) -> None:
    """The aligned crops of a frame's faces; the names sort by frame and face."""
    number = result.frame.index + 1
    start = target / f"frame_{number:06}" if isinstance(target, Path) else target[result.source]
    for face, crop in zip(result.faces, result.aligned_faces(), strict=True):
        write_picture(start.with_name(f"{start.name}_face_{face.face_id:02}.png"), crop)


@contextlib.contextmanager
def _overlay(
    overlay: Path | Mapping[str, Path] | None, rate: float, written: list[Path]
) -> Iterator[Callable[[FrameResult], None]]:
    """What draws a result into the overlay; the files it writes are appended to ``written``."""
    if overlay is None:
        yield lambda _: None
    elif isinstance(overlay, Path):
        with OverlayVideo(overlay, rate) as video:
            yield video.add
        written.append(overlay)
    else:

        def write(result: FrameResult) -> None:
            write_picture(overlay[result.source], result.draw())
            written.append(overlay[result.source])

        yield write
