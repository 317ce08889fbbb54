"""Augmentation of training faces: image and labels change together, one seeded sample at a time.

A flip and one similarity (rotation, scale and shift) move image, landmarks and global parameters
together, by the formulas of :mod:`mlx_faceau.core.geometry`. Some faces are also stretched, as
images with a wrong aspect ratio show them: landmarks follow, shape parameters and action units
remain the true face's, and the global parameters, which cannot express a stretch, are masked.
Everything else changes the appearance alone, in the order of a photograph's life: light and
colour, optics and motion, resolution, sensor noise, compression, then the crop's own traces (edges
repeated past the photograph's border) and what covers a part of the face. Action units do not
change, which is right for a mirrored face only if its labels treat both sides of a face alike.

Augmentation holds Python's lock most of the time, so threads share one core; a GPU that trains on
thousands of faces a second needs processes.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing.util import Finalize
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.geometry import CROP_CENTRE, similarity_matrix
from mlx_faceau.data.worker import start_worker
from mlx_faceau.errors import FaceauError

_LUMA = np.array([0.299, 0.587, 0.114])  # of RGB, ITU-R BT.601
_SHADES = np.linspace(0, 1, 256)[:, None]
# 256 equally likely values of the normal distribution: noise is then a table look-up of random
# bytes, four times as fast as drawing normal numbers.
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)
Batch = dict[str, np.ndarray]
# image (112, 112, 3) uint8 RGB, its labels and masks, a generator of its own -> both, changed
Augment = Callable[[np.ndarray, Batch, np.random.Generator], tuple[np.ndarray, Batch]]
Seeds = Sequence[tuple[int, ...]]  # (seed of the run, epoch, sample)

_STRETCHED = 0.3  # share of faces that are stretched
_INSIDE = (2.0, 110.0)  # where moved landmarks may lie: the sigmoid cannot reach 0 and 112


def _limit(light: float, strong: float, jitter: float = 0.0) -> Any:
    """A limit of each level; jitter is the light level's similarity alone."""
    return field(metadata={"light": light, "strong": strong, "jitter": jitter})


@dataclass(frozen=True)
class Level:
    """How far a face moves and each step goes, and in which share of the samples it happens."""

    rotation: float = _limit(*np.radians((10, 20, 10)))  # largest angle, radians, either way
    scale: float = _limit(1.1, 1.2, 1.1)  # largest factor; at least its inverse
    shift: float = _limit(5.6, 9.0, 5.6)  # largest shift in x and in y, pixels, either way
    stretch: float = _limit(1.15, 1.3, 1.0)  # largest width / height; at least its inverse
    brightness: float = _limit(0.08, 0.15)  # largest offset, as a share of white
    contrast: float = _limit(1.2, 1.5, 1.0)  # largest factor around mid-grey; at least its inverse
    gamma: float = _limit(1.2, 1.6, 1.0)  # largest exponent; at least its inverse
    tint: float = _limit(1.06, 1.1, 1.0)  # largest factor of one channel; at least its inverse
    saturation: float = _limit(0.3, 0.6)  # largest relative change of the distance from grey
    grey: float = _limit(0.1, 0.25)  # share of samples without colour
    blur: float = _limit(0.1, 0.3)  # share of samples blurred, as by defocus or by motion
    blur_sigma: float = _limit(1.0, 1.8)  # largest sigma of the defocus, pixels
    motion: float = _limit(3.0, 7.0)  # longest path of the motion, pixels
    coarse: float = _limit(0.1, 0.25)  # share of samples shrunk and enlarged again
    coarse_side: int = _limit(72, 40)  # smallest side in between, pixels
    noise: float = _limit(0.1, 0.3)  # share of samples with Gaussian noise
    noise_sigma: float = _limit(5.0, 14.0)  # its largest sigma, levels of 255
    jpeg: float = _limit(0.1, 0.3)  # share of samples compressed
    jpeg_quality: int = _limit(60, 25)  # lowest quality
    edges: float = _limit(0.1, 0.3)  # share of samples whose borders repeat a line further in
    edge_depth: int = _limit(10, 14)  # how far in, at most, pixels
    cutout: float = _limit(0.0, 0.2)  # share of samples with a rectangle of one colour over them
    cutout_side: int = _limit(0, 28)  # its longest side, pixels
    flip: float = 0.0  # share of samples that are mirrored, whatever the level


def _level(name: str) -> Level:
    return Level(**{item.name: item.metadata[name] for item in fields(Level) if item.metadata})


# Light: the jitter of an evaluation's crops (10 degrees, 10 %, 5 %), and good photographs. Strong:
# tilted heads, loose detector boxes, and poor video; the face can still be read by eye.
LEVELS = {"none": None, "light": _level("light"), "strong": _level("strong")}
JITTER = _level("jitter")


def change_appearance(image: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """The image, (112, 112, 3) uint8 RGB, with another appearance; the one given stays as it is."""
    # Gamma, contrast, brightness and tint of each level and channel, as a table.
    tone = _SHADES ** draw_factors(level.gamma, rng)
    tone = (tone - 0.5) * draw_factors(level.contrast, rng) + 0.5
    tone = tone + rng.uniform(-level.brightness, level.brightness)
    levels = 255 * tone * draw_factors(level.tint, rng, 3)
    image = cv2.LUT(image, np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)[None])

    kept = 1 + rng.uniform(-level.saturation, level.saturation)
    if rng.random() < level.grey:
        kept = 0.0
    image = cv2.transform(image, kept * np.eye(3) + (1 - kept) * _LUMA)

    if rng.random() < level.blur:
        if rng.random() < 0.5:
            sigma = rng.uniform(0.3, level.blur_sigma)
            image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        else:
            kernel = motion_kernel(rng.uniform(2, level.motion), rng.uniform(0, np.pi))
            image = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    if rng.random() < level.coarse:
        size, side = image.shape[:2], int(rng.integers(level.coarse_side, image.shape[0]))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < level.noise:
        sigma = rng.uniform(0, level.noise_sigma)
        noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
        image = cv2.add(image, cv2.LUT(noise, np.float32(sigma) * _NORMAL), dtype=cv2.CV_8U)
    if rng.random() < level.jpeg:
        quality = int(rng.integers(level.jpeg_quality, 96))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # the codec's colour order
        _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    if rng.random() < level.edges:
        depths = rng.integers(0, level.edge_depth + 1, 4) * rng.integers(0, 2, 4)
        top, bottom, left, right = depths.tolist()
        inner = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
        image = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE)
    if rng.random() < level.cutout:  # a rectangle of one colour; it may reach past the border
        longest = level.cutout_side
        height, width = rng.integers(longest // 3, longest + 1, 2).tolist()
        y, x = rng.integers(-longest // 2, image.shape[0], 2).tolist()
        covered = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        image[covered] = rng.integers(256, size=3)
    return image


def draw_factors(largest: float, rng: np.random.Generator, count: int = 1) -> np.ndarray:
    """(count,) factors in [1 / largest, largest], as often above 1 as below."""
    bound = np.log(largest)
    return np.asarray(np.exp(rng.uniform(-bound, bound, count)))


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Weights of a straight, even movement, centred, so that it moves nothing on average.

    ``length`` is in pixels, ``angle`` in radians from x towards y; (k, k) float32, sum 1, k odd.
    """
    reach = int(np.ceil(length / 2))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(y * np.cos(angle) - x * np.sin(angle))
    weights = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(weights / weights.sum(), np.float32)


def augmentation(level: str, flip: float = 0.5) -> Augment | None:
    """The augmentation of a key of :data:`LEVELS`; None for ``"none"``.

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
