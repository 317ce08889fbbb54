"""Files of the original tool: their labels are in frame pixels and are moved to crop space here."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.errors import DatasetError

_LOG = logging.getLogger(__name__)
_NEARLY_ALL = 0.99  # share of points inside the crop from which crop space is assumed
_SIMILARITY_TOLERANCE = 1e-4  # of the scale


@dataclass(frozen=True)
class Placement:
    """Labels in crop space, and which of them can be used."""

    landmarks: np.ndarray  # (N, 68, 2) float32
    global_params: np.ndarray  # (N, 6) float32
    global_mask: np.ndarray  # (N,) float32, 0 where global_params are not in crop space
    usable: np.ndarray  # (N,) bool, False where even the landmarks cannot be placed


def place_in_crop(
    path: Path, landmarks: np.ndarray, global_params: np.ndarray, warp: np.ndarray | None
) -> Placement:
    """Move the original tool's labels to crop space.

    With warp matrices (frame to crop) both kinds are mapped; samples whose matrix is no similarity
    (the original's batch writer stored zeros) are counted and left out. Without any usable matrix
    the landmarks must already lie in the crop: then they are taken as they are and the global
    parameters are masked.

    Args:
        path: the file, for messages.
        landmarks: (N, 68, 2) float32, pixels of the frame (or of the crop).
        global_params: (N, 6) float32, pixels of the frame.
        warp: (N, 2, 3) frame to crop, or None.

    Raises:
        DatasetError: without usable matrices, unless 99 % of the points lie in [0, 112].
    """
    count = len(landmarks)
    usable = np.zeros(count, bool)
    if warp is not None:  # a rotation and one positive scale, no shear and no mirror
        matrix = np.where(np.isfinite(warp), warp, 0).astype(np.float64)
        a, b = matrix[:, 0, 0], matrix[:, 1, 0]
        scale, shear = np.hypot(a, b), np.hypot(matrix[:, 1, 1] - a, matrix[:, 0, 1] + b)
        usable = (scale > 1e-6) & (shear <= _SIMILARITY_TOLERANCE * scale)
        usable &= np.isfinite(warp).all(axis=(1, 2))
    if usable.any():
        if not usable.all():
            _LOG.warning(
                "%s: %d of %d samples have no usable warp matrix: left out",
                *(path, int((~usable).sum()), count),
            )
        landmarks, global_params, matrix = landmarks.copy(), global_params.copy(), matrix[usable]
        landmarks[usable] = geometry.transform_points(matrix, landmarks[usable])
        global_params[usable] = geometry.transform_global_params(matrix, global_params[usable])
        return Placement(landmarks, global_params, usable.astype(np.float32), usable)
    inside = float(((landmarks >= 0) & (landmarks <= 112)).all(axis=2).mean())
    if inside < _NEARLY_ALL:
        raise DatasetError(
            f"{path}: landmarks are in frame pixels ({inside:.1%} of the points inside the crop) "
            "and there are no usable 'warp_matrices' to move them; write the file again with them"
        )
    _LOG.warning(
        "%s: no usable warp_matrices; %.1f %% of the points lie inside the crop, so the landmarks "
        "are taken as crop space and the global parameters are left out of the loss",
        *(path, 100 * inside),
    )
    return Placement(landmarks, global_params, np.zeros(count, np.float32), np.ones(count, bool))
