"""Spaces and how labels move between them: PDM, Euler angles, similarities, flips, crops.

Coordinates are pixels with centres at whole numbers, x to the right and y down; angles are radians.
Global parameters are ``[scale, rx, ry, rz, tx, ty]`` of the point distribution model (PDM):

    landmarks = scale * (R @ (mean + basis @ local))[:2] + (tx, ty),   R = Rx(rx) Ry(ry) Rz(rz)

A similarity is a (2, 3) matrix ``[k Q | d]``, Q a proper rotation: points move as k Q p + d.

Reference:
    Baltrusaitis et al., OpenFace 2.0, FG 2018 (the PDM and its parameters).
"""

import numpy as np

from mlx_faceau.errors import UsageError

from .architectures import IMAGE_SIZE
from .landmarks import MIRROR, NUM_LANDMARKS

CROP_MARGIN = 1.4  # side of the standard crop / longer side of the landmarks' bounding box
CROP_CENTRE = (IMAGE_SIZE - 1) / 2


def euler_to_matrix(angles: np.ndarray) -> np.ndarray:
    """R = Rx(rx) Ry(ry) Rz(rz), (..., 3, 3) float64, of angles (..., 3) in radians."""
    angles = np.asarray(angles, np.float64)
    rx, ry, rz = angles[..., 0], angles[..., 1], angles[..., 2]
    sx, sy, sz = np.sin(rx), np.sin(ry), np.sin(rz)
    cx, cy, cz = np.cos(rx), np.cos(ry), np.cos(rz)
    rows = (
        *(cy * cz, -cy * sz, sy),
        *(cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        *(sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    )
    return np.stack(rows, axis=-1).reshape(*rx.shape, 3, 3)


def matrix_to_euler(rotation: np.ndarray) -> np.ndarray:
    """The angles (..., 3) of :func:`euler_to_matrix`, float64, with ry in [-pi/2, pi/2].

    At ry = +-pi/2 only rx +- rz is determined; some valid pair is returned.
    """
    r = np.asarray(rotation, np.float64)
    rx = np.arctan2(-r[..., 1, 2], r[..., 2, 2])
    ry = np.arcsin(np.clip(r[..., 0, 2], -1.0, 1.0))
    rz = np.arctan2(-r[..., 0, 1], r[..., 0, 0])
    return np.stack([rx, ry, rz], axis=-1)


def project(
    mean: np.ndarray, basis: np.ndarray, global_params: np.ndarray, local_params: np.ndarray
) -> np.ndarray:
    """Landmarks (..., P, 2) of PDM parameters under weak perspective, float64 pixels.

    The mean shape is (P, 3), its deformation modes (P, 3, K), the parameters (..., 6) and (..., K).
    """
    params = np.asarray(global_params, np.float64)
    shape = mean + np.einsum("pck,...k->...pc", basis, np.asarray(local_params, np.float64))
    rows = euler_to_matrix(params[..., 1:4])[..., :2, :]
    flat = np.einsum("...ij,...pj->...pi", rows, shape)
    return np.asarray(params[..., None, :1] * flat + params[..., None, 4:])


def similarity_matrix(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    """(2, 3) float64 similarity that scales, turns by ``angle`` (x towards y) and then shifts."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., P, 2) under affine maps (..., 2, 3), float64 pixels."""
    matrix = np.asarray(matrix, np.float64)
    turned = np.einsum("...ij,...pj->...pi", matrix[..., :2], np.asarray(points, np.float64))
    return np.asarray(turned + matrix[..., None, :, 2])


def transform_global_params(matrix: np.ndarray, global_params: np.ndarray) -> np.ndarray:
    """Global parameters (..., 6) of landmarks that similarities (..., 2, 3) moved, float64.

    Projecting the result equals :func:`transform_points` of the projection; local parameters stay.
    ValueError is raised for a matrix that shears, mirrors or collapses.
    """
    matrix = np.asarray(matrix, np.float64)
    params = np.asarray(global_params, np.float64)
    a, b = matrix[..., 0, 0], matrix[..., 1, 0]
    scale, angle = np.hypot(a, b), np.arctan2(b, a)
    shear = np.hypot(matrix[..., 1, 1] - a, matrix[..., 0, 1] + b)
    if not np.all(shear <= 1e-4 * scale) or not np.all(scale > 0):
        raise UsageError("a crop matrix is not a similarity (rotation, scale and shift only)")
    angles = params[..., 1:4]
    if angle.any():  # the standard crop is upright
        turn = euler_to_matrix(np.stack([0 * angle, 0 * angle, angle], axis=-1))
        angles = matrix_to_euler(turn @ euler_to_matrix(angles))
    shift = transform_points(matrix, params[..., None, 4:])[..., 0, :]
    return np.concatenate([scale[..., None] * params[..., :1], angles, shift], axis=-1)


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverse of affine maps, (..., 2, 3) float64; UsageError if one collapses the plane."""
    matrix = np.asarray(matrix, np.float64)
    try:
        inverse = np.linalg.inv(matrix[..., :2])
    except np.linalg.LinAlgError:
        raise UsageError("a crop matrix cannot be inverted: it collapses the plane") from None
    shift = -np.einsum("...ij,...j->...i", inverse, matrix[..., 2])
    return np.concatenate([inverse, shift[..., None]], axis=-1)


def flip_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (..., 68, 2) of the mirrored crop: x -> 111 - x, left and right exchanged."""
    flipped = np.asarray(landmarks)[..., MIRROR, :].copy()
    flipped[..., 0] = IMAGE_SIZE - 1 - flipped[..., 0]
    return flipped


def flip_global_params(global_params: np.ndarray) -> np.ndarray:
    """Global parameters (..., 6) of the mirrored crop; exact for a PDM that is symmetric.

    Local parameters have no exact mirror without the PDM: mask their loss for flipped samples.
    """
    flipped = np.array(global_params)
    flipped[..., 2:4] *= -1
    flipped[..., 4] = IMAGE_SIZE - 1 - flipped[..., 4]
    return flipped


def standard_crop_matrix(landmarks: np.ndarray) -> np.ndarray:
    """Frame-to-crop similarity (2, 3) of the standard crop around landmarks (68, 2), no roll.

    The square is centred on the middle of the landmarks' bounding box (frame pixels), its side 1.4
    times the longer side; its centre maps to (55.5, 55.5). ValueError is raised for landmarks of
    another shape, not finite or all in one place.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (NUM_LANDMARKS, 2):
        raise UsageError(f"landmarks have shape {points.shape}, expected ({NUM_LANDMARKS}, 2)")
    low, high = points.min(axis=0), points.max(axis=0)
    return square_crop_matrix((low + high) / 2, CROP_MARGIN * float((high - low).max()))


def square_crop_matrix(centre: np.ndarray, side: float) -> np.ndarray:
    """Frame-to-crop similarity (2, 3) of a square of ``side`` pixels around ``centre`` (x, y)."""
    if not (np.isfinite(side) and side > 0 and np.isfinite(centre).all()):
        raise UsageError(f"a crop of side {side} around {centre} is not possible")
    scale = IMAGE_SIZE / side
    x, y = np.asarray(centre, np.float64)
    return similarity_matrix(scale, 0.0, (CROP_CENTRE - scale * x, CROP_CENTRE - scale * y))


def to_frame(
    warp_matrix: np.ndarray,
    landmarks: np.ndarray | None = None,
    global_params: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Results in crop space back in the frame that the crop was cut from.

    Args:
        warp_matrix: (2, 3) or (N, 2, 3), frame to crop.
        landmarks: (68, 2) or (N, 68, 2) crop pixels, or None.
        global_params: (6,) or (N, 6) in crop space, or None.

    Returns:
        The given ones by name, float64, in frame space.

    Raises:
        ValueError: if a matrix cannot be inverted or is no similarity.
    """
    back = invert(warp_matrix)
    result = {}
    if landmarks is not None:
        result["landmarks"] = transform_points(back, landmarks)
    if global_params is not None:
        result["global_params"] = transform_global_params(back, global_params)
    return result
