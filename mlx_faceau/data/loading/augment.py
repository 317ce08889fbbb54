"""Augmentation of training faces: image and labels change together, one seeded sample at a time.

A flip and one similarity (rotation, scale and shift) move image, landmarks and global parameters
together, by the formulas of :mod:`mlx_faceau.core.geometry`. Some faces are also stretched, as
images with a wrong aspect ratio show them: landmarks follow, shape parameters and action units
remain the true face's, and the global parameters, which cannot express a stretch, are masked.
Everything else changes the appearance alone. Action units do not change, which is right for a
mirrored face only if its labels treat both sides of a face alike.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core.geometry import (
    CROP_CENTRE,
    flip_global_params,
    flip_landmarks,
    similarity_matrix,
    transform_global_params,
    transform_points,
)

from .augmentation_workers import Augment, Batch
from .photometric import Appearance, change_appearance, draw_factors

_STRETCHED = 0.3  # share of faces that are stretched
_INSIDE = (2.0, 110.0)  # where moved landmarks may lie: the sigmoid cannot reach 0 and 112


@dataclass(frozen=True)
class Movement:
    """How far faces move in the crop."""

    rotation: float  # largest angle, radians, either way
    scale: float  # largest factor; at least its inverse
    shift: float  # largest shift in x and in y, pixels, either way
    stretch: float = 1.0  # largest factor of the width to the height; at least its inverse
    flip: float = 0.0  # share of samples that are mirrored


@dataclass(frozen=True)
class Level:
    """A strength of augmentation."""

    movement: Movement
    appearance: Appearance


# Limits of the appearance at "light" and at "strong".
_APPEARANCE: dict[str, tuple[Any, Any]] = {
    "brightness": (0.08, 0.15),
    "contrast": (1.2, 1.5),
    "gamma": (1.2, 1.6),
    "tint": (1.06, 1.1),
    "saturation": (0.3, 0.6),
    "grey": (0.1, 0.25),
    "blur": (0.1, 0.3),
    "blur_sigma": (1.0, 1.8),
    "motion": (3.0, 7.0),
    "coarse": (0.1, 0.25),
    "coarse_side": (72, 40),
    "noise": (0.1, 0.3),
    "noise_sigma": (5.0, 14.0),
    "jpeg": (0.1, 0.3),
    "jpeg_quality": (60, 25),
    "edges": (0.1, 0.3),
    "edge_depth": (10, 14),
    "cutout": (0.0, 0.2),
    "cutout_side": (0, 28),
}
LEVELS: dict[str, Level | None] = {
    "none": None,
    # The jitter of an evaluation's crops (10 degrees, 10 %, 5 %), and good photographs.
    "light": Level(
        Movement(rotation=np.radians(10), scale=1.1, shift=5.6, stretch=1.15),
        Appearance(**{name: light for name, (light, _) in _APPEARANCE.items()}),
    ),
    # Tilted heads, loose detector boxes, and poor video; the face can still be read by eye.
    "strong": Level(
        Movement(rotation=np.radians(20), scale=1.2, shift=9.0, stretch=1.3),
        Appearance(**{name: strong for name, (_, strong) in _APPEARANCE.items()}),
    ),
}


def augmentation(level: str, flip: float = 0.5) -> Augment | None:
    """The augmentation of a level, as :class:`~mlx_faceau.data.loading.batches.Batches` takes it.

    Args:
        level: a key of :data:`LEVELS`.
        flip: share of samples that are mirrored, in [0, 1].

    Returns:
        The function, or None for ``"none"``.
    """
    chosen = LEVELS[level]
    if chosen is None:
        return None
    movement = replace(chosen.movement, flip=flip)
    return partial(augment_face, level=replace(chosen, movement=movement))


def augment_face(
    image: np.ndarray, labels: Batch, rng: np.random.Generator, level: Level
) -> tuple[np.ndarray, Batch]:
    """One face, moved and changed at random, with its labels.

    Args:
        image: (112, 112, 3) uint8 RGB; left as it is.
        labels: ``landmarks`` (68, 2) and ``global_params`` (6,) in crop pixels, and whatever else
            belongs to the sample; left as they are.
        rng: decides everything.
        level: how far to go.

    Returns:
        The new image and labels. Landmarks lie in [2, 110]; ``local_mask`` is 0 where mirrored,
        ``global_mask`` where stretched.
    """
    if rng.random() < level.movement.flip:
        image = cv2.flip(image, 1)
        flipped = {
            "landmarks": flip_landmarks(labels["landmarks"]),
            "global_params": flip_global_params(labels["global_params"]),
            "local_mask": np.zeros((), np.float32),  # a shape has no mirror without the PDM
        }
        labels = {**labels, **flipped}
    points, stretch = labels["landmarks"], draw_stretch(level.movement.stretch, rng)
    if stretch is not None:
        points = transform_points(stretch, points)
        labels = {**labels, "global_mask": np.zeros((), np.float32)}
    matrix = draw_similarity(points, level.movement, rng)
    params = transform_global_params(matrix, labels["global_params"])
    moved = {
        "landmarks": transform_points(matrix, points).astype(np.float32),
        "global_params": params.astype(np.float32),
    }
    if stretch is not None:
        matrix = matrix @ np.vstack([stretch, (0.0, 0.0, 1.0)])
    size = image.shape[1], image.shape[0]
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return change_appearance(image, level.appearance, rng), {**labels, **moved}


def draw_stretch(largest: float, rng: np.random.Generator) -> np.ndarray | None:
    """(2, 3) width by a random factor and height by its inverse, about the crop's centre.

    ``largest`` is the factor of the width to the height, at least 1. None for most faces, which are
    not stretched.
    """
    if largest == 1.0 or rng.random() >= _STRETCHED:
        return None
    width = np.sqrt(draw_factors(largest, rng)[0])
    factors = np.array([width, 1 / width])
    return np.column_stack([np.diag(factors), CROP_CENTRE * (1 - factors)])


def draw_similarity(
    landmarks: np.ndarray, limits: Movement, rng: np.random.Generator
) -> np.ndarray:
    """(2, 3) similarity about the crop's centre, at random; all (68, 2) landmarks stay in [2, 110].

    Where the draw would push one out, the scale is reduced until the face fits and the shift to
    what room is left.
    """
    angle = rng.uniform(-limits.rotation, limits.rotation)
    scale = draw_factors(limits.scale, rng)[0]
    shift = rng.uniform(-limits.shift, limits.shift, 2)
    low_end, high_end = _INSIDE
    turned = transform_points(similarity_matrix(1.0, angle, (0.0, 0.0)), landmarks)
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = min(scale, (high_end - low_end) / float((high - low).max()))
    matrix = similarity_matrix(scale, angle, (0.0, 0.0))
    centred = CROP_CENTRE - matrix[:, :2].sum(axis=1) * CROP_CENTRE
    matrix[:, 2] = np.clip(centred + shift, low_end - scale * low, high_end - scale * high)
    return matrix
