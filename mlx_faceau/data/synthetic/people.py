"""Synthetic people with exact labels, for tests and first trainings.

Everything is drawn by this project from a seed: no photograph, no third-party shape model. An image
shows a person (shape and appearance), an expression (action units, which move points, tint skin and
show in eyes and mouth), a pose and a light. Landmarks are exactly the parameters' projection.

Units mostly occur together, in five expressions: the networks' heads start so small that they learn
one direction of variation after the other, and five of them fit into a few hundred steps.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.data.format.columns import checked_block
from mlx_faceau.data.format.row_io import create_new_file
from mlx_faceau.errors import UsageError

from .shape import BRUISE, marks, shape_model

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
# Units that come together, with their share of the expression's intensity.
_EXPRESSIONS: dict[str, dict[str, float]] = {
    "joy": {"AU06_r": 1.0, "AU12_r": 1.0, "AU25_r": 0.9},
    "surprise": {"AU01_r": 1.0, "AU02_r": 1.0, "AU05_r": 0.9, "AU26_r": 1.0},
    "anger": {"AU04_r": 1.0, "AU07_r": 0.9, "AU23_r": 1.0},
    "disgust": {"AU09_r": 1.0, "AU10_r": 1.0, "AU15_r": 0.9, "AU17_r": 0.9},
    "wince": {"AU14_r": 0.9, "AU20_r": 1.0, "AU45_r": 1.0},
}
_EXCLUSIVE = (("joy", "disgust"), ("surprise", "wince"), ("anger", "wince"))
_EXPRESSION_CHANCE = 0.45  # chance that an expression is shown, exclusion aside
_UNIT_CHANCE = 0.04  # chance that a unit is active by itself
_OPPOSED = (("AU05_r", "AU45_r"), ("AU12_r", "AU15_r"), ("AU20_r", "AU23_r"))
_POSE_DEVIATION = np.radians([5, 14, 4])  # pitch, yaw, roll
_POSE_LIMITS = np.radians([20, 30, 20])
_FRAME = (640, 480)
_IMAGES_EACH = 8  # of a person, unless the number of people is given
_BLOCK = 256  # samples made at a time


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


def synthesize(count: int, seed: int, people: int | None = None) -> dict[str, np.ndarray]:
    """Images of synthetic people in the standard crop, with exact labels in crop space.

    The same arguments give the same bytes, and another seed >= 0 gives other people. Images of one
    person, 8 by default, are consecutive. It raises UsageError if a number is out of range.

    Returns:
        ``images`` (N, 112, 112, 3) uint8 RGB; ``landmarks`` (N, 68, 2), ``global_params`` (N, 6),
        ``local_params`` (N, 34), ``au_intensities`` (N, 17), ``bboxes`` (N, 4) and
        ``warp_matrices`` (N, 2, 3) float32; ``person`` (N,) int64.
    """
    blocks = list(_blocks(count, seed, people))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def write_synthetic(
    path: str | os.PathLike[str], count: int, seed: int, people: int | None = None
) -> None:
    """Write the images of :func:`synthesize` as a training file, block by block.

    It raises DatasetError if the file exists or cannot be written.
    """
    with create_new_file(Path(path), count) as file:
        for block in _blocks(count, seed, people):
            names = [f"synthetic-{seed}-{number:05d}" for number in block.pop("person")]
            frames = list(range(file.rows, file.rows + len(names)))
            columns = {"video_names": names, "subjects": names, "frame_indices": frames}
            file.append(checked_block({**block, **columns}))


def _blocks(count: int, seed: int, people: int | None) -> Iterator[dict[str, np.ndarray]]:
    """What :func:`synthesize` returns, at most 256 images at a time."""
    if count < 1 or seed < 0:
        raise UsageError(f"count is {count} and seed {seed}, expected count >= 1 and seed >= 0")
    if people is None:
        people = min(count, max(2, count // _IMAGES_EACH))
    if not 1 <= people <= count:
        raise UsageError(f"people is {people}, expected 1..{count}")
    for start in range(0, count, _BLOCK):
        person = np.arange(start, min(start + _BLOCK, count)) * people // count
        yield _block(person, start, seed)


def _block(person: np.ndarray, start: int, seed: int) -> dict[str, np.ndarray]:
    """Images ``start``, ``start + 1``, ... of the given people."""
    model = shape_model()
    rngs = [np.random.default_rng((seed, 1, start + i)) for i in range(len(person))]
    rng_of = {number: np.random.default_rng((seed, 0, number)) for number in np.unique(person)}
    identity = {number: rng.standard_normal(len(model.identity)) for number, rng in rng_of.items()}
    appearance = {number: sample_appearance(rng) for number, rng in rng_of.items()}
    units = np.stack([_expression(rng) for rng in rngs])
    traits = np.stack([identity[number] for number in person]).clip(-2, 2)
    local = (traits @ model.identity + units @ model.expression).astype(np.float32)
    frame_params = np.empty((len(person), 6))  # in the frame of an imaginary photograph
    for row, rng in zip(frame_params, rngs, strict=True):
        angles = rng.normal(0, _POSE_DEVIATION).clip(-_POSE_LIMITS, _POSE_LIMITS)
        row[:] = rng.uniform(0.8, 2.0), *angles, *(rng.uniform(0.35, 0.65, 2) * _FRAME)
    frame_landmarks = geometry.project(model.mean, model.basis, frame_params, local)
    warp = np.stack([geometry.standard_crop_matrix(points) for points in frame_landmarks])
    params = geometry.transform_global_params(warp, frame_params).astype(np.float32)
    landmarks = geometry.project(model.mean, model.basis, params, local)
    followed = np.einsum("mp,pck->mck", marks().weights, model.basis)
    mark_points = geometry.project(marks().points, followed, params, local)
    low, high = frame_landmarks.min(axis=1), frame_landmarks.max(axis=1)
    images = np.empty((len(person), SIZE, SIZE, 3), np.uint8)
    for i, number in enumerate(person):
        images[i] = paint_face(
            *(landmarks[i], mark_points[i], units[i], appearance[number]),
            *(float(params[i, 0]), rngs[i]),
        )
    return {
        "images": images,
        "landmarks": landmarks.astype(np.float32),
        "global_params": params,
        "local_params": local,
        "au_intensities": units,
        "bboxes": np.concatenate([low, high - low], axis=1).astype(np.float32),
        "warp_matrices": warp.astype(np.float32),
        "person": person,
    }


def _expression(rng: np.random.Generator) -> np.ndarray:
    """(17,) float32 intensities, most of them 0: expressions, and units by themselves.

    Units of an expression differ in strength; opposed ones are never active together.
    """
    units = np.zeros(NUM_AUS)
    shown = [name for name in _EXPRESSIONS if rng.random() < _EXPRESSION_CHANCE]
    for pair in _EXCLUSIVE:
        if set(pair) <= set(shown):
            shown.remove(pair[int(rng.integers(2))])
    for expression in shown:
        strength = rng.uniform(0.8, 4.2)
        for name, share in _EXPRESSIONS[expression].items():
            units[AU_NAMES.index(name)] = strength * share * rng.uniform(0.85, 1.15)
    alone = rng.random(NUM_AUS) < _UNIT_CHANCE
    units[alone] = rng.uniform(0.5, MAX_INTENSITY, NUM_AUS)[alone]
    units = units.clip(0, MAX_INTENSITY)
    for pair in _OPPOSED:
        first, second = (AU_NAMES.index(name) for name in pair)
        if units[first] and units[second]:
            units[first if rng.random() < 0.5 else second] = 0
    return units.astype(np.float32)
