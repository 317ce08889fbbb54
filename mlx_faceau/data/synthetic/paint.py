"""Painting one synthetic face into a 112 x 112 RGB crop, from the back to the front."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY

from .drawing import Points, blend, color, curve, disc, fill, loop, stroke
from .marks import BRUISE, marks

SIZE = 112
_INK = 0.6  # share of light that the deepest wrinkle takes away
_TINT = 0.7  # opacity of the deepest tint
_SKIN_TONES = np.array([[246, 214, 190], [226, 182, 150], [188, 134, 98], [146, 100, 72]], float)
_HAIR_TONES = np.array([[30, 24, 22], [74, 48, 30], [150, 104, 58], [214, 180, 120]], float)
_IRIS_TONES = np.array([[60, 40, 26], [92, 66, 36], [70, 110, 80], [84, 130, 170]], float)
_PIXELS = np.arange(SIZE, dtype=np.float32)
_ALONG = np.linspace(0, 1, 9)[:, None]  # from one corner of an eye to the other
_ARCH = np.sin(0.1 + (np.pi - 0.2) * _ALONG)
_TAPER = np.array([0.35, 0.8, 1.0, 1.0, 0.85])[:, None]  # thickness along a brow


@dataclass(frozen=True)
class Appearance:
    """What is the same in all images of a person; colours are RGB in [0, 255]."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    lids: np.ndarray
    clothes: np.ndarray
    brow_thickness: float  # mm
    lid_crease: float  # mm above the eye's corners
    long_hair: bool


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw the appearance of a person at random."""
    skin = _tone(_SKIN_TONES, rng)
    hair = _tone(_HAIR_TONES, rng)
    red = np.array([[1.0, 0.62, 0.6]]) * rng.uniform(0.85, 1.0)
    return Appearance(
        skin=skin,
        hair=hair * min(1.0, 0.75 * skin.mean() / hair.mean()),
        iris=_tone(_IRIS_TONES, rng),
        lips=skin * red[0],
        lids=np.array([50.0, 120.0, 240.0]) * rng.uniform(0.85, 1.0),
        clothes=rng.uniform(40, 210) + rng.uniform(-25, 25, 3),
        brow_thickness=rng.uniform(4.0, 7.0),
        lid_crease=rng.uniform(9.0, 10.0),
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
    """Paint one face.

    Args:
        landmarks: (68, 2) crop pixels.
        mark_points: (M, 2) crop pixels of :func:`~mlx_faceau.data.synthetic.marks.marks`.
        intensities: (17,) action units in [0, 5].
        appearance: of the person.
        scale: pixels per millimetre.
        rng: draws background, gaze, light and noise.

    Returns:
        (112, 112, 3) uint8 RGB.
    """
    units = dict(zip(AU_NAMES, (intensities / MAX_INTENSITY).tolist(), strict=True))
    outlines = {name: mark_points[rows] for name, rows in marks().outlines.items()}
    up = _up(landmarks) * scale
    image = _background(rng)
    _head(image, landmarks, outlines, appearance)
    _nose(image, landmarks, appearance)
    _tint(image, mark_points, units)
    _eyes(image, landmarks, units, appearance, up, scale, rng)
    _mouth(image, landmarks, units, appearance, up)
    _brows(image, landmarks, appearance, up)
    return _finish(image, _ink(mark_points, units), landmarks, rng)


def _tone(tones: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour between two neighbours of a scale of tones, a little off."""
    place = rng.uniform(0, len(tones) - 1)
    first = min(int(place), len(tones) - 2)
    mixed = tones[first] + (place - first) * (tones[first + 1] - tones[first])
    return np.asarray(mixed * rng.uniform(0.94, 1.06, 3))


def _up(landmarks: np.ndarray) -> np.ndarray:
    """(2,) unit vector from the chin to the brows in the image."""
    across = landmarks[45] - landmarks[36]
    return np.asarray(np.array([across[1], -across[0]]) / np.hypot(*across))


def _background(rng: np.random.Generator) -> np.ndarray:
    """Four colours that run into each other, and a few blurred shapes."""
    grey = rng.uniform(30, 225, (2, 2, 1)) + rng.uniform(-20, 20, (2, 2, 3))
    corners = grey.clip(0, 255).astype(np.uint8)
    image = cv2.resize(corners, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(1, 4))):
        shape = rng.uniform(0, SIZE, 2) + rng.normal(0, 30, (4, 2))
        fill(image, shape, color(rng.uniform(30, 225) + rng.uniform(-20, 20, 3)))
    return np.asarray(cv2.blur(image, (5, 5)))


def _head(
    image: np.ndarray,
    landmarks: np.ndarray,
    outlines: Mapping[str, np.ndarray],
    appearance: Appearance,
) -> None:
    jaw = landmarks[0:17]
    hair = curve(outlines["hair"])
    if appearance.long_hair:
        left, right = np.split(outlines["long_hair"], 2)
        hair = np.concatenate([left, hair, right])
    fill(image, hair, color(0.85 * appearance.hair))
    left, right = np.split(outlines["neck"], 2)
    fill(image, np.concatenate([left[:2], right[1::-1]]), color(0.78 * appearance.skin))
    fill(image, np.concatenate([left[1:], right[:0:-1]]), color(appearance.clothes))
    for ear in np.split(outlines["ear"], 2):
        fill(image, curve(ear), color(0.86 * appearance.skin))
    fill(
        image,
        np.concatenate([curve(jaw), curve(outlines["forehead"][::-1])]),
        color(appearance.skin),
    )
    stroke(image, curve(jaw), color(0.72 * appearance.skin))
    cap = np.concatenate([curve(outlines["forehead"]), curve(outlines["hairline"])[::-1]])
    fill(image, cap, color(appearance.hair))


def _tint(image: np.ndarray, mark_points: np.ndarray, units: Mapping[str, float]) -> None:
    """Colour the skin that active units move, with soft edges."""
    tinted, mask = image.copy(), np.zeros((SIZE, SIZE), np.uint8)
    for tint, rows in marks().tints:
        if units[tint.unit] > 0:
            patch = loop(mark_points[rows])
            fill(tinted, patch, tint.color)
            fill(mask, patch, (255 * _TINT * units[tint.unit],))
    blend(image, tinted, cv2.blur(mask, (3, 3)))


def _nose(image: np.ndarray, landmarks: np.ndarray, appearance: Appearance) -> None:
    bridge, base = landmarks[27:31], landmarks[31:36]
    for wing in (base[0], base[4]):
        side = np.concatenate([bridge, [wing]])
        fill(image, side, color(0.93 * appearance.skin))
    stroke(image, curve(bridge), color(1.08 * appearance.skin), 2)
    outline = np.concatenate(
        [[0.6 * base[0] + 0.4 * bridge[2]], base, [0.6 * base[4] + 0.4 * bridge[2]]]
    )
    stroke(image, curve(outline), color(0.66 * appearance.skin))
    for nostril in (base[1], base[3]):
        disc(image, nostril, 1.1, color(0.35 * appearance.skin))


def _eyes(
    image: np.ndarray,
    landmarks: np.ndarray,
    units: Mapping[str, float],
    appearance: Appearance,
    up: np.ndarray,
    scale: float,
    rng: np.random.Generator,
) -> None:
    gaze = scale * rng.uniform((-2.5, -1.0), (2.5, 1.0))
    for eye in (landmarks[36:42], landmarks[42:48]):
        upper, lower = curve(eye[:4]), curve(eye[[3, 4, 5, 0]])
        middle = (eye[0] + eye[3]) / 2
        crease = eye[:1] + _ALONG * (eye[3] - eye[0]) + appearance.lid_crease * _ARCH * up
        fill(image, np.concatenate([crease, upper[::-1]]), color(appearance.lids))
        stroke(image, crease, color((0.55 + 0.45 * units["AU05_r"]) * appearance.skin))
        _ball(image, upper, lower, middle + gaze + 1.0 * up, appearance, scale)
        stroke(image, upper, color(0.25 * appearance.lids), 2 if units["AU45_r"] > 0.5 else 1)
        stroke(image, lower, color(0.6 * appearance.skin))


def _ball(
    image: np.ndarray,
    upper: Points,
    lower: Points,
    centre: np.ndarray,
    appearance: Appearance,
    scale: float,
) -> None:
    """White, iris and pupil, seen between the lids."""
    opening = np.concatenate([upper, lower])
    left, top = np.clip(opening.min(axis=0).astype(int) - 2, 0, SIZE - 1)
    right, bottom = np.clip(opening.max(axis=0).astype(int) + 3, 1, SIZE)
    area = image[top:bottom, left:right]
    ball, mask = np.full_like(area, 236), np.zeros(area.shape[:2], np.uint8)
    corner = np.array([left, top])
    disc(ball, centre - corner, 5.6 * scale, color(appearance.iris))
    disc(ball, centre - corner, 2.4 * scale, (12, 12, 12))
    disc(ball, centre - corner - 1.2 * scale, 0.7, (250, 250, 250))
    fill(mask, opening - corner, (255,))
    blend(area, ball, mask)


def _mouth(
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
    upper, lower = curve(inner[:5]), curve(inner[[4, 5, 6, 7, 0]])
    outer_upper, outer_lower = curve(outer[:7]), curve(outer[[6, 7, 8, 9, 10, 11, 0]])
    lips = appearance.lips + 0.8 * units["AU23_r"] * (np.array(BRUISE, float) - appearance.lips)
    fill(image, np.concatenate([outer_upper, upper[::-1]]), color(0.86 * lips))
    fill(image, np.concatenate([outer_lower, lower[::-1]]), color(lips))
    opening = np.concatenate([upper, lower])
    fill(image, opening, (50, 14, 18))
    lower = lower[::-1]  # from the same corner as the upper one
    gap = np.maximum(1e-6, (upper - lower) @ up / float(up @ up))[:, None]  # mm
    tongue = lower + np.minimum(1, 12 * units["AU26_r"] / gap) * (upper - lower)
    fill(image, np.concatenate([lower, tongue[::-1]]), (225, 40, 60))
    teeth = upper + np.minimum(1, 9 * units["AU25_r"] / gap) * (lower - upper)
    fill(image, np.concatenate([upper, teeth[::-1]]), (240, 240, 232))
    stroke(image, upper, color(0.4 * appearance.lips))
    stroke(image, lower, color(0.5 * appearance.lips))


def _brows(
    image: np.ndarray, landmarks: np.ndarray, appearance: Appearance, up: np.ndarray
) -> None:
    taper = _TAPER * appearance.brow_thickness / 2 * up
    for points, half in ((landmarks[17:22], taper), (landmarks[22:27], taper[::-1])):
        outline = np.concatenate([curve(points + half), curve(points - half)[::-1]])
        fill(image, outline, color(0.8 * appearance.hair))


def _ink(mark_points: np.ndarray, units: Mapping[str, float]) -> np.ndarray:
    """(112, 112) uint8: how deep the wrinkles are."""
    ink = np.zeros((SIZE, SIZE), np.uint8)
    for wrinkle, rows in marks().wrinkles:
        depth = units[wrinkle.unit]
        if depth > 0.01:
            stroke(ink, curve(mark_points[rows]), (255 * depth,))
    return ink


def _finish(
    image: np.ndarray, ink: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Wrinkles, light from one side, focus and noise."""
    across, down = rng.normal(0, (0.12, 0.08))
    x, y = landmarks[30]
    light = ((_PIXELS - y) * (down / 56))[:, None] + (_PIXELS - x) * (across / 56)
    light = (1 + light.clip(-0.45, 0.45)) * rng.uniform(0.8, 1.1) * (1 - _INK / 255 * ink)
    lit = cv2.multiply(image, cv2.merge([light.astype(np.float32)] * 3), dtype=cv2.CV_8U)
    lit = cv2.GaussianBlur(lit, (3, 3), rng.uniform(0.25, 0.6))
    row, column = rng.integers(0, 64, 2)
    grain = _grain()[row : row + SIZE, column : column + SIZE]
    return np.asarray(cv2.addWeighted(lit, 1.0, grain, rng.uniform(1, 5), 0, dtype=cv2.CV_8U))


@cache
def _grain() -> np.ndarray:
    """(176, 176, 3) noise of deviation 1, of which each image takes a window."""
    return np.random.default_rng(0).standard_normal((SIZE + 64, SIZE + 64, 3), dtype=np.float32)
