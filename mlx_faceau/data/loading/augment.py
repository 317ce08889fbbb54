"""Augmentation of training faces: image and labels change together, one seeded sample at a time.

A flip and one similarity (rotation, scale and shift) move image, landmarks and global parameters
together, by the formulas of :mod:`mlx_faceau.core.geometry`. Some faces are also stretched, as
images with a wrong aspect ratio show them: landmarks follow, shape parameters and action units
remain the true face's, and the global parameters, which cannot express a stretch, are masked.
Everything else changes the appearance alone. Action units do not change, which is right for a
mirrored face only if its labels treat both sides of a face alike.

Augmentation holds Python's lock most of the time, so threads share one core; a GPU that trains on
thousands of faces a second needs processes.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize

import cv2
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.geometry import CROP_CENTRE, similarity_matrix
from mlx_faceau.data.worker import start_worker
from mlx_faceau.errors import FaceauError

from .levels import LEVELS, Level
from .photometric import change_appearance, draw_factors

Batch = dict[str, np.ndarray]
# image (112, 112, 3) uint8 RGB, its labels and masks, a generator of its own -> both, changed
Augment = Callable[[np.ndarray, Batch, np.random.Generator], tuple[np.ndarray, Batch]]
Seeds = Sequence[tuple[int, ...]]  # (seed of the run, epoch, sample)

_STRETCHED = 0.3  # share of faces that are stretched
_INSIDE = (2.0, 110.0)  # where moved landmarks may lie: the sigmoid cannot reach 0 and 112


def augmentation(level: str, flip: float = 0.5) -> Augment | None:
    """The augmentation of a key of :data:`.levels.LEVELS`; None for ``"none"``.

    ``flip`` is the share of samples that are mirrored, in [0, 1].
    """
    chosen = LEVELS[level]
    return None if chosen is None else partial(augment_face, level=replace(chosen, flip=flip))


def augment_face(
    image: np.ndarray, labels: Batch, rng: np.random.Generator, level: Level
) -> tuple[np.ndarray, Batch]:
    """A face's image, (112, 112, 3) uint8 RGB, and labels, moved and changed at random.

    Those given are left as they are: ``landmarks`` (68, 2) and ``global_params`` (6,) in crop
    pixels, and whatever else belongs to the sample. New landmarks lie in [2, 110]; ``local_mask``
    is 0 where mirrored, ``global_mask`` where stretched.
    """
    labels = dict(labels)
    points, params = labels["landmarks"], labels["global_params"]
    if rng.random() < level.flip:
        image = cv2.flip(image, 1)
        points, params = geometry.flip_landmarks(points), geometry.flip_global_params(params)
        labels["local_mask"] = np.zeros((), np.float32)  # a shape has no mirror without the PDM
    stretch = draw_stretch(level.stretch, rng)
    if stretch is not None:
        points = geometry.transform_points(stretch, points)
        labels["global_mask"] = np.zeros((), np.float32)
    matrix = draw_similarity(points, level, rng)
    labels["landmarks"] = geometry.transform_points(matrix, points).astype(np.float32)
    params = geometry.transform_global_params(matrix, params)
    labels["global_params"] = params.astype(np.float32)
    if stretch is not None:
        matrix = matrix @ np.vstack([stretch, (0.0, 0.0, 1.0)])
    size = image.shape[1], image.shape[0]
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return change_appearance(image, level, rng), labels


def draw_stretch(largest: float, rng: np.random.Generator) -> np.ndarray | None:
    """(2, 3) width by a random factor and height by its inverse; None for most faces.

    It is about the crop's centre. ``largest`` is the factor of the width to the height, >= 1.
    """
    if largest == 1.0 or rng.random() >= _STRETCHED:
        return None
    width = np.sqrt(draw_factors(largest, rng)[0])
    factors = np.array([width, 1 / width])
    return np.column_stack([np.diag(factors), CROP_CENTRE * (1 - factors)])


def draw_similarity(landmarks: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """(2, 3) similarity about the crop's centre, at random; all (68, 2) landmarks stay in [2, 110].

    Where the draw would push one out, the scale is reduced until the face fits and the shift to
    what room is left.
    """
    angle = rng.uniform(-level.rotation, level.rotation)
    scale = draw_factors(level.scale, rng)[0]
    shift = rng.uniform(-level.shift, level.shift, 2)
    low_end, high_end = _INSIDE
    turned = geometry.transform_points(similarity_matrix(1.0, angle, (0.0, 0.0)), landmarks)
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = min(scale, (high_end - low_end) / float((high - low).max()))
    matrix = similarity_matrix(scale, angle, (0.0, 0.0))
    centred = CROP_CENTRE - matrix[:, :2].sum(axis=1) * CROP_CENTRE
    matrix[:, 2] = np.clip(centred + shift, low_end - scale * low, high_end - scale * high)
    return matrix


def augment_batch(
    augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
) -> tuple[np.ndarray, Batch]:
    """Change the faces of a batch in place, each by a generator of its own seed; the same arrays.

    ``images`` are (B, 112, 112, 3) uint8 RGB, ``labels`` (B, ...) each.
    """
    for row, seed in enumerate(seeds):
        face = {name: values[row] for name, values in labels.items()}
        images[row], changed = augment(images[row], face, np.random.default_rng(seed))
        for name, value in changed.items():
            labels[name][row] = value
    return images, labels


class AugmentationPool:
    """Runs :func:`augment_batch` in processes, which start with the first batch.

    The function that changes a face must be importable there. A program that starts them guards its
    entry with ``if __name__ == "__main__"``, as Python's multiprocessing asks.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, initializer=start_worker)
        # A process that was itself started by multiprocessing waits for its children before the
        # executor would end them; and it first closes, with priority 10, the queue that tells them.
        Finalize(self, _shut_down, (self._pool,), exitpriority=20)

    def augment_batch(
        self, augment: Augment, images: np.ndarray, labels: Batch, seeds: Seeds
    ) -> tuple[np.ndarray, Batch]:
        """New arrays, as :func:`augment_batch` returns them."""
        try:
            return self._pool.submit(augment_batch, augment, images, labels, seeds).result()
        except BrokenProcessPool:
            raise FaceauError(
                "an augmentation process was killed, perhaps because memory ran short; continue "
                "with --resume and fewer --num-processes"
            ) from None


def _shut_down(pool: ProcessPoolExecutor) -> None:
    # The last reference may go in the executor's own thread, which cannot wait for itself; at the
    # exit, where waiting matters, it is the main thread that comes here.
    pool.shutdown(wait=threading.current_thread() is threading.main_thread())
