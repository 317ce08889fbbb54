"""Histograms of oriented gradients of a face turned onto a mean shape, in NumPy, MLX and torch.

OpenFace's action unit models read such features. These ones are continuous in pixels and landmarks,
so that all implementations agree and rounding changes little: the face is sampled without rounding,
its outline is soft, and a gradient of angle t weighs cos(t - d)^16 in each of 18 directions d. The
crop is sharpened first: OpenFace samples the frame itself, which no crop has blurred.

The framework is that of the arrays. Points are in units of half a crop around its centre: pixel x
of 112 is at (2 x + 1) / 112 - 1.

References:
    Felzenszwalb, Girshick, McAllester, Ramanan, Object detection with discriminatively trained
    part-based models, PAMI 2010, section 6 (cells, blocks, the 31 numbers of a cell).
    Baltrusaitis, Mahmoud, Robinson, Cross-dataset learning and person-specific normalisation for
    automatic action unit detection, FG 2015 (alignment and outline).
    Kabsch, A solution for the best rotation to relate two sets of vectors, Acta Cryst. A 1976.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, namespace, without_gradient
from .landmarks import NUM_LANDMARKS

HOG_SIZE = 31 * 12 * 12
_SIZE = 112  # px of the crop and of the aligned face
UNIT = _SIZE / 2  # px
_CELL, _CELLS = 8, 14  # px of a cell's side; cells of a side, the outermost ring left out
_ORIENTATIONS = 9  # each with its two directions
_TANGENTS = 32  # tangents whose polygon is the outline
# Cheeks beside the jaw, bridge and wings of the nose, corners and lower lids of the eyes:
# expressions hardly move them.
_STEADY = np.r_[1:5, 12:16, 27:30, 31:37, 39:43, 45:48]
_UPPER = np.r_[0, 16:27]  # temples and brows, raised to keep the forehead
_RAISED = 30.0  # px
_SHARPNESS = 0.25  # of the second differences along each axis, taken off; by training subjects
_CLIP = 0.2
_TEXTURE = (2 * _ORIENTATIONS) ** -0.5
_NORM_EPS = 1e-4  # keeps the norm of a flat block from being 0
_SCALED = 16.0
_GRADIENT_EPS = 1e-6 * _SCALED**2  # weak gradients, below a thousandth, have hardly a direction
_MIN_SHARE = 1e-4
_STEEP = 1e3  # a cosine below a thousandth counts for both directions, with its 16th power
_POINTS_EPS = 1e-4  # keeps points that lie all in one place from dividing by 0

Sampler = Callable[[Array, Array, Array], Array]


def to_units(points: np.ndarray) -> np.ndarray:
    """Pixels of a crop in the units of this module."""
    return np.asarray((points + 0.5) / UNIT - 1, np.float32)


def hog_constants() -> dict[str, np.ndarray]:
    """Arrays that :func:`hog_features` takes beside the weights, float32, by name."""
    angles = np.arange(_ORIENTATIONS) * (np.pi / _ORIENTATIONS)
    steady = np.zeros((NUM_LANDMARKS, 1))
    steady[_STEADY] = 1
    raised = np.zeros((NUM_LANDMARKS, 2))
    raised[_UPPER, 1] = -_RAISED / UNIT
    normals = np.arange(_TANGENTS) * (2 * np.pi / _TANGENTS)
    normals = np.stack([np.cos(normals), np.sin(normals)])  # (2, 32)
    places = np.broadcast_to(to_units(np.arange(_SIZE)), (_SIZE, _SIZE))
    grid = np.stack([places, places.T])  # (2, 112, 112): x, y of every pixel
    flat = np.pad(np.eye(_SIZE), ((1, 1), (0, 0)), "edge")
    pixels = (np.arange(1, _SIZE - 1) + 0.5) / _CELL - 0.5  # in cells
    shares = 1 - np.abs(pixels - np.arange(_CELLS)[:, None])
    constants = {
        "steady": steady,
        "raised": raised,
        "normals": normals,
        "grid": grid,
        "heights": np.einsum("ck,cyx->kyx", normals, grid),  # of pixels, along each normal
        "sharpener": np.eye(_SIZE) - _SHARPNESS * np.diff(flat, 2, axis=0),
        "cosines": np.cos(angles)[:, None, None],
        "sines": np.sin(angles)[:, None, None],
        "cells": np.maximum(shares, 0),  # (14, 110): a pixel votes in two cells of each axis
        "luminance": np.array([0.299, 0.587, 0.114]),
    }
    return {name: np.asarray(array, np.float32) for name, array in constants.items()}


def hog_features(
    grey: Array,
    points: Array,
    weights: Mapping[str, Array],
    constants: Mapping[str, Array],
    sample: Sampler | None = None,
) -> Array:
    """(N, 4464) features in [0, 0.71] of grey crops (N, 112, 112) in [0, 1].

    Args:
        grey: the crops.
        points: (N, 68, 2) landmarks, in units.
        weights: ``template`` (68, 2), the mean shape in the aligned face; ``shift.weight``
            (2, 136) and ``shift.bias`` (2,), by which a face whose steady points lie on the
            template moves further, linear in its aligned points.
        constants: of :func:`hog_constants`.
        sample: bilinear sampling of (N, 112, 112) at x, y (N, 112, 112) each, 0 outside; by
            default one of array operations.
    """
    return histograms(aligned_face(grey, points, weights, constants, sample), constants)


def aligned_face(
    grey: Array,
    points: Array,
    weights: Mapping[str, Array],
    constants: Mapping[str, Array],
    sample: Sampler | None = None,
) -> Array:
    """(N, 112, 112) the faces turned onto the template, 0 outside the outline of their landmarks.

    Arguments are those of :func:`hog_features`.
    """
    alignment, aligned = align(points, weights, constants)
    outline = aligned + constants["raised"]
    reach = _largest(outline @ constants["normals"], 1)[:, :, None, None]
    outside = _largest(constants["heights"] - reach, 1)  # (N, 112, 112) from the nearest tangent
    inside = namespace(grey).clip(0.5 - UNIT * outside, 0, 1)
    sharp = constants["sharpener"] @ grey @ constants["sharpener"].T
    return (sample or _sample)(sharp, *alignment.to_crop(constants["grid"])) * inside


class Alignment(NamedTuple):
    """Similarities of N faces from crop to aligned face, in units."""

    cosine: Array  # (N, 1, 1) scale times the turn's cosine, and its sine
    sine: Array
    square: Array  # (N, 1, 1) of the scale
    centre: Array  # (N, 1, 2) of the steady points in the crop
    target: Array  # (N, 1, 2) where it comes to lie

    def to_face(self, points: Array) -> Array:
        """Where points (N, P, 2) of the crop lie in the aligned face."""
        x, y = points[..., :1] - self.centre[..., :1], points[..., 1:] - self.centre[..., 1:]
        turned = [self.cosine * x - self.sine * y, self.sine * x + self.cosine * y]
        return _joined(namespace(points), turned, 2) + self.target

    def to_crop(self, grid: Array) -> tuple[Array, Array]:
        """Where pixels (2, H, W) of the aligned face lie in the crop: x and y, (N, H, W) each."""
        x, y = grid[0] - self.target[..., :1], grid[1] - self.target[..., 1:]
        return (
            (self.cosine * x + self.sine * y) / self.square + self.centre[..., :1],
            (self.cosine * y - self.sine * x) / self.square + self.centre[..., 1:],
        )


def align(
    points: Array, weights: Mapping[str, Array], constants: Mapping[str, Array]
) -> tuple[Alignment, Array]:
    """The faces' alignment, and their aligned points (N, 68, 2).

    Rotation: least squares of the steady points onto the template's; scale: ratio of their root
    mean square sizes; then their centres, and the shift. Arguments are those of
    :func:`hog_features`.
    """
    xp = namespace(points)
    steady, template = constants["steady"], weights["template"]
    count = len(_STEADY)
    centre = (points * steady).sum(1)[:, None] / count
    target_centre = (template * steady).sum(0) / count
    source, target = (points - centre) * steady, (template - target_centre) * steady
    cosine = (source * target).sum(2).sum(1)[:, None, None]
    sine = (source[..., 0] * target[:, 1] - source[..., 1] * target[:, 0]).sum(1)[:, None, None]
    length = xp.sqrt(cosine * cosine + sine * sine + _POINTS_EPS)
    size = (source * source).sum(2).sum(1)[:, None, None] + _POINTS_EPS
    square = (target * target).sum() / size
    cosine, sine = cosine / length * xp.sqrt(square), sine / length * xp.sqrt(square)

    aligned = Alignment(cosine, sine, square, centre, target_centre).to_face(points)
    shift = aligned.reshape(-1, 2 * NUM_LANDMARKS) @ weights["shift.weight"].T
    shift = (shift + weights["shift.bias"])[:, None]
    return Alignment(cosine, sine, square, centre, target_centre + shift), aligned + shift


def _sample(image: Array, x: Array, y: Array) -> Array:
    """Bilinear sampling, 0 outside the image."""
    xp = namespace(image)
    padded = xp.pad(image, ((0, 0), (1, 1), (1, 1)))
    side = _SIZE + 2
    flat, whole = padded.reshape(-1, side * side), xp.int32
    x, y = (xp.where(values == values, values, 0) for values in (x, y))  # a NaN is no index
    x, y = (xp.clip((values + 1) * UNIT + 0.5, 0, _SIZE + 1) for values in (x, y))
    left, top = (xp.clip(xp.floor(values), 0, _SIZE) for values in (x, y))
    right, down = x - left, y - top
    # MLX would ask for the gradient of an index.
    first = without_gradient((top * side + left).astype(whole).reshape(-1, _SIZE * _SIZE))
    a, b, c, d = (
        xp.take_along_axis(flat, first + step, 1).reshape(-1, _SIZE, _SIZE)
        for step in (0, 1, side, side + 1)
    )
    return (a * (1 - right) + b * right) * (1 - down) + (c * (1 - right) + d * right) * down


def histograms(face: Array, constants: Mapping[str, Array]) -> Array:
    """(N, 4464) of grey images (N, 112, 112): 31 planes of 12 rows of 12 cells."""
    xp = namespace(face)
    x = face[:, None, 1:-1, 2:] - face[:, None, 1:-1, :-2]
    y = face[:, None, 2:, 1:-1] - face[:, None, :-2, 1:-1]
    # Scaled, so that half precision holds the squares and the constant beside them. (It does not
    # hold the energies of blocks full of black and white stripes 2 px wide, which no face has.)
    wide_x, wide_y = _SCALED * x, _SCALED * y
    length = xp.sqrt(wide_x * wide_x + wide_y * wide_y + _GRADIENT_EPS)
    cosine = wide_x / length * constants["cosines"] + wide_y / length * constants["sines"]
    # At least _MIN_SHARE: its 8th power would be a denormal number, which takes ten times as long.
    share = xp.clip(cosine * cosine, _MIN_SHARE, 1)
    share = share * share
    share = share * share
    both = share * share * length / _SCALED  # (N, 9, 110, 110): a direction and its opposite
    ahead = both * xp.clip(_STEEP * cosine, 0, 1)
    cells = constants["cells"]
    unsigned, forward = (cells @ votes @ cells.T for votes in (both, ahead))
    signed = _joined(xp, [forward, unsigned - forward], 1)

    # Histograms over the norms of the four 2 x 2 blocks around each cell.
    energy = (unsigned * unsigned).sum(1)
    blocks = energy[:, :-1, :-1] + energy[:, 1:, :-1] + energy[:, :-1, 1:] + energy[:, 1:, 1:]
    norms = xp.sqrt(blocks + _NORM_EPS)[:, None]
    signed, unsigned = signed[:, :, 1:-1, 1:-1], unsigned[:, :, 1:-1, 1:-1]
    sums, textures = [], []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        norm = norms[:, :, row : row + 12, column : column + 12]
        clipped = xp.clip(signed / norm, 0, _CLIP)
        sums.append((clipped, xp.clip(unsigned / norm, 0, _CLIP)))
        textures.append(_TEXTURE * clipped.sum(1)[:, None])
    planes = [0.5 * (a + b + c + d) for a, b, c, d in zip(*sums, strict=True)]
    return _joined(xp, [*planes, *textures], 1).reshape(-1, HOG_SIZE)


def _largest(x: Array, axis: int) -> Array:
    return x.amax(axis) if hasattr(x, "amax") else x.max(axis)


def _joined(xp: Any, arrays: list[Array], axis: int) -> Array:
    """Arrays one after another; coremltools knows torch's by the first name alone."""
    return (xp.cat if hasattr(xp, "cat") else xp.concatenate)(arrays, axis)
