"""Crops cut from a detector's boxes: those of the file, or boxes with errors as measured."""

from collections.abc import Callable
from dataclasses import dataclass

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
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import DatasetError, UsageError
from mlx_faceau.video.box_calibration import CALIBRATIONS

from .crop_jitter import box_error_matrices, replicated_share

_SEED = 13
_WORST_FIT = 2.0  # times a detector's measured error, up to which boxes are taken for its own
_NO_ERROR = 1e-2  # of the side: boxes that cut the stored crop so nearly were made from its labels


@dataclass(frozen=True)
class BoxError:
    """How far a detector's calibrated box is from the standard square, on validation subjects.

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


# benchmarks/results/box-calibration.csv; MTCNN's of the boxes in OpenFace's files.
MEASURED = {
    "yunet": BoxError(0.026, 0.026),
    "dlib": BoxError(0.057, 0.060),
    "mtcnn": BoxError(0.027, 0.032),
}
SOURCES = ("auto", "file", *MEASURED, "none")


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


def box_crops(dataset: FaceDataset, source: str = "auto") -> BoxCrops | None:
    """The crops that a detector's boxes give.

    Args:
        dataset: the faces.
        source: ``"file"`` takes the file's own boxes, which must be those of a detector whose
            calibration is known; a detector's name draws errors as they were measured for it;
            ``"auto"`` takes the file's where it can, else YuNet's errors; ``"none"`` nothing.

    Raises:
        UsageError: for another source.
        DatasetError: for ``"file"`` where the file's boxes are no known detector's.
    """
    if source not in SOURCES:
        raise UsageError(f"boxes are {', '.join(SOURCES)}; got {source!r}")
    if source == "none":
        return None
    if source in MEASURED:
        return _simulated(source, len(dataset))
    crops, reason = _from_file(dataset)
    if crops is None and source == "file":
        raise DatasetError(
            f"{dataset.path}: {reason}; use --boxes yunet to simulate a detector's errors"
        )
    return crops or _simulated("yunet", len(dataset), f"; {reason}")


def _simulated(detector: str, count: int, reason: str = "") -> BoxCrops:
    error = MEASURED[detector]
    matrices = box_error_matrices(count, error.shift_deviation, error.scale_deviation, _SEED)
    return BoxCrops(
        f"{detector} boxes",
        f"simulated: random shifts and scales as measured for {detector}'s calibrated boxes "
        f"(median shift {100 * error.shift_median:.1f} % of the side, scale "
        f"{100 * error.scale_median:.1f} %), independent of the face, where real boxes have "
        f"similar errors on similar faces: rather too hard a test{_edges(matrices)}{reason}",
        matrices,
    )


def _from_file(dataset: FaceDataset) -> tuple[BoxCrops | None, str]:
    """Crops from the file's boxes; or None, and why there are none."""
    with schema.opened(dataset.path) as file:
        if "bboxes" not in file or "warp_matrices" not in file:
            return None, "the file has no boxes with warp matrices"
        boxes = file["bboxes"][:][dataset.rows].astype(np.float64)
        warps = file["warp_matrices"][:][dataset.rows].astype(np.float64)
    if not (np.isfinite(boxes).all() and np.isfinite(warps).all()):
        return None, "the file has no boxes with warp matrices"
    if not (boxes[:, 2:] > 0).all():
        return None, "some of the file's boxes have no area"
    for square in (_calibrated("square"), _around_landmarks):
        _, shift, scale = _crops_of(square, boxes, warps)
        if max(shift, scale) < _NO_ERROR:
            return None, "the file's boxes were made from the labels, not by a detector"
    fits = {name: _crops_of(_calibrated(name), boxes, warps) for name in MEASURED}
    # The larger of both errors, relative to those that were measured for the detector.
    misfits = {
        name: max(shift / MEASURED[name].shift_median, scale / MEASURED[name].scale_median)
        for name, (_, shift, scale) in fits.items()
    }
    name = min(fits, key=lambda name: sum(fits[name][1:]))
    if misfits[name] > _WORST_FIT:
        return None, "the file's boxes fit no calibrated detector"
    matrices, shift, scale = fits[name]
    about = (
        f"the file's own boxes, which fit {name}'s calibration (median shift {100 * shift:.1f} % "
        f"of the side, scale {100 * scale:.1f} %){_edges(matrices)}"
    )
    return BoxCrops(f"{name} boxes", about, matrices), ""


def _edges(matrices: np.ndarray) -> str:
    share = 100 * replicated_share(matrices)
    return f", cut again from the stored crops: {share:.1f} % of pixels are replicated edge"


def _crops_of(
    square: Callable[[np.ndarray], np.ndarray], boxes: np.ndarray, warps: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """(N, 2, 3) from the stored crops to those of the boxes; the median errors of shift, in
    sides, and scale, the logarithm of the sides' ratio."""
    squares, inverse = np.stack([square(box) for box in boxes]), invert(warps)
    matrices = squares[:, :, :2] @ inverse
    matrices[:, :, 2] += squares[:, :, 2]
    centre = np.full((len(boxes), 1, 2), CROP_CENTRE)
    moved = transform_points(invert(matrices), centre)[:, 0] - CROP_CENTRE
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    shift = float(np.median(np.hypot(*moved.T))) / IMAGE_SIZE
    return matrices, shift, float(np.median(np.abs(np.log(scales))))


def _calibrated(calibration: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda box: square_crop_matrix(*CALIBRATIONS[calibration].square(box.tolist()))


def _around_landmarks(box: np.ndarray) -> np.ndarray:
    """The standard crop of landmarks that the box bounds."""
    corners = np.array([box[:2], box[:2] + box[2:]])
    return standard_crop_matrix(corners[np.arange(NUM_LANDMARKS) % 2])
