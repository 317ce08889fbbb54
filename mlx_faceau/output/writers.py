"""Result files that grow a frame at a time: whatever ends the program, finished frames stay.

While a file grows, a marker ``NAME.incomplete`` lies beside it; it goes when the file is complete.
So a later run can tell which results are done (``--resume``).
"""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.libraries import LOAD_ERRORS, load_error
from mlx_faceau.video.results import FaceResult, FrameResult

from .openface_csv import Layout
from .output_lock import Claim


def marker_of(path: Path) -> Path:
    """The file that says that ``path`` is still growing, or was left unfinished."""
    return path.with_name(path.name + ".incomplete")


def is_complete(path: Path) -> bool:
    """Whether a result is there and was finished."""
    return path.is_file() and not marker_of(path).exists()


class RowFile:
    """A text file of results; every frame's lines reach the system in one write.

    A write that fails (a full disk) takes back what it left of its lines, so that the file ends
    with a finished frame. Leaving the block without an error marks the file complete.

    Args:
        path: replaced if it exists; ``-`` is standard output.
        header: first line, or None.

    Raises:
        OSError: if the file cannot be written, or another program is writing it.
    """

    def __init__(self, path: Path | str, header: str | None = None) -> None:
        self.path = None if str(path) == "-" else Path(path)
        self._file: IO[bytes]
        self._claim: Claim | None = None
        if self.path is None:
            self._file = sys.stdout.buffer
        else:
            if not self.path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such folder", str(self.path.parent))
            # First the marker: an empty file without one would count as complete.
            self._claim = Claim(marker_of(self.path), self.path)
            try:
                self._file = self.path.open("wb", buffering=0)
            except OSError:
                self._claim.settle()
                raise
        if header is not None:
            self.write([header])

    def write(self, lines: list[str]) -> None:
        """Append lines, all or none.

        Raises:
            OSError: if there is no room, or standard output was closed.
        """
        data = "".join(line + "\n" for line in lines).encode()
        if self.path is None:
            self._file.write(data)
            self._file.flush()
            return
        start = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), start)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._claim is not None:
            self._file.close()
            self._claim.settle() if kind is None else self._claim.leave()


def json_lines(found: FrameResult, layout: Layout) -> list[str]:
    """One JSON object a face, or one with ``"face_id": null`` where there is none.

    Keys are those of the Python API; pose in millimetres and radians, the rest in pixels of the
    displayed frame, whose width and height are ``image_size``.
    """
    frame = found.frame
    height, width = frame.image.shape[:2]
    first = {
        "frame": frame.index + 1,
        "timestamp": round(frame.timestamp, 6),
        "image_size": [width, height],
    }
    if not found.faces:
        return [json.dumps({**first, "face_id": None, "success": False, "confidence": 0.0})]
    return [json.dumps({**first, **_plain(face, layout)}) for face in found.faces]


def _plain(face: FaceResult, layout: Layout) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "face_id": face.face_id,
        "confidence": round(face.confidence, 4),
        "success": face.success,
    }
    if "pose" in layout.groups:
        plain["position_mm"] = _rounded(face.pose.position)
        plain["angles"] = _rounded(face.pose.angles)
    if "2d" in layout.groups:
        plain["landmarks"] = _rounded(face.landmarks)
    if "params" in layout.groups:
        plain["global_params"] = _rounded(face.global_params)
        plain["local_params"] = _rounded(face.local_params)
    if "aus" in layout.groups and face.au_intensities is not None:
        plain["au_intensities"] = dict(zip(AU_NAMES, _rounded(face.au_intensities), strict=True))
    return plain


def _rounded(values: np.ndarray) -> Any:
    return np.round(np.asarray(values, np.float64), 4).tolist()


def write_parquet(csv_path: Path, path: Path) -> None:
    """A finished CSV as Parquet: names without spaces, block by block.

    Raises:
        MissingDependency: if pyarrow is not installed.
        OSError: if it cannot be written; a half-written file does not stay.
    """
    try:
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet
    except LOAD_ERRORS as error:
        raise load_error(error, "pyarrow", "parquet") from None
    with csv_path.open() as file:
        names = [name.strip() for name in file.readline().split(",")]
    reader = arrow_csv.open_csv(
        csv_path,
        read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
        parse_options=arrow_csv.ParseOptions(delimiter=","),
        convert_options=arrow_csv.ConvertOptions(column_types=_types(names)),
    )
    with atomic_file(path) as temporary, parquet.ParquetWriter(temporary, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _types(names: list[str]) -> dict[str, str]:
    whole = {"frame", "face_id", "success"}
    return {name: "int64" if name in whole else "float64" for name in names}


@contextlib.contextmanager
def rewriting(path: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """The old and the new text of a file that is replaced when the block ends well."""
    with path.open() as old, atomic_file(path) as temporary, temporary.open("w") as new:
        yield old, new
