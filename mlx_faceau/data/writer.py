"""Writing training files: samples gather in a buffer, blocks go to a sibling file, which takes the
final name only when everything is written."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from mlx_faceau import __version__
from mlx_faceau.errors import DatasetError
from mlx_faceau.facs import AU_NAMES, MAX_INTENSITY

from . import schema

_BUFFERED = 16 * schema.CHUNK_ROWS  # samples; about 10 MB
_BYTES_PER_SAMPLE = 39_000  # an image and its labels
_ARRAYS = {**schema.LABEL_SHAPES, **schema.FRAME_SHAPES}
_COLUMNS: dict[str, tuple[str, Any]] = {  # argument -> data set, its type
    "video_name": ("metadata/video_names", h5py.string_dtype()),
    "frame_index": ("metadata/frame_indices", np.int32),
    "quality_score": ("metadata/quality_scores", np.float32),
    "subject": ("metadata/subjects", h5py.string_dtype()),
}
_PLURALS = {
    "images": "image",
    "bboxes": "bbox",
    "warp_matrices": "warp_matrix",
    "video_names": "video_name",
    "frame_indices": "frame_index",
    "quality_scores": "quality_score",
    "subjects": "subject",
}


class TrainingDataWriter:
    """Writes a training file; use it in a ``with`` block.

    Nothing stands under the final name until the block ends without an error: samples are written
    to ``<path>.partial``, which is then renamed, or removed when the block raised.

    Args:
        path: the file to make.
        expected_samples: if given, the disk must have room for so many.

    Raises:
        DatasetError: if the file exists, its folder does not, or the disk lacks room.
    """

    def __init__(self, path: str | os.PathLike[str], expected_samples: int | None = None) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._buffer: list[dict[str, Any]] = []
        self._written = 0
        self._hog: bool | None = None  # settled by the first sample
        _check_target(self.path, expected_samples)
        self._file = self._create()

    def __len__(self) -> int:
        """Number of samples added so far."""
        return self._written + len(self._buffer)

    def __enter__(self) -> "TrainingDataWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add_sample(
        self,
        *,
        image: np.ndarray,
        landmarks: np.ndarray,
        global_params: np.ndarray,
        local_params: np.ndarray,
        au_intensities: np.ndarray,
        bbox: np.ndarray | Sequence[float],
        video_name: str,
        frame_index: int,
        hog_features: np.ndarray | None = None,
        warp_matrix: np.ndarray | None = None,
        quality_score: float = 1.0,
        subject: str | None = None,
    ) -> None:
        """Add one labelled crop.

        Args:
            image: (112, 112, 3) uint8 RGB.
            landmarks: (68, 2) crop pixels.
            global_params: (6,) scale, rx, ry, rz, tx, ty in crop space.
            local_params: (34,).
            au_intensities: (17,) in [0, 5], in ``AU_NAMES`` order.
            bbox: x, y, width, height in frame pixels.
            video_name: what must not be split between training and validation.
            frame_index: frame number in the video, >= 0.
            hog_features: (4464,); in all samples of a file or in none.
            warp_matrix: (2, 3) frame to crop; NaN is stored where it is unknown.
            quality_score: in [0, 1].
            subject: who it is; samples of one subject are not split either.

        Raises:
            ValueError: for a wrong shape, type or value; nothing is added then.
            DatasetError: if the disk refuses.
        """
        unknown = np.full((2, 3), np.nan, np.float32)
        sample: dict[str, Any] = {
            "images": _checked_image(image),
            "landmarks": _checked("landmarks", landmarks, (68, 2)),
            "global_params": _checked("global_params", global_params, (6,)),
            "local_params": _checked("local_params", local_params, (34,)),
            "au_intensities": _checked("au_intensities", au_intensities, (17,)),
            "bboxes": _checked("bbox", bbox, (4,)),
            "warp_matrices": unknown
            if warp_matrix is None
            else _checked("warp_matrix", warp_matrix, (2, 3)),
            "metadata/video_names": _checked_text("video_name", video_name),
            "metadata/frame_indices": _checked_frame(frame_index),
            "metadata/quality_scores": float(_checked("quality_score", quality_score, ())),
            "metadata/subjects": "" if subject is None else _checked_text("subject", subject),
        }
        if hog_features is not None:
            sample["hog_features"] = _checked("hog_features", hog_features, (schema.HOG_SIZE,))
        _check_values(sample)
        self._check_hog("hog_features" in sample)
        self._buffer.append(sample)
        if len(self._buffer) >= _BUFFERED:
            self._flush()

    def add_batch(self, **columns: Any) -> None:
        """Add many samples: the names of :meth:`add_sample` in the plural, each with a leading N.

        ``landmarks``, ``global_params``, ``local_params``, ``au_intensities`` and
        ``hog_features`` keep their names; optional ones may be left out or None.

        Raises:
            ValueError: for an unknown or missing name, unequal lengths, or a bad sample; the
                samples before a bad one have been added.
        """
        given = {name: values for name, values in columns.items() if values is not None}
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of a batch differ in length: {lengths}")
        rows: Mapping[str, Any] = {_PLURALS.get(name, name): v for name, v in given.items()}
        for index in range(next(iter(lengths.values()), 0)):
            self.add_sample(**{name: values[index] for name, values in rows.items()})

    def close(self) -> None:
        """Write what is left and give the file its name.

        Raises:
            DatasetError: if no sample was added, or the disk refuses.
        """
        if not self._file:
            return
        if len(self) == 0:
            self.discard()
            raise DatasetError(f"{self.path}: not written, no sample was added")
        try:
            self._flush()
            self._file.close()
            _synchronise(self._partial)
            os.replace(self._partial, self.path)
        except OSError as error:
            self.discard()
            raise DatasetError(f"{self.path}: cannot be written ({error})") from error

    def discard(self) -> None:
        """Drop everything written; the final name is not touched."""
        self._buffer.clear()
        if self._file:
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _create(self) -> h5py.File:
        try:
            file = h5py.File(self._partial, "w")
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be created ({error})") from error
        file.attrs.update(
            format=schema.FORMAT,
            version=schema.VERSION,
            landmark_space="crop",
            color_format="RGB",
            image_size=(112, 112),
            au_names=list(AU_NAMES),
            writer=f"mlx-faceau {__version__}",
        )
        _add_dataset(file, "images", schema.IMAGE_SHAPE, np.uint8)
        for name, shape in _ARRAYS.items():
            _add_dataset(file, name, shape, np.float32)
        for name, dtype in _COLUMNS.values():
            _add_dataset(file, name, (), dtype)
        return file

    def _check_hog(self, present: bool) -> None:
        if self._hog is None:
            self._hog = present
            if present:
                _add_dataset(self._file, "hog_features", (schema.HOG_SIZE,), np.float32)
        elif self._hog != present:
            raise ValueError("hog_features must be given for all samples of a file or for none")

    def _flush(self) -> None:
        """Append the buffered samples to every data set."""
        start, end = self._written, len(self)
        for name in self._buffer[0] if self._buffer else ():
            dataset = self._file[name]
            dataset.resize(end, axis=0)
            dataset[start:end] = [sample[name] for sample in self._buffer]
        self._written = end
        self._buffer.clear()


def _check_target(path: Path, expected_samples: int | None) -> None:
    if path.exists():
        raise DatasetError(f"{path}: exists already; choose another name or move it away")
    if not path.parent.is_dir():
        raise DatasetError(f"{path}: folder {path.parent} does not exist; make it first")
    if expected_samples is None:
        return
    needed, free = expected_samples * _BYTES_PER_SAMPLE, shutil.disk_usage(path.parent).free
    if needed > free:
        raise DatasetError(
            f"{path}: {expected_samples} samples need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; choose another disk"
        )


def _add_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    rows = schema.CHUNK_ROWS if name == "images" else 1024
    file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape))


def _checked_image(image: np.ndarray) -> np.ndarray:
    array = np.asarray(image)
    if array.shape != schema.IMAGE_SHAPE or array.dtype != np.uint8:
        raise ValueError(
            f"image is {array.dtype} {array.shape}, expected uint8 {schema.IMAGE_SHAPE} RGB"
        )
    return array.copy()  # callers reuse their buffers


def _checked(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, dtype=np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or inf")
    return array


def _checked_text(name: str, value: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{name} is {value!r}, expected a text that is not empty")
    return value


def _checked_frame(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"frame_index is {value!r}, expected a whole number >= 0")
    return int(value)


def _check_values(sample: Mapping[str, Any]) -> None:
    inside = (sample["landmarks"] >= 0) & (sample["landmarks"] <= 112)
    if inside.mean() < 0.5:
        raise ValueError("landmarks are not in crop space: most lie outside [0, 112]")
    aus = sample["au_intensities"]
    if aus.min() < 0 or aus.max() > MAX_INTENSITY:
        raise ValueError(f"au_intensities reach {aus.min():g}..{aus.max():g}, expected [0, 5]")
    if sample["global_params"][0] <= 0:
        raise ValueError(f"global_params: scale is {sample['global_params'][0]:g}, expected > 0")
    if not 0 <= sample["metadata/quality_scores"] <= 1:
        raise ValueError("quality_score lies outside [0, 1]")


def _synchronise(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
