"""Painting one synthetic face into a 112 x 112 RGB crop, from the back to the front.

Points are (n, 2) float x, y in pixels, pixel centres at whole numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY

from .shape import BRUISE, marks

SIZE = 112
_TINT = 0.7  # opacity of the deepest tint
_SKIN_TONES = np.array([[246, 214, 190], [226, 182, 150], [188, 134, 98], [146, 100, 72]], float)
_HAIR_TONES = np.array([[30, 24, 22], [74, 48, 30], [150, 104, 58], [214, 180, 120]], float)
_IRIS_TONES = np.array([[60, 40, 26], [92, 66, 36], [70, 110, 80], [84, 130, 170]], float)
_LIDS, _EYEBALL = np.array([45.0, 110.0, 220.0]), 236
_CAVITY, _TEETH, _TONGUE = (50, 14, 18), (240, 240, 232), (225, 40, 60)
_PIXELS = np.arange(SIZE, dtype=np.float32)
_ALONG = np.linspace(0, 1, 9)[:, None]  # from one corner of an eye to the other
_ARCH = np.sin(0.1 + (np.pi - 0.2) * _ALONG)
_LID_CREASE = 9.5  # mm above the eye's corners
_TAPER = np.array([0.35, 0.8, 1.0, 1.0, 0.85])[:, None]  # thickness along a brow
_SHIFT = 6  # bits of sub-pixel position


@dataclass(frozen=True)
class Appearance:
    """What is the same in all images of a person; colours are RGB in [0, 255]."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    clothes: np.ndarray
    brow_thickness: float  # mm
    long_hair: bool


def sample_appearance(rng: np.random.Generator) -> Appearance:
    def tone(tones: np.ndarray) -> np.ndarray:
        place = rng.uniform(0, len(tones) - 1)
        between = [np.interp(place, range(len(tones)), channel) for channel in tones.T]
        return np.asarray(between * rng.uniform(0.94, 1.06, 3))

    skin, hair = tone(_SKIN_TONES), tone(_HAIR_TONES)
    return Appearance(
        skin=skin,
        hair=hair * min(1.0, 0.75 * skin.mean() / hair.mean()),
        iris=tone(_IRIS_TONES),
        lips=skin * [1.0, 0.62, 0.6] * rng.uniform(0.85, 1.0),
        clothes=rng.uniform(40, 210) + rng.uniform(-25, 25, 3),
        brow_thickness=rng.uniform(4.0, 7.0),
        long_hair=bool(rng.random() < 0.4),
    )


def paint_face(
    landmarks: np.ndarray,
    mark_points: np.ndarray,
    intensities: np.ndarray,
    appearance: Appearance,
    scale: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paint one face, (112, 112, 3) uint8 RGB.

    Landmarks (68, 2) and points of ``marks()`` (M, 2) are crop pixels, intensities (17,) lie in
    [0, 5], the scale is in pixels per millimetre; background, gaze, light and noise are random.
    """
    units = dict(zip(AU_NAMES, (intensities / MAX_INTENSITY).tolist(), strict=True))
    across = landmarks[45] - landmarks[36]
    up = np.array([across[1], -across[0]]) * (scale / np.hypot(*across))  # 1 mm
    # Background: four colours that run into each other, and a few blurred shapes.
    grey = rng.uniform(30, 225, (2, 2, 1)) + rng.uniform(-20, 20, (2, 2, 3))
    corners = grey.clip(0, 255).astype(np.uint8)
    image = cv2.resize(corners, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(1, 4))):
        shape = rng.uniform(0, SIZE, 2) + rng.normal(0, 30, (4, 2))
        _fill(image, shape, rng.uniform(30, 225) + rng.uniform(-20, 20, 3))
    image = cv2.blur(image, (5, 5))
    _paint_head(image, landmarks, mark_points, appearance)
    _paint_nose(image, landmarks, appearance)
    # Skin that active units move is coloured, with soft edges.
    tinted, mask = image.copy(), np.zeros((SIZE, SIZE), np.uint8)
    for tint, rows in marks().tints:
        if units[tint.unit] > 0:
            _fill(tinted, mark_points[rows], tint.color)
            _fill(mask, mark_points[rows], (255 * _TINT * units[tint.unit],))
    _blend(image, tinted, cv2.blur(mask, (5, 5)))
    gaze = scale * rng.uniform((-2.5, -1.0), (2.5, 1.0)) + up
    for eye in (landmarks[36:42], landmarks[42:48]):
        _paint_eye(image, eye, units["AU45_r"], appearance, gaze, up)
    _paint_mouth(image, landmarks, units, appearance, up)
    taper = _TAPER * appearance.brow_thickness / 2 * up
    for points, half in ((landmarks[17:22], taper), (landmarks[22:27], taper[::-1])):
        outline = np.concatenate([_curve(points + half), _curve(points - half)[::-1]])
        _fill(image, outline, 0.8 * appearance.hair)
    return _light(image, landmarks[30], rng)


def _paint_head(
    image: np.ndarray, landmarks: np.ndarray, mark_points: np.ndarray, appearance: Appearance
) -> None:
    sides = {
        name: (mark_points[left], mark_points[right])
        for name, (left, right) in marks().outlines.items()
    }
    forehead, hairline, hair = (
        _curve(np.concatenate([left, right[-2::-1]]))
        for left, right in (sides[name] for name in ("forehead", "hairline", "hair"))
    )
    if appearance.long_hair:
        left, right = sides["long_hair"]
        hair = np.concatenate([left, hair, right[::-1]])
    _fill(image, hair, 0.85 * appearance.hair)
    left, right = sides["neck"]
    _fill(image, np.concatenate([left[:2], right[1::-1]]), 0.78 * appearance.skin)
    _fill(image, np.concatenate([left[1:], right[:0:-1]]), appearance.clothes)
    for ear in sides["ear"]:
        _fill(image, _curve(ear), 0.86 * appearance.skin)
    jaw = _curve(landmarks[0:17])
    _fill(image, np.concatenate([jaw, forehead[::-1]]), appearance.skin)
    _stroke(image, jaw, 0.72 * appearance.skin)
    _fill(image, np.concatenate([forehead, hairline[::-1]]), appearance.hair)


def _paint_nose(image: np.ndarray, landmarks: np.ndarray, appearance: Appearance) -> None:
    bridge, base = landmarks[27:31], landmarks[31:36]
    for wing in (base[0], base[4]):
        _fill(image, np.concatenate([bridge, [wing]]), 0.93 * appearance.skin)
    _stroke(image, _curve(bridge), 1.08 * appearance.skin, 2)
    ends = [[0.6 * wing + 0.4 * bridge[2]] for wing in (base[0], base[4])]
    _stroke(image, _curve(np.concatenate([ends[0], base, ends[1]])), 0.66 * appearance.skin)
    for nostril in (base[1], base[3]):
        _disc(image, nostril, 1.1, 0.35 * appearance.skin)


def _paint_eye(
    image: np.ndarray,
    eye: np.ndarray,
    closed: float,
    appearance: Appearance,
    gaze: np.ndarray,
    up: np.ndarray,
) -> None:
    """Lid, eyeball with iris and pupil, and lashes; ``gaze`` leads from the middle to the iris."""
    upper, lower = _curve(eye[:4]), _curve(eye[[3, 4, 5, 0]])
    crease = eye[:1] + _ALONG * (eye[3] - eye[0]) + _LID_CREASE * _ARCH * up
    _fill(image, np.concatenate([crease, upper[::-1]]), _LIDS)
    ball, mask = np.full_like(image, _EYEBALL), np.zeros((SIZE, SIZE), np.uint8)
    scale, iris = float(np.hypot(*up)), (eye[0] + eye[3]) / 2 + gaze
    _disc(ball, iris, 5.6 * scale, appearance.iris)
    _disc(ball, iris, 2.4 * scale, (12, 12, 12))
    _fill(mask, np.concatenate([upper, lower]), (255,))
    _blend(image, ball, mask)
    _stroke(image, upper, 0.25 * _LIDS, 2 if closed > 0.5 else 1)
    _stroke(image, lower, 0.6 * appearance.skin)


def _paint_mouth(
    image: np.ndarray,
    landmarks: np.ndarray,
    units: Mapping[str, float],
    appearance: Appearance,
    up: np.ndarray,
) -> None:
    outer, inner = landmarks[48:60], landmarks[60:68].copy()
    for above, below in ((1, 7), (2, 6), (3, 5)):  # lips that cross are pressed together
        overlap = float((inner[below] - inner[above]) @ up) / float(up @ up)
        inner[below] -= max(0.0, overlap) * up
    upper, lower = _curve(inner[:5]), _curve(inner[[0, 7, 6, 5, 4]])
    outer_upper, outer_lower = _curve(outer[:7]), _curve(outer[[0, 11, 10, 9, 8, 7, 6]])
    lips = appearance.lips + 0.8 * units["AU23_r"] * (np.array(BRUISE, float) - appearance.lips)
    _fill(image, np.concatenate([outer_upper, upper[::-1]]), 0.86 * lips)
    _fill(image, np.concatenate([outer_lower, lower[::-1]]), lips)
    _fill(image, np.concatenate([upper, lower[::-1]]), _CAVITY)
    gap = np.maximum(1e-6, (upper - lower) @ up / float(up @ up))[:, None]  # mm
    tongue = lower + np.minimum(1, 12 * units["AU26_r"] / gap) * (upper - lower)
    _fill(image, np.concatenate([lower, tongue[::-1]]), _TONGUE)
    teeth = upper + np.minimum(1, 9 * units["AU25_r"] / gap) * (lower - upper)
    _fill(image, np.concatenate([upper, teeth[::-1]]), _TEETH)
    for lip in (upper, lower):
        _stroke(image, lip, 0.45 * appearance.lips)


def _light(image: np.ndarray, nose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, focus and noise."""
    across, down = rng.normal(0, (0.12, 0.08)) / (SIZE / 2)
    slope = (_PIXELS - nose[1])[:, None] * down + (_PIXELS - nose[0]) * across
    lit = image * ((1 + slope.clip(-0.45, 0.45)) * rng.uniform(0.8, 1.1))[..., None]
    lit = cv2.GaussianBlur(lit.astype(np.float32), (3, 3), rng.uniform(0.25, 0.6))
    noise = rng.standard_normal(lit.shape, np.float32) * np.float32(rng.uniform(1, 5))
    return np.asarray((lit + noise + 0.5).clip(0, 255), np.uint8)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(points * (1 << _SHIFT)), np.int32)


def _fill(image: np.ndarray, points: np.ndarray, color: "np.ndarray | tuple[float, ...]") -> None:
    cv2.fillPoly(image, [_fixed(points)], np.minimum(color, 255).tolist(), cv2.LINE_AA, _SHIFT)


def _stroke(image: np.ndarray, points: np.ndarray, color: np.ndarray, thickness: int = 1) -> None:
    limited = np.minimum(color, 255).tolist()
    cv2.polylines(image, [_fixed(points)], False, limited, thickness, cv2.LINE_AA, _SHIFT)


def _disc(
    image: np.ndarray, centre: np.ndarray, radius: float, color: "np.ndarray | tuple[float, ...]"
) -> None:
    fixed, limited = _fixed(np.array([*centre, radius])).tolist(), np.minimum(color, 255).tolist()
    cv2.circle(image, fixed[:2], fixed[2], limited, -1, cv2.LINE_AA, _SHIFT)


def _curve(points: np.ndarray) -> np.ndarray:
    """A smooth open curve through the points (Catmull-Rom), four pieces between two of them."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.arange(4)[:, None, None] / 4
    pieces = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([pieces.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])


def _blend(image: np.ndarray, top: np.ndarray, mask: np.ndarray) -> None:
    """Lay an image over another by a mask in [0, 255], in place."""
    share = mask[..., None] * np.float32(1 / 255)
    image[...] = image + (top - image.astype(np.float32)) * share
