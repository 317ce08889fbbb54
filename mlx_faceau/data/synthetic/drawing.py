"""Drawing on small images: smooth curves, anti-aliased shapes at sub-pixel positions.

Points are (n, 2) float x, y in pixels, pixel centres at whole numbers; colours are 0 to 255 in the
image's own channel order. Everything draws in place.
"""

from functools import cache

import cv2
import numpy as np

_SHIFT = 6  # bits of sub-pixel position
_STEPS = 4  # pieces of a curve between two points

Points = np.ndarray
Color = tuple[float, ...]


def _fixed(points: Points) -> np.ndarray:
    return (points * (1 << _SHIFT) + 0.5).astype(np.int32)


def color(values: np.ndarray) -> Color:
    """What cv2 takes, from channel values >= 0; brighter than white becomes white."""
    return tuple(min(value, 255.0) for value in values.tolist())


def fill(image: np.ndarray, points: Points, paint: Color) -> None:
    """A filled polygon."""
    cv2.fillPoly(image, [_fixed(points)], paint, cv2.LINE_AA, _SHIFT)


def stroke(image: np.ndarray, points: Points, paint: Color, thickness: int = 1) -> None:
    """An open line."""
    cv2.polylines(image, [_fixed(points)], False, paint, thickness, cv2.LINE_AA, _SHIFT)


def disc(image: np.ndarray, centre: np.ndarray, radius: float, paint: Color) -> None:
    """A filled circle of a radius in pixels around (2,)."""
    x, y = _fixed(centre).tolist()
    cv2.circle(image, (x, y), round(radius * (1 << _SHIFT)), paint, -1, cv2.LINE_AA, _SHIFT)


@cache
def _smoothing(count: int) -> np.ndarray:
    """Weights of a Catmull-Rom curve through ``count`` points."""
    weights = np.zeros(((count - 1) * _STEPS + 1, count))
    for row in range(len(weights)):
        first = min(row // _STEPS, count - 2)
        t = row / _STEPS - first
        for offset, value in (
            (-1, (-t + 2 * t**2 - t**3) / 2),
            (0, (2 - 5 * t**2 + 3 * t**3) / 2),
            (1, (t + 4 * t**2 - 3 * t**3) / 2),
            (2, (-(t**2) + t**3) / 2),
        ):
            weights[row, min(max(first + offset, 0), count - 1)] += value
    return weights


def curve(points: Points) -> Points:
    """A smooth open curve through the points."""
    return np.asarray(_smoothing(len(points)) @ points)


def loop(points: Points) -> Points:
    """A smooth closed curve through the points."""
    around = np.concatenate([points[-1:], points, points[:2]])
    return curve(around)[_STEPS:-_STEPS]


def blend(area: np.ndarray, top: np.ndarray, mask: np.ndarray) -> None:
    """Blend one image over another by the mask (0 to 255)."""
    share = mask[..., None].astype(np.float32) * (1 / 255)
    area[...] = area + (top - area.astype(np.float32)) * share
