"""Jittered crops, as an imperfect detector places them, from the standard crops of a file.

A jittered crop is sampled from the stored 112 x 112 one, since a file does not hold the frame:
pixels are interpolated twice, and beyond the stored crop its edge is replicated.
"""

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import (
    CROP_CENTRE,
    similarity_matrix,
    transform_global_params,
    transform_points,
)
from mlx_faceau.video.align import crop_frame

SHIFT = 0.05  # of the crop's side, either way
SCALE = 0.10  # either way
ROLL = np.radians(10.0)  # either way


def jitter_matrices(count: int, seed: int) -> np.ndarray:
    """(count, 2, 3) random similarities about the crop's centre, uniform within the limits."""
    draws = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 4))
    limits = np.array([SHIFT, SHIFT, SCALE, ROLL])
    return np.stack([_about_centre((x, y), 1 + s, turn) for x, y, s, turn in draws * limits])


def box_error_matrices(count: int, shift: float, scale: float, seed: int) -> np.ndarray:
    """(count, 2, 3) similarities of crops cut from boxes with random errors.

    ``shift``: standard deviation of the square's centre along each axis, in sides; ``scale``: that
    of the logarithm of its side.
    """
    draws = np.random.default_rng(seed).normal(size=(count, 3)) * [shift, shift, scale]
    return np.stack([_about_centre((x, y), np.exp(s), 0.0) for x, y, s in draws])


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


def _about_centre(shift: tuple[float, float], scale: float, turn: float) -> np.ndarray:
    """Scale and turn about the crop's centre, then shift by so many sides."""
    matrix = similarity_matrix(scale, turn, (0.0, 0.0))
    centre = np.full(2, CROP_CENTRE)
    matrix[:, 2] = centre + IMAGE_SIZE * np.array(shift) - matrix[:, :2] @ centre
    return matrix
