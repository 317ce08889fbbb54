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
from .photometric import Appearance, change_appearance, draw_factors, limit, limits_of

_STRETCHED = 0.3  # share of faces that are stretched
_INSIDE = (2.0, 110.0)  # where moved landmarks may lie: the sigmoid cannot reach 0 and 112


@dataclass(frozen=True)
class Movement:
    """How far faces move in the crop."""

    rotation: float = limit(np.radians(10), np.radians(20))  # largest angle, radians, either way
    scale: float = limit(1.1, 1.2)  # largest factor; at least its inverse
    shift: float = limit(5.6, 9.0)  # largest shift in x and in y, pixels, either way
    stretch: float = limit(1.15, 1.3)  # largest factor of width to height; at least its inverse
    flip: float = limit(0.0, 0.0)  # share of samples that are mirrored


@dataclass(frozen=True)
class Level:
    """A strength of augmentation."""

    movement: Movement
    appearance: Appearance


# Light: the jitter of an evaluation's crops (10 degrees, 10 %, 5 %), and good photographs. Strong:
# tilted heads, loose detector boxes, and poor video; the face can still be read by eye.
LEVELS: dict[str, Level | None] = {
    "none": None,
    **{
        level: Level(limits_of(Movement, level), limits_of(Appearance, level))
        for level in ("light", "strong")
    },
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
