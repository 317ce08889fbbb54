"""The CSV that OpenFace's FeatureExtraction writes: columns, formats, reading.

One line a face and frame; frames without a face have a line with ``success`` 0 and zeros, as
OpenFace writes it. Header names are separated by comma and space. A table of photographs has the
name of the file in a column before the others.
"""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, NUM_AUS, PRESENCE_KEY
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import DatasetError, UsageError
from mlx_faceau.video.pose import points_3d
from mlx_faceau.video.results import FaceResult, FrameResult

NUM_LOCAL_PARAMS = 34
# OpenFace's last but one is AU28_c, lip suck: no net here predicts it, so it has no column.
PRESENCE_NAMES = tuple(name.replace("_r", "_c") for name in AU_NAMES)
# Intensity from which a unit counts as present where its net records no other: FACS level A.
PRESENCE_THRESHOLD = 1.0
_LONGEST_HEADER = 1 << 16  # characters; that of OpenFace has 8,000
FILE_COLUMN = "file"
FIRST_COLUMNS = ("frame", "face_id", "timestamp", "confidence", "success")


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}_{i}" for i in range(count)]


# Group -> its columns, in OpenFace's order (gaze, which comes first there, does not exist here).
GROUPS: dict[str, list[str]] = {
    "pose": [f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"],
    "2d": _numbered("x", NUM_LANDMARKS) + _numbered("y", NUM_LANDMARKS),
    "3d": [name for axis in "XYZ" for name in _numbered(axis, NUM_LANDMARKS)],
    "params": [
        *(f"p_{name}" for name in ("scale", "rx", "ry", "rz", "tx", "ty")),
        *_numbered("p", NUM_LOCAL_PARAMS),
    ],
    "aus": [*AU_NAMES, *PRESENCE_NAMES],
}
# What OpenFace writes where there is no face.
_ZEROS = {
    "pose": ["0.0"] * 3 + ["0.000"] * 3,
    "2d": ["0.0"] * len(GROUPS["2d"]),
    "3d": ["0.0"] * len(GROUPS["3d"]),
    "params": ["0.000"] * len(GROUPS["params"]),
    "aus": ["0.00"] * len(GROUPS["aus"]),
}


@dataclass(frozen=True)
class Layout:
    """Which columns a file has; UsageError for an unknown group, or ``3d`` without a PDM."""

    groups: Sequence[str] = ("pose", "2d", "params", "aus")  # of GROUPS, which orders them
    pdm: PDM | None = None  # of the landmark net; gives the ``3d`` group
    # (17,) intensities from which ``AUxx_c`` is 1
    presence_thresholds: Sequence[float] = (PRESENCE_THRESHOLD,) * NUM_AUS
    file_column: bool = False  # name the image of each row first, for a table of several images

    def __post_init__(self) -> None:
        unknown = set(self.groups) - GROUPS.keys()
        if unknown:
            raise UsageError(f"no column groups {sorted(unknown)}; there are {', '.join(GROUPS)}")
        if "3d" in self.groups and self.pdm is None:
            raise UsageError("the 3d columns need the PDM of the shape parameters (--pdm)")
        object.__setattr__(self, "groups", [name for name in GROUPS if name in self.groups])

    @property
    def columns(self) -> list[str]:
        """All column names in order."""
        first = [FILE_COLUMN] if self.file_column else []
        return [*first, *FIRST_COLUMNS, *(name for g in self.groups for name in GROUPS[g])]

    def header(self) -> str:
        """The file's first line."""
        return ", ".join(self.columns)

    def lines(self, result: FrameResult) -> list[str]:
        """One line a face, or the line for a frame without one."""
        return [", ".join(self._cells(result, face)) for face in result.faces or [None]]

    def _cells(self, result: FrameResult, face: FaceResult | None) -> list[str]:
        source = [quoted(result.source)] if self.file_column else []
        number, time = str(result.frame.index + 1), f"{result.frame.timestamp:.3f}"
        if face is None:
            first = [number, "0", time, "0.00", "0"]
        else:
            success = str(int(face.success))
            first = [number, str(face.face_id), time, f"{face.confidence:.2f}", success]
        return [*source, *first, *(cell for g in self.groups for cell in self._group(g, face))]

    def _group(self, group: str, face: FaceResult | None) -> list[str]:
        if face is None:
            return _ZEROS[group]
        if group == "pose":
            return [*_fixed(face.pose.position, 1), *_fixed(face.pose.angles, 3)]
        if group == "2d":
            return _fixed(face.landmarks.T, 1)
        if group == "3d" and self.pdm is not None:
            return _fixed(points_3d(face.pose, face.local_params, self.pdm).T, 1)
        if group == "params":
            return _fixed(np.r_[face.global_params, face.local_params], 3)
        if face.au_intensities is None:
            return _ZEROS["aus"]
        intensities = _fixed(face.au_intensities, 2)
        return [*intensities, *presences(intensities, self.presence_thresholds)]


def presence_thresholds(metadata: Mapping[str, Any]) -> tuple[float, ...]:
    """(17,) intensities from which the units of a net count as present, by its metadata.

    Where it records none, they are 1.
    """
    own = metadata.get(PRESENCE_KEY) or {}
    return tuple(float(own.get(name.removesuffix("_r"), PRESENCE_THRESHOLD)) for name in AU_NAMES)


def presences(intensities: Sequence[str], thresholds: Sequence[float]) -> list[str]:
    """``AUxx_c`` from ``AUxx_r`` as it is written, so that a reader can repeat the comparison."""
    both = zip(intensities, thresholds, strict=True)
    return [f"{float(float(cell) >= threshold):.2f}" for cell, threshold in both]


def quoted(text: str) -> str:
    """A cell of a CSV, in quotes where a reader needs them."""
    plain = not set(text) & set('",\n\r') and text == text.strip()
    return text if plain else '"' + text.replace('"', '""') + '"'


def _fixed(values: np.ndarray, decimals: int) -> list[str]:
    form = f"{{:z.{decimals}f}}".format  # z: no minus before a zero
    return [form(value) for value in np.asarray(values).ravel().tolist()]


def foreign_columns(path: Path) -> list[str]:
    """Columns of a text file's first line that no :class:`Layout` writes, gaze for example."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = [name.strip() for name in file.readline(_LONGEST_HEADER).split(",")]
    ours = {FILE_COLUMN, *FIRST_COLUMNS, *(name for group in GROUPS.values() for name in group)}
    return [name for name in names if name and name not in ours]


def read_openface_csv(
    path: Path | str, wanted: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Columns of an OpenFace CSV, old or new: names without spaces, (N,) float64 each.

    Only the ``wanted`` ones, as far as they exist, or all but ``file``: a long video's gaze and 3-d
    points take much memory.

    Raises:
        DatasetError: if it is missing, has no ``frame`` or ``timestamp`` column, an unequal number
            of cells in a row, or cells that are no numbers.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = (line.replace("nan(ind)", "nan") for line in file)  # as Windows writes it
            return _columns(path, csv.reader(lines, skipinitialspace=True), wanted)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a text file") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: not an OpenFace CSV: {error}") from None


def _columns(
    path: Path, reader: Iterable[list[str]], wanted: Collection[str] | None
) -> dict[str, np.ndarray]:
    rows = iter(reader)
    names = [name.strip() for name in next(rows, [])]
    if not {"frame", "timestamp"} <= set(names):
        raise DatasetError(f"{path}: not an OpenFace CSV: it lacks 'frame' and 'timestamp'")
    kept = [
        i for i, name in enumerate(names)
        if name != FILE_COLUMN and (wanted is None or name in wanted)
    ]  # fmt: skip
    values = []
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(names):
            raise DatasetError(f"{path}: line {number} has {len(row)} cells, not {len(names)}")
        try:
            values.append(np.array([row[i] for i in kept], np.float64))
        except ValueError as error:
            raise DatasetError(f"{path}: line {number}: {error}") from None
    table = np.array(values).reshape(-1, len(kept))
    return {names[column]: table[:, i] for i, column in enumerate(kept)}
