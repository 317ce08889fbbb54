"""From a stream of results to files: table, overlay, report; finished frames survive any end."""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file, write_json
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.libraries import import_library
from mlx_faceau.errors import UsageError, VideoError
from mlx_faceau.video.overlay import OverlayVideo
from mlx_faceau.video.prefetch import prefetch
from mlx_faceau.video.results import FrameResult, write_picture

from .neutral_calibration import NeutralCalibration
from .openface_csv import FILE_COLUMN, Layout
from .report import ImageReport, VideoReport
from .row_file import RowFile
from .run_record import as_facts
from .smoothing import smoothed

FORMATS = ("csv", "jsonl", "parquet")
CROP_NAME = re.compile(r"(.+)_face_\d{2,}\.png")  # of an image, or of a frame


@dataclass(frozen=True)
class OutputFiles:
    """What to write of a video, or of several images; UsageError if it does not go together."""

    table: Path | str  # file of rows; ``-`` is standard output
    format: str = "csv"  # OpenFace's; or ``jsonl``, or ``parquet``, made of the CSV at the end
    # With ``file_column`` the results are images of their own, not frames of one video.
    layout: Layout = field(default_factory=Layout)
    # The drawn video; or, by ``source`` of the result, the drawn image of each.
    overlay: Path | Mapping[str, Path] | None = None
    # Folder for the crops of a video's faces, ``frame_000001_face_00.png`` and so on; or, by
    # ``source`` of the result, the beginning of their paths. Older crops of these names go first.
    aligned_faces: Path | Mapping[str, Path] | None = None
    report: Path | None = None  # ``.html`` page
    smooth: bool = False  # filter every face over time
    subtract_neutral: bool = False  # subtract each person's neutral face at the end
    # What made the results, see .run_record: for the report and ``NAME.run.json`` by the table.
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format {self.format!r} is none of {', '.join(FORMATS)}")
        if str(self.table) == "-" and (self.subtract_neutral or self.format == "parquet"):
            raise UsageError(
                "standard output takes csv or jsonl without neutral calibration: both that and "
                "parquet are made of the finished file; give --output"
            )
        if self.subtract_neutral and self.layout.file_column:
            raise UsageError("a neutral face is subtracted of a video, not of single images")
        if self.subtract_neutral and "aus" not in self.layout.groups:
            raise UsageError("there are no action units to calibrate; give --au-model")
        if self.format == "parquet" and Path(self.rows) == Path(self.table):
            raise UsageError(f"{self.table}: the CSV beside it has this name; end it with .parquet")
        # Before long work.
        if self.format == "parquet":
            import_library("pyarrow", "parquet")
        if self.report is not None:
            import_library("jinja2")
            import_library("matplotlib")

    @property
    def rows(self) -> Path | str:
        """The file that grows with the results: for Parquet, the CSV beside it."""
        return Path(self.table).with_suffix(".csv") if self.format == "parquet" else self.table


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
    """Consume the results of one video or camera, or of several images, and write files of them.

    They are computed in a thread of their own while rows and overlays are written. ``title`` heads
    the report, ``rate`` is the overlay's frames a second; ``progress`` is called after each frame.

    Raises:
        OSError: if a file cannot be written; rows written before stay.
        VideoError: from the source or the overlay, likewise; or if there is no frame.
    """
    summary = Summary()
    about = as_facts(files.record) if files.record else {}
    calibration = NeutralCalibration() if files.subtract_neutral else None
    report: ImageReport | VideoReport = VideoReport(title, about, calibration)
    if files.layout.file_column:
        report = ImageReport(title, about)
    csv = files.format != "jsonl"
    with prefetch(smoothed(results) if files.smooth else iter(results)) as ready:
        first = next(ready, None)  # before any older result is replaced
        if first is None:
            raise VideoError(f"{title}: there is no frame in the part asked for")
        drawn = OverlayVideo(files.overlay, rate) if isinstance(files.overlay, Path) else None
        with (
            RowFile(files.rows, files.layout.header() if csv else None) as rows,
            drawn or contextlib.nullcontext(),
        ):
            if files.aligned_faces is not None:
                summary.written.append(_prepare_crops(files.aligned_faces))
            if files.record and rows.path is not None:
                record_path = rows.path.with_suffix(".run.json")
                write_json(record_path, files.record)
                summary.written.append(record_path)
            for result in itertools.chain([first], ready):
                rows.write(files.layout.lines(result) if csv else json_lines(result, files.layout))
                if drawn is not None:
                    drawn.add(result)
                elif isinstance(files.overlay, Mapping):
                    path = files.overlay[result.source]
                    write_picture(path, result.draw())
                    summary.written.append(path)
                if files.aligned_faces is not None:
                    _write_crops(result, files.aligned_faces)
                if calibration is not None:
                    calibration.add(result)
                if files.report is not None:
                    report.add(result)
                summary.frames += 1
                summary.faces += len(result.faces)
                summary.faceless += not result.faces
                progress(result)
            rows.end()
            if calibration is not None:
                calibration.rewrite(Path(files.rows), files.layout, csv)
                summary.notes = [f"{title}: {note}" for note in calibration.notes()]
            if files.report is not None:
                report.write(files.report)
            parquet = Path(files.table) if files.format == "parquet" else None
            if parquet is not None:
                _write_parquet(Path(files.rows), parquet, files.record)
    first_named = (rows.path, parquet, files.report)
    summary.written[:0] = [path for path in first_named if path is not None]
    if drawn is not None:
        summary.written.append(drawn.path)
    return summary


def _prepare_crops(target: Path | Mapping[str, Path]) -> Path:
    """The crops' folder, made where it is missing, without those of an earlier run."""
    images = set() if isinstance(target, Path) else {start.name for start in target.values()}
    folder = target if isinstance(target, Path) else next(iter(target.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        crop = CROP_NAME.fullmatch(path.name)
        if crop and (crop[1] in images or (not images and re.fullmatch(r"frame_\d{6,}", crop[1]))):
            path.unlink()
    return folder


def _write_crops(result: FrameResult, target: Path | Mapping[str, Path]) -> None:
    number = result.frame.index + 1
    start = target / f"frame_{number:06}" if isinstance(target, Path) else target[result.source]
    for face, crop in zip(result.faces, result.aligned_faces(), strict=True):
        write_picture(start.with_name(f"{start.name}_face_{face.face_id:02}.png"), crop)


def json_lines(result: FrameResult, layout: Layout) -> list[str]:
    """One JSON object a face, or one with ``"face_id": null`` where there is none.

    Keys are those of the Python API; pose in millimetres and radians, the rest in pixels of the
    displayed frame, whose width and height are ``image_size``.
    """
    frame = result.frame
    height, width = frame.image.shape[:2]
    first: dict[str, Any] = {FILE_COLUMN: result.source} if layout.file_column else {}
    first |= {
        "frame": frame.index + 1,
        "timestamp": round(frame.timestamp, 6),
        "image_size": [width, height],
    }
    if not result.faces:
        return [json.dumps({**first, "face_id": None, "success": False, "confidence": 0.0})]
    lines = []
    for face in result.faces:
        values: dict[str, Any] = {
            "face_id": face.face_id,
            "confidence": round(face.confidence, 4),
            "success": face.success,
        }
        if "pose" in layout.groups:
            values["position_mm"] = _rounded(face.pose.position)
            values["angles"] = _rounded(face.pose.angles)
        if "2d" in layout.groups:
            values["landmarks"] = _rounded(face.landmarks)
        if "params" in layout.groups:
            values["global_params"] = _rounded(face.global_params)
            values["local_params"] = _rounded(face.local_params)
        if "aus" in layout.groups and face.au_intensities is not None:
            units = _rounded(face.au_intensities)
            values["au_intensities"] = dict(zip(AU_NAMES, units, strict=True))
        lines.append(json.dumps({**first, **values}))
    return lines


def _rounded(values: np.ndarray) -> Any:
    return (np.round(np.asarray(values, np.float64), 4) + 0.0).tolist()  # no minus before a zero


def _write_parquet(csv_path: Path, path: Path, record: Mapping[str, Any]) -> None:
    """A finished CSV as Parquet: names without spaces, block by block, whole or not at all.

    The record of what made it (see :mod:`.run_record`) is kept in the file's metadata.
    """
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    types = {"frame": "int64", "face_id": "int64", "success": "int64", FILE_COLUMN: "string"}
    with csv_path.open("rb") as rows:  # given open: pyarrow takes no name that is not UTF-8
        names = [name.strip() for name in rows.readline().decode().split(",")]
        rows.seek(0)
        reader = arrow_csv.open_csv(
            rows,
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=FILE_COLUMN in names),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: types.get(name, "float64") for name in names}
            ),
        )
        schema = reader.schema.with_metadata({"mlx-faceau": json.dumps(record)})
        with (
            atomic_file(path) as temporary,
            temporary.open("wb") as file,
            parquet.ParquetWriter(file, schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)
