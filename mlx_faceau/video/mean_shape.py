"""OpenFace's alignment: a face turned, scaled and shifted onto the mean shape, and masked.

Action unit models that read textures want every face in one place. The similarity comes from points
that expressions hardly move; the face's centre is the origin of its shape model (Baltrusaitis et
al., Cross-dataset learning and person-specific normalisation for AU detection, FG 2015).
"""

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import similarity_matrix, transform_points
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import UsageError

MEAN_SHAPE_SCALE = 0.7  # pixels per millimetre of the mean shape
_CENTRE = IMAGE_SIZE / 2
# Cheeks beside the jaw, bridge and wings of the nose, corners and lower lids of the eyes.
_STEADY = np.r_[1:5, 12:16, 27:30, 31:37, 39:43, 45:48]
_FOREHEAD = 30.0  # px by which brows and temples are raised in the mask
_UPPER = np.r_[0, 16:27]  # temples and brows


def mean_shape_points(pdm: PDM) -> np.ndarray:
    """(68, 2) landmarks of the mean shape in OpenFace's aligned image, pixels."""
    return np.asarray(MEAN_SHAPE_SCALE * pdm.mean[:, :2] + _CENTRE)


def mean_shape_matrix(pdm: PDM, landmarks: np.ndarray, global_params: np.ndarray) -> np.ndarray:
    """The (2, 3) similarity from a frame to OpenFace's aligned 112 x 112 image.

    Rotation: least squares of the steady points onto those of the mean shape; scale: ratio of their
    root mean square sizes; shift: the shape model's origin goes to (56, 56). ``landmarks`` (68, 2)
    and ``global_params`` (6,) are in frame pixels.

    Raises:
        ValueError: if the landmarks are not finite, or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise UsageError(f"landmarks have shape {points.shape}, expected 68 finite points")
    source = points[_STEADY] - points[_STEADY].mean(axis=0)
    target = mean_shape_points(pdm)[_STEADY]
    target = target - target.mean(axis=0)
    size = np.sqrt((source**2).sum())
    if size == 0:
        raise UsageError("the landmarks are all in one place")
    turn = np.arctan2(
        (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum(), (source * target).sum()
    )
    matrix = similarity_matrix(float(np.sqrt((target**2).sum()) / size), float(turn), (0.0, 0.0))
    matrix[:, 2] = _CENTRE - matrix[:, :2] @ np.asarray(global_params[4:6], np.float64)
    return matrix


def align_to_mean_shape(frame: np.ndarray, landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The aligned face, black outside the convex hull of its landmarks.

    Brows and temples are raised by 30 px to keep the forehead. (OpenFace fills the triangles of its
    mesh, whose outline is this hull up to a few pixels.) From an (H, W, 3) uint8 BGR frame, (68, 2)
    landmarks in it and the matrix of :func:`mean_shape_matrix` to (112, 112, 3) uint8 BGR; places
    outside the frame are black.
    """
    aligned = cv2.warpAffine(frame, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=cv2.INTER_LINEAR)
    outline = transform_points(matrix, landmarks)
    outline[_UPPER, 1] -= _FOREHEAD
    hull = cv2.convexHull(np.round(outline).astype(np.int32))
    inside = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    cv2.fillConvexPoly(inside, hull, 1)
    return np.asarray(aligned * inside[..., None])
