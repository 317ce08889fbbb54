"""Crops as an imperfect face finder cuts them: shifted, scaled and rolled, labels with them."""

import cv2
import numpy as np

from mlx_faceau.architectures import IMAGE_SIZE
from mlx_faceau.geometry import similarity_matrix, transform_global_params, transform_points

SHIFT = 0.05  # of the crop's side, either way
SCALE = 0.10  # either way
ROLL = np.radians(10.0)  # either way
_CENTRE = (IMAGE_SIZE - 1) / 2


def jitter_matrices(count: int, seed: int) -> np.ndarray:
    """(count, 2, 3) random similarities about the crop's centre, uniform within the limits."""
    rng = np.random.default_rng(seed)
    draws = rng.uniform(-1.0, 1.0, (count, 4))
    return np.stack([_about_centre(*draw) for draw in draws])


def jitter_images(matrices: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Move the pixels of (N, 112, 112, 3) uint8 images; edges replicate."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    moved = [
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for matrix, image in zip(matrices, images, strict=True)
    ]
    return np.stack(moved)


def jitter_labels(matrices: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels of the moved images: landmarks and global parameters move, the rest stays."""
    return {
        **labels,
        "landmarks": transform_points(matrices, labels["landmarks"]),
        "global_params": transform_global_params(matrices, labels["global_params"]),
    }


def _about_centre(right: float, down: float, growth: float, turn: float) -> np.ndarray:
    matrix = similarity_matrix(1 + SCALE * growth, ROLL * turn, (0.0, 0.0))
    centre = np.full(2, _CENTRE)
    shift = SHIFT * IMAGE_SIZE * np.array([right, down])
    matrix[:, 2] = centre + shift - matrix[:, :2] @ centre
    return matrix
