"""Labels from the CSV that OpenFace wrote for a video: no model is needed.

FeatureExtraction and FaceLandmarkVidMulti, OpenFace 1 and 2: with or without spaces, ``face_id``
and the groups that are not needed. A ``.hog`` file beside it, of the same name, gives HOG features.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.data.format.columns import HOG_SIZE
from mlx_faceau.errors import DatasetError
from mlx_faceau.output.openface_csv import FIRST_COLUMNS, GROUPS, read_openface_csv
from mlx_faceau.video.reader import Video
from mlx_faceau.video.results import Frame

from .face_labels import FaceLabels, Labels, is_photograph

_LOG = logging.getLogger(__name__)

LICENCE = (
    "labels of OpenFace: academic or non-profit, non-commercial research only (its licence), and "
    "so are nets trained on them"
)
_FLAGS = {"2d": "-2Dfp", "aus": "-aus"}  # of FeatureExtraction, which writes the group
# Points whose 3-d places give the image's centre: of the face's outline, the brows, nose and eyes.
_SIZED = (0, 8, 16, 21, 30, 36, 45)
_SPACE = [f"{axis}_{i}" for axis in "XYZ" for i in _SIZED]
_USED = {*FIRST_COLUMNS, *GROUPS["2d"], *GROUPS["params"], *AU_NAMES, *_SPACE}
_MAX_LATE = 0.6  # frames between a frame's time and its number, before frames may be missing
_OTHER_COUNT = 2  # frames by which the CSV of a video may be longer or shorter: decoders differ
_OTHER_LENGTH = 0.02  # share of the frames by which it is of another video, if no sample came of it
_LARGEST = 2**31 - 1  # number of a frame or face
_INSIDE = 0.5  # share of the points that must lie in the frame
_OFF_CENTRE = 0.15  # share of half the frame's size by which a camera's centre may lie beside it


def find_csv(video: Path) -> Path | None:
    """The CSV of a video: ``NAME.EXT.csv``, ``NAME.openface.csv`` or ``NAME.csv`` beside it, or in
    the folder ``processed`` there, where OpenFace writes it; None if there is none.

    Tables of ``mlx-faceau predict``, known by the record beside them, are passed over.
    """
    names = (f"{video.name}.csv", f"{video.stem}.openface.csv", f"{video.stem}.csv")
    folders = (video.parent, video.parent / "processed")
    paths = [folder / name for folder in folders for name in names if (folder / name).is_file()]
    for path in filter(_is_result, paths):
        _LOG.warning("%s: results of 'mlx-faceau predict', not taken as labels", path)
    return next((path for path in paths if not _is_result(path)), None)


def label_time(video: Path) -> float:
    """When the CSV of a video, or its ``.hog``, was written or put there; 0 without one."""
    path = find_csv(video)
    files = [] if path is None else [path, path.with_suffix(".hog")]
    stats = [file.stat() for file in files if file.is_file()]
    return max((max(stat.st_mtime, stat.st_ctime) for stat in stats), default=0.0)


def _is_result(path: Path) -> bool:
    try:
        record = json.loads(path.with_suffix(".run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("table") in (path.name, f"{path.stem}.parquet")


class OpenFaceLabeller:
    """Reads OpenFace's CSV of each video.

    A PDM fits pose and shape to the landmarks of files without PDM parameters; without one such
    files are refused.
    """

    name = "openface-csv"
    licence = LICENCE
    pdm_name = "openface"

    def __init__(self, pdm: PDM | None = None) -> None:
        self.pdm = pdm

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`.

        It raises DatasetError if there is no CSV, or it lacks what training needs.
        """
        path = find_csv(video)
        if path is None:
            raise DatasetError(f"{video}: no {video.stem}.csv beside it; run FeatureExtraction")
        return _Table(path, self.pdm, video)


class _Table:
    """One CSV, its rows found by frame."""

    def __init__(self, path: Path, pdm: PDM | None, video: Path) -> None:
        self._path, self._pdm, self._video = path, pdm, video
        columns = read_openface_csv(path, _USED)
        count = len(columns["frame"])
        if count == 0:
            raise DatasetError(f"{path}: it holds no rows")
        for name in ("frame", "face_id"):
            if not (np.abs(columns.get(name, 0)) <= _LARGEST).all():
                raise DatasetError(f"{path}: {name} is no whole number in every row; write it anew")
        self._landmarks = _group(path, columns, "2d").reshape(count, 2, 68).transpose(0, 2, 1)
        units = _group(path, columns, "aus")
        low, high = np.nanmin(units, initial=0), np.nanmax(units, initial=0)
        if high > MAX_INTENSITY + 0.01 or low < -0.01:
            raise DatasetError(
                f"{path}: AU intensities reach {low:g}..{high:g}, expected [0, {MAX_INTENSITY:g}]"
            )
        self._units = units.clip(0, MAX_INTENSITY)
        self._space: np.ndarray | None = None  # (N, 3, 7) of the points _SIZED, mm
        if all(name in columns for name in _SPACE):
            self._space = np.stack([columns[name] for name in _SPACE], axis=1).reshape(count, 3, -1)
        self._params: np.ndarray | None = None
        if all(name in columns for name in GROUPS["params"]):
            self._params = _group(path, columns, "params")
        elif pdm is None:
            raise DatasetError(
                f"{path}: no PDM parameters (p_scale ... p_33); run FeatureExtraction with "
                "-pdmparams, or give OpenFace's PDM file (--pdm) to fit them to the landmarks"
            )
        self._confidence = columns.get("confidence", np.ones(count)).clip(0, 1)
        self._face_id = columns.get("face_id", np.zeros(count)).astype(int)
        numbers = np.concatenate([self._landmarks.reshape(count, -1), self._units], axis=1)
        usable = np.isfinite(numbers).all(axis=1) & (columns.get("success", np.ones(count)) > 0)
        frames = columns["frame"].astype(int)
        frames -= frames.min() != 0  # OpenFace counts from 1, we from 0
        self._last = int(frames.max())
        self._of_every_frame = len(np.unique(frames)) > self._last  # else faceless ones have no row
        self._rows: dict[int, list[int]] = {}
        for row in np.flatnonzero(usable).tolist():
            self._rows.setdefault(int(frames[row]), []).append(row)
        self._hog = _read_hog(path.with_suffix(".hog"), count)
        self._rate = 1.0
        if not is_photograph(video):
            source = Video(video)
            self._rate = source.rate
            if source.pixel_aspect != 1:  # frames come with square pixels, and OpenFace's did not
                raise DatasetError(
                    f"{video}: its pixels are {source.pixel_aspect:.3g} times as wide as high, and "
                    "OpenFace took them for square; convert it (ffmpeg -i VIDEO -vf "
                    "scale=iw*sar:ih,setsar=1 SQUARE.mp4) and run FeatureExtraction on that"
                )
        self._place_checked = self._count_checked = False

    def __call__(self, frame: Frame) -> list[FaceLabels]:
        self._check_number(frame)
        rows = self._rows.get(frame.index, [])
        if rows and not self._place_checked:
            self._check_place(frame, rows[0])
        return list(map(self._face, rows))

    def check_length(self, last: int, every: int, samples: int) -> None:
        """Of a CSV that is longer or shorter than its video: warn, or refuse it without samples.

        ``last`` is the last frame's number, ``every`` how many frames there are for one read.
        """
        more, slack = self._last - last, every + _OTHER_COUNT
        if more <= slack and not (self._of_every_frame and more < -slack):
            return
        problem = (
            f"{self._path}: its rows are of {self._last + 1} frames, but the video has "
            f"{'about ' * (every > 1)}{last + 1}"
        )
        if not samples and abs(more) > every + _OTHER_LENGTH * last:
            raise DatasetError(f"{problem}, and no sample came of it; it is of another video")
        _LOG.warning("%s; make sure that it is of this video", problem)

    def _face(self, row: int) -> FaceLabels:
        if self._params is not None:
            pose, shape = self._params[row, :6], self._params[row, 6:]
        elif self._pdm is not None:
            fit = fit_pdm(self._pdm, self._landmarks[row])
            pose, shape = fit.global_params, fit.local_params
        return FaceLabels(
            self._landmarks[row],
            pose,
            shape,
            self._units[row],
            confidence=float(self._confidence[row]),
            face_id=int(self._face_id[row]),
            hog=None if self._hog is None else self._hog[row],
        )

    def _check_place(self, frame: Frame, row: int) -> None:
        """Detect a video that was rotated, cropped or resized after OpenFace ran on it."""
        height, width = frame.image.shape[:2]
        points = self._landmarks[row]
        inside = float(((points >= 0) & (points < (width, height))).all(axis=1).mean())
        if inside < _INSIDE:
            raise DatasetError(
                f"{self._path}: {1 - inside:.0%} of the landmarks of frame {frame.index + 1} lie "
                f"outside the {width} x {height} image; the CSV is of a video of another size or "
                "rotation"
            )
        size = self._image_size(row)
        if size is not None and (np.abs(size / (width, height) - 1) > _OFF_CENTRE).any():
            raise DatasetError(
                f"{self._path}: the 3-d points of frame {frame.index + 1} belong to an image of "
                f"{size[0]:.0f} x {size[1]:.0f} pixels, not {width} x {height}; run OpenFace on "
                "this video"
            )
        self._place_checked = True

    def _image_size(self, row: int) -> np.ndarray | None:
        """Width and height of the image around a camera's centre, by the points in 2-d and 3-d.

        A point is seen at centre + focal length (X, Y) / Z; OpenFace's centre is the image's, if it
        is not given.
        """
        if self._space is None or not (self._space[row, 2] > 0).all():
            return None
        rays = self._space[row, :2] / self._space[row, 2]  # (2, 7)
        points = self._landmarks[row, list(_SIZED)].T
        centred = rays - rays.mean(axis=1, keepdims=True)
        focal = (centred * points).sum() / (centred**2).sum()
        return np.asarray(2 * (points - focal * rays).mean(axis=1))

    def _check_number(self, frame: Frame) -> None:
        """Refuse frames whose time does not fit their number.

        Decoders skip a damaged frame, and the next one takes its number. But the frame rate may
        also vary: then the video has as many frames as the CSV.
        """
        late = abs(frame.timestamp * self._rate - frame.index)
        if self._count_checked or late <= _MAX_LATE:
            return
        count = sum(1 for _ in Video(self._video).frames())
        if self._last >= count:
            raise DatasetError(
                f"{self._path}: frames are missing before {frame.timestamp:.2f} s of the video "
                f"({count} can be read, the CSV has {self._last + 1}): from there on its rows "
                "belong to other frames; run OpenFace on this file"
            )
        self._count_checked = True


def _group(path: Path, columns: dict[str, np.ndarray], group: str) -> np.ndarray:
    names = AU_NAMES if group == "aus" else GROUPS[group]
    missing = [name for name in names if name not in columns]
    if missing:
        raise DatasetError(
            f"{path}: no column {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}; run "
            f"FeatureExtraction with {_FLAGS[group]}"
        )
    return np.stack([columns[name] for name in names], axis=1)


def _read_hog(path: Path, rows: int) -> np.ndarray | None:
    """The features of OpenFace's ``.hog``, if it is there; DatasetError if it does not fit."""
    if not path.is_file():
        return None
    record = np.dtype([("cells", "<i4", 3), ("found", "<f4"), ("features", "<f4", HOG_SIZE)])
    size = path.stat().st_size
    if size != rows * record.itemsize:
        raise DatasetError(
            f"{path}: {size} bytes, expected {rows} records of {HOG_SIZE} features; move it "
            "away to go without HOG"
        )
    table = np.fromfile(path, record)
    across, down, deep = table["cells"][0].tolist()
    if across * down * deep != HOG_SIZE:
        raise DatasetError(f"{path}: features of {across} x {down} x {deep}, expected {HOG_SIZE}")
    return np.ascontiguousarray(table["features"])
