"""Crops as an imperfect detector places them: jittered, or cut from a detector's boxes.

Both are sampled from the stored 112 x 112 crops, since a file does not hold the frames: pixels are
interpolated twice, and beyond the stored crop its edge is replicated.
"""

from typing import NamedTuple

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import (
    CROP_CENTRE,
    invert,
    similarity_matrix,
    square_crop_matrix,
    standard_crop_matrix,
    transform_global_params,
    transform_points,
)
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.data.format import schema
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import DatasetError
from mlx_faceau.video.align import crop_frame
from mlx_faceau.video.box_calibration import CALIBRATIONS

SHIFT = 0.05  # of the crop's side, either way
SCALE = 0.10  # either way
ROLL = np.radians(10.0)  # either way
_BOX_SEED = 13
_WORST_FIT = 2.0  # times a detector's measured error, up to which boxes are taken for its own
_NO_ERROR = 1e-2  # of the side: boxes that cut the stored crop so nearly were made from its labels
# Median over standard deviation: of the length of a normal vector in the plane (Rayleigh's
# distribution), and of the absolute value of a normal number. The measured 95th percentiles agree
# with those of these distributions within 7 %.
_SHIFT_MEDIAN, _SCALE_MEDIAN = float(np.sqrt(2 * np.log(2))), 0.67449


class BoxError(NamedTuple):
    """How far a detector's calibrated box is from the standard square: medians over subjects."""

    shift: float  # distance of the centres, in sides of the square
    scale: float  # absolute logarithm of the sides' ratio


# benchmarks/results/box-calibration.csv; MTCNN's of the boxes in OpenFace's files.
MEASURED = {
    "yunet": BoxError(0.026, 0.026),
    "dlib": BoxError(0.057, 0.060),
    "mtcnn": BoxError(0.027, 0.032),
}


class BoxCrops(NamedTuple):
    """Crops from boxes."""

    name: str  # short, such as "mtcnn boxes"
    about: str  # one line, where the boxes are from
    matrices: np.ndarray  # (N, 2, 3) from the stored crop to the one that the box gives


def jitter_matrices(count: int, seed: int) -> np.ndarray:
    """(count, 2, 3) random similarities about the crop's centre, uniform within the limits."""
    draws = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 4))
    limits = np.array([SHIFT, SHIFT, SCALE, ROLL])
    return np.stack([_about_centre((x, y), 1 + s, turn) for x, y, s, turn in draws * limits])


def box_error_matrices(count: int, shift: float, scale: float, seed: int) -> np.ndarray:
    """(count, 2, 3) similarities of crops cut from boxes with random errors.

    Their standard deviations: of the centre along each axis, in sides, and of the log side.
    """
    draws = np.random.default_rng(seed).normal(size=(count, 3)) * [shift, shift, scale]
    return np.stack([_about_centre((x, y), np.exp(s), 0.0) for x, y, s in draws])


def _about_centre(shift: tuple[float, float], scale: float, turn: float) -> np.ndarray:
    """Scale and turn about the crop's centre, then shift by so many sides."""
    matrix = similarity_matrix(scale, turn, (0.0, 0.0))
    centre = np.full(2, CROP_CENTRE)
    matrix[:, 2] = centre + IMAGE_SIZE * np.array(shift) - matrix[:, :2] @ centre
    return matrix


def warp_images(matrices: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Warp (N, 112, 112, 3) uint8 images; edges replicate."""
    return np.stack([crop_frame(i, matrix) for i, matrix in zip(images, matrices, strict=True)])


def warp_labels(matrices: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels of the warped images: landmarks and global parameters are transformed."""
    return {
        **labels,
        "landmarks": transform_points(matrices, labels["landmarks"]),
        "global_params": transform_global_params(matrices, labels["global_params"]),
    }


def box_crops(dataset: FaceDataset, source: str = "auto") -> BoxCrops | None:
    """The crops that a detector's boxes give.

    ``source``: ``"file"`` takes the file's own boxes, which must be those of a detector whose
    calibration is known; a detector's name draws errors as they were measured for it; ``"auto"``
    takes the file's where it can, else YuNet's errors; ``"none"`` nothing.

    Raises:
        DatasetError: for ``"file"`` where the file's boxes are no known detector's.
    """
    if source == "none":
        return None
    reason = ""
    if source not in MEASURED:
        found = _from_file(dataset)
        if isinstance(found, BoxCrops):
            return found
        if source == "file":
            raise DatasetError(
                f"{dataset.path}: {found}; use --boxes yunet to simulate a detector's errors"
            )
        source, reason = "yunet", f"; {found}"
    error = MEASURED[source]
    about = (
        f"simulated: random shifts and scales as measured for {source}'s calibrated boxes "
        f"{_medians(error)}, independent of the face, where real boxes have similar errors on "
        f"similar faces: a harder test than real boxes{reason}"
    )
    deviations = error.shift / _SHIFT_MEDIAN, error.scale / _SCALE_MEDIAN
    matrices = box_error_matrices(len(dataset), *deviations, _BOX_SEED)
    return BoxCrops(f"{source} boxes", about, matrices)


def _from_file(dataset: FaceDataset) -> BoxCrops | str:
    """Crops from the file's boxes; or why there are none."""
    with schema.opened(dataset.path) as file:
        if "bboxes" not in file or "warp_matrices" not in file:
            return "the file has no boxes with warp matrices"
        boxes = file["bboxes"][:][dataset.rows].astype(np.float64)
        warps = file["warp_matrices"][:][dataset.rows].astype(np.float64)
    if not (np.isfinite(boxes).all() and np.isfinite(warps).all()):
        return "the file has no boxes with warp matrices"
    if not (boxes[:, 2:] > 0).all():
        return "some of the file's boxes have no area"
    # Standard crops of landmarks that the boxes bound.
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    bounding = [standard_crop_matrix(pair[np.arange(NUM_LANDMARKS) % 2]) for pair in corners]
    for squares in (_calibrated("square", boxes), np.stack(bounding)):
        if max(_crops_of(squares, warps)[1]) < _NO_ERROR:
            return "the file's boxes were made from the labels, not by a detector"
    fits = {name: _crops_of(_calibrated(name, boxes), warps) for name in MEASURED}
    name = min(fits, key=lambda name: sum(fits[name][1]))
    matrices, error = fits[name]
    if max(np.divide(error, MEASURED[name])) > _WORST_FIT:
        return "the file's boxes fit no calibrated detector"
    about = (
        f"the file's own boxes, which fit {name}'s calibration {_medians(error)}, cut again from "
        "the stored crops"
    )
    return BoxCrops(f"{name} boxes", about, matrices)


def _medians(error: BoxError) -> str:
    shift, scale = (f"{100 * share:.1f} %" for share in error)
    return f"(median shift {shift} of the side, scale {scale})"


def _calibrated(detector: str, boxes: np.ndarray) -> np.ndarray:
    """(N, 2, 3) from the frame to the crops of the boxes."""
    calibration = CALIBRATIONS[detector]
    return np.stack([square_crop_matrix(*calibration.square(box)) for box in boxes.tolist()])


def _crops_of(squares: np.ndarray, warps: np.ndarray) -> tuple[np.ndarray, BoxError]:
    """(N, 2, 3) from the stored crops to those of the squares, and the squares' errors."""
    matrices = squares[:, :, :2] @ invert(warps)
    matrices[:, :, 2] += squares[:, :, 2]
    centre = np.full((len(matrices), 1, 2), CROP_CENTRE)
    shifts = (transform_points(invert(matrices), centre)[:, 0] - CROP_CENTRE) / IMAGE_SIZE
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    shift = float(np.median(np.hypot(*shifts.T)))
    return matrices, BoxError(shift, float(np.median(np.abs(np.log(scales)))))
