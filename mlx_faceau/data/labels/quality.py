"""Quality of a labelled crop: measures, a score, and limits by which faces are dropped."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import cv2
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.pdm import PDM

from .face_labels import FaceLabels

_DARK, _BRIGHT = 4, 251  # grey levels that count as clipped
_SMALL = 28  # side of the reduced images that are compared
# Measure -> values that score 0 and 1, linear between them; NaN scores 1. The median of press
# photographs and of interview videos scores 1.
_RAMPS: dict[str, tuple[float, float]] = {
    "sharpness": (0.0, 60.0),
    "clipped": (0.5, 0.1),
    "face_size": (20.0, 112.0),
    "turn": (75.0, 30.0),
    "landmark_error": (4.0, 1.0),
    "confidence": (0.4, 0.9),
}


def _limit(default: float, text: str) -> float:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Limits:
    """Which faces are kept. A measure that is unknown (NaN) passes."""

    min_confidence: float = _limit(0.8, "minimum confidence of the labeller, 0 to 1")
    min_size: float = _limit(40.0, "minimum side of the face's square in the frame, pixels")
    min_sharpness: float = _limit(5.0, "minimum variance of the crop's Laplacian")
    min_brightness: float = _limit(20.0, "minimum mean grey level of the face, 0 to 255")
    max_brightness: float = _limit(240.0, "maximum mean grey level of the face")
    max_clipped: float = _limit(0.5, "maximum share of black or white pixels in the face")
    max_turn: float = _limit(70.0, "maximum angle between face and camera, degrees")
    max_landmark_error: float = _limit(
        4.0, "maximum distance of landmarks to their PDM parameters' projection, crop pixels"
    )
    min_change: float = _limit(0.3, "minimum change from the last kept image, grey levels")
    min_quality: float = _limit(0.0, "minimum score, 0 to 1")

    def broken(self, measures: Mapping[str, float], score: float) -> str | None:
        """The name of the first limit that a face exceeds, or None."""
        known = {**measures, "size": measures["face_size"], "quality": score}
        for limit in fields(self):
            side, _, name = limit.name.partition("_")
            bound, value = getattr(self, limit.name), known[name]
            if value < bound if side == "min" else value > bound:
                return limit.name
        return None


def measure(
    image: np.ndarray, face: FaceLabels, matrix: np.ndarray, pdm: PDM | None
) -> dict[str, float]:
    """Measures of a standard crop, (112, 112, 3) uint8 BGR, all but ``change``.

    ``face`` has its labels in frame pixels, ``matrix`` (2, 3) leads from the frame to the crop.

    Returns:
        ``sharpness``: variance of the Laplacian; ``brightness``: mean grey level and ``clipped``:
        share of black and white pixels, both inside the landmarks' bounding box; ``face_size``:
        side of the crop's square in frame pixels; ``turn``: angle between the face's direction and
        the camera's, degrees; ``landmark_error``: mean distance of the landmarks to their
        parameters' projection, crop pixels, NaN without a PDM; ``confidence``: the labeller's.

    Reference:
        Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000 (variance of
        the Laplacian).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    points = geometry.transform_points(matrix, face.landmarks)
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, IMAGE_SIZE - 2)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int), low + 1, IMAGE_SIZE)
    inside = grey[low[1] : high[1], low[0] : high[0]]
    towards_camera = geometry.euler_to_matrix(face.global_params[1:4])[2, 2]
    landmark_error = float("nan")
    if pdm is not None:
        fitted = geometry.project(pdm.mean, pdm.basis, face.global_params, face.local_params)
        distances = np.linalg.norm(fitted - face.landmarks, axis=1)
        landmark_error = scale * float(distances.mean())
    return {
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        "brightness": float(inside.mean()),
        "clipped": float(((inside <= _DARK) | (inside >= _BRIGHT)).mean()),
        "face_size": IMAGE_SIZE / scale,
        "turn": float(np.degrees(np.arccos(np.clip(towards_camera, -1, 1)))),
        "landmark_error": landmark_error,
        "confidence": face.confidence,
    }


def score(measures: Mapping[str, float]) -> float:
    """A face's quality in [0, 1]: the worst of its parts."""
    parts = [
        (measures[name] - worst) / (best - worst)
        for name, (worst, best) in _RAMPS.items()
        if np.isfinite(measures[name])
    ]
    return float(np.clip(min(parts, default=1.0), 0.0, 1.0))


def reduced(image: np.ndarray) -> np.ndarray:
    """(28, 28) float32 grey image of a crop, for :func:`change`."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA).astype(np.float32)


def change(one: np.ndarray, other: np.ndarray | None) -> float:
    """Mean absolute difference of two reduced images, grey levels; NaN without another one."""
    return float("nan") if other is None else float(np.abs(one - other).mean())
