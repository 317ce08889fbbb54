"""Crops cut from a detector's boxes: those of the file, or boxes that err as measured ones did."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import (
    CROP_CENTRE,
    invert,
    square_crop_matrix,
    standard_crop_matrix,
    transform_points,
)
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.data.format import schema
from mlx_faceau.errors import DatasetError, UsageError
from mlx_faceau.video.box_calibration import CALIBRATIONS

from .crops import box_error_matrices, replicated_share

MatrixOf = Callable[[np.ndarray], np.ndarray]  # from a box (4,) to its crop (2, 3)

_SEED = 13
_WORST_FIT = 2.0  # times a detector's measured error, up to which boxes are held for its own
_NO_ERROR = 1e-2  # of the side: boxes that cut the stored crop so nearly were made from its labels


@dataclass(frozen=True)
class BoxError:
    """How far a detector's calibrated box is from the standard square, on validation people.

    Both errors are close to normal: from the medians, Rayleigh's 95th percentile of the shift and
    the half-normal's of the scale agree with the measured ones within 7 %.

    Args:
        shift_median: of the centres' distance, in sides of the square.
        scale_median: of the absolute logarithm of the sides' ratio.
    """

    shift_median: float
    scale_median: float

    @property
    def shift_deviation(self) -> float:
        """Along each axis."""
        return self.shift_median / float(np.sqrt(2 * np.log(2)))

    @property
    def scale_deviation(self) -> float:
        """Of the logarithm of the sides' ratio."""
        return self.scale_median / 0.67449  # the half-normal distribution's median


# benchmarks/results/box-calibration.csv
MEASURED = {
    "yunet": BoxError(0.032, 0.043),
    "dlib": BoxError(0.056, 0.059),
    "mtcnn": BoxError(0.027, 0.032),
}
SOURCES = ("auto", "file", *MEASURED, "none")


class BoxedFaces(Protocol):
    """The part of a data set that holds boxes."""

    path: Path
    rows: np.ndarray

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class BoxCrops:
    """Crops from boxes.

    Attributes:
        name: short, such as ``"mtcnn boxes"``.
        about: one line, where the boxes are from.
        matrices: (N, 2, 3) from the stored crop to the one that the box gives.
    """

    name: str
    about: str
    matrices: np.ndarray


def box_crops(dataset: BoxedFaces, source: str = "auto") -> BoxCrops | None:
    """What a detector would have the net see.

    Args:
        dataset: the faces.
        source: ``"file"`` takes the file's own boxes, which must be those of a detector whose
            calibration is known; a detector's name draws errors as they were measured for it;
            ``"auto"`` takes the file's where it can, else YuNet's errors; ``"none"`` nothing.

    Raises:
        ValueError: for another source.
        DatasetError: for ``"file"`` where the file's boxes are no known detector's.
    """
    if source not in SOURCES:
        raise UsageError(f"boxes are {', '.join(SOURCES)}; got {source!r}")
    if source == "none":
        return None
    if source in MEASURED:
        return _simulated(source, len(dataset))
    found = _own(dataset)
    if isinstance(found, BoxCrops):
        return found
    if source == "file":
        raise DatasetError(
            f"{dataset.path}: {found}; use --boxes yunet to draw a detector's errors"
        )
    return _simulated("yunet", len(dataset), f"; {found}")


def _simulated(detector: str, count: int, reason: str = "") -> BoxCrops:
    error = MEASURED[detector]
    matrices = box_error_matrices(count, error.shift_deviation, error.scale_deviation, _SEED)
    return BoxCrops(
        f"{detector} boxes",
        f"simulated: crops moved at random as {detector}'s calibrated boxes err (median shift "
        f"{100 * error.shift_median:.1f} % of the side, scale {100 * error.scale_median:.1f} %), "
        "but whatever the face, where real boxes err alike on like faces: rather too hard a test"
        f"{_made_of(matrices)}{reason}",
        matrices,
    )


def _own(dataset: BoxedFaces) -> BoxCrops | str:
    """Crops from the file's boxes, or why there are none."""
    stored = _read(dataset)
    if stored is None:
        return "the file has no boxes with warp matrices"
    boxes, warps = stored
    if not (boxes[:, 2:] > 0).all():
        return "some of the file's boxes have no area"
    for matrix_of in (_square_of("square"), _around_landmarks):
        fit = _Fit.of(matrix_of, boxes, warps)
        if max(fit.shift, fit.scale) < _NO_ERROR:
            return "the file's boxes were made from the labels, no detector found them"
    fits = {name: _Fit.of(_square_of(name), boxes, warps) for name in MEASURED}
    name = min(MEASURED, key=lambda name: fits[name].badness(MEASURED[name]))
    fit = fits[name]
    if fit.badness(MEASURED[name]) > _WORST_FIT:
        return "the file's boxes fit no calibrated detector"
    about = (
        f"the file's own boxes, which fit {name}'s calibration (median shift "
        f"{100 * fit.shift:.1f} % of the side, scale {100 * fit.scale:.1f} %)"
    )
    return BoxCrops(f"{name} boxes", about + _made_of(fit.matrices), fit.matrices)


def _made_of(matrices: np.ndarray) -> str:
    share = replicated_share(matrices)
    return f", cut again from the stored crops: {100 * share:.1f} % of pixels are replicated edge"


def _read(dataset: BoxedFaces) -> tuple[np.ndarray, np.ndarray] | None:
    with schema.opened(dataset.path) as file:
        if "bboxes" not in file or "warp_matrices" not in file:
            return None
        boxes = file["bboxes"][:][dataset.rows].astype(np.float64)
        warps = file["warp_matrices"][:][dataset.rows].astype(np.float64)
    finite = np.isfinite(boxes).all() and np.isfinite(warps).all()
    return (boxes, warps) if finite else None


@dataclass(frozen=True)
class _Fit:
    """How well a calibration explains the file's boxes: median errors, and the crops it gives."""

    shift: float
    scale: float
    matrices: np.ndarray

    @classmethod
    def of(cls, matrix_of: MatrixOf, boxes: np.ndarray, warps: np.ndarray) -> "_Fit":
        squares = np.stack([matrix_of(box) for box in boxes])
        matrices = _composed(squares, invert(warps))
        centre = np.full((len(boxes), 1, 2), CROP_CENTRE)
        moved = transform_points(invert(matrices), centre)[:, 0] - CROP_CENTRE
        scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
        return cls(
            float(np.median(np.hypot(*moved.T))) / IMAGE_SIZE,
            float(np.median(np.abs(np.log(scales)))),
            matrices,
        )

    def badness(self, measured: BoxError) -> float:
        """The larger of both errors, in those that were measured for the detector."""
        return max(self.shift / measured.shift_median, self.scale / measured.scale_median)


def _square_of(calibration: str) -> MatrixOf:
    return lambda box: square_crop_matrix(*CALIBRATIONS[calibration].square(box.tolist()))


def _around_landmarks(box: np.ndarray) -> np.ndarray:
    """The standard crop of landmarks that the box bounds."""
    corners = np.array([box[:2], box[:2] + box[2:]])
    return standard_crop_matrix(corners[np.arange(NUM_LANDMARKS) % 2])


def _composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(N, 2, 3) of the inner map followed by the outer one."""
    product: np.ndarray = outer[:, :, :2] @ inner
    product[:, :, 2] += outer[:, :, 2]
    return product
