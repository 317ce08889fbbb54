"""New expressions and head poses of a photographed face, with their labels.

Landmarks are exactly those of the moved mesh. Action units are the FACS reading of the photograph,
minus what was removed of a smile, plus what was added. Reading the new image instead would miss
most of it: the Face Landmarker follows unusual expressions by a fifth of their amount or less.
Units that are rare in photographs come as often as the others.

Reference:
    Ekman, Friesen, Hager, FACS Investigator's Guide, 2002 (prototypes of the emotions).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.data.labels import facs_reading

from .expression_model import ExpressionModel, shape_names
from .expression_render import SyntheticFace, head_turn, make_face

# Weight, and the least and greatest intensity of each unit.
_WHOLE: dict[str, tuple[float, dict[int, tuple[float, float]]]] = {
    "disgust": (
        1.6,
        {9: (2, 5), 10: (1, 4.5), 17: (0.5, 4), 4: (0.5, 4.5), 7: (0.5, 5), 6: (0, 2.5)},
    ),
    "fear": (
        1.4,
        {1: (2, 5), 2: (1, 4), 4: (0.5, 3.5), 5: (2, 5), 20: (2, 5), 25: (1, 5), 26: (0, 2.5)},
    ),
    "surprise": (1.0, {1: (2, 5), 2: (2, 5), 5: (1.5, 5), 25: (1.5, 5), 26: (1.5, 5)}),
    "anger": (1.2, {4: (2, 5), 5: (0, 4), 7: (1.5, 5), 23: (1.5, 5), 17: (0, 2)}),
    "sadness": (1.2, {1: (1.5, 5), 4: (1, 4), 15: (1.5, 5), 17: (0.5, 4), 45: (0, 1.5)}),
    "contempt": (0.9, {14: (2, 5), 12: (0.5, 2.5)}),
    "smile": (0.6, {6: (1.5, 5), 12: (1.5, 5), 7: (0, 2)}),
    "open smile": (0.6, {6: (1.5, 5), 12: (2, 5), 25: (1.5, 5), 26: (0, 2)}),
    "blink": (1.2, {45: (2, 5)}),
    "raised brows": (0.4, {1: (2, 5), 2: (2, 5), 14: (0, 2)}),
    "snarl": (0.5, {9: (2, 5), 10: (2, 5), 25: (2, 5), 4: (1, 4)}),
}
_PAIRS = (
    (1, 2), (1, 4), (2, 5), (4, 7), (5, 25), (6, 7), (6, 12), (7, 23), (4, 9), (9, 10), (10, 25),
    (12, 25), (12, 14), (14, 23), (15, 17), (17, 23), (20, 25), (15, 20), (25, 26), (5, 26),
    (12, 45), (7, 45), (9, 17), (10, 17), (12, 26), (4, 45), (2, 14), (5, 15), (5, 20),
)  # fmt: skip
_TRIPLES = (
    (14, 17, 23), (6, 7, 12), (15, 17, 23), (7, 14, 23), (20, 25, 26), (6, 7, 45), (6, 12, 14),
    (4, 17, 23), (6, 7, 26), (10, 12, 25), (7, 14, 15), (2, 5, 26), (7, 10, 26), (4, 7, 9),
    (6, 9, 10), (4, 15, 17), (9, 14, 20), (1, 15, 17), (14, 15, 23),
)  # fmt: skip
_SINGLES = {
    5: 1.3, 6: 1.3, 7: 1.5, 12: 0.6, 14: 2.0, 15: 1.6, 20: 1.9, 23: 1.6, 25: 0.5, 26: 0.6, 45: 0.8,
}  # fmt: skip
_KINDS = {"single": 0.20, "pair": 0.18, "triple": 0.22, "whole": 0.34, "pose": 0.06}
_BLINKS, _ONE_SIDED, _CLOSED_LIPS, _TURNED = 0.1, 0.12, 0.6, 0.3  # shares
_SMOOTH = 0.4  # share of faces without lines
_UNSMILING_KEPT = 0.4  # share of expressions without a smile that a smiling face may get
_YAW, _PITCH = np.radians(25), np.radians(17)
_GREATEST_NEW_YAW = 0.6  # radians, of the new face
_SMILE = (
    "mouthSmile", "cheekRaiser", "eyeSquint", "mouthDimple", "mouthUpperUp", "mouthLowerDown",
    "jawOpen", "mouthStretch",
)  # fmt: skip
_SMILE_UNITS = np.array([int(name[2:4]) in {6, 7, 10, 12, 14, 20, 25, 26} for name in AU_NAMES])
_SMILING_UNITS = [AU_NAMES.index("AU06_r"), AU_NAMES.index("AU12_r")]
_SMILING, _UNSMILING, _JAW_OPEN = 0.3, 0.15, 0.1  # amounts of mouthSmile and jawOpen
_SMILES_KEPT = 0.7  # share of the smiles that get a smile added
_FULLY_REMOVED = 0.6  # share of removed smiles that are removed fully
_GREATEST_YAW = 0.65  # radians, of photographs
_INSIDE = 3.0, 109.0  # landmarks
_PARTED = 0.9  # intensity of AU25 for each of AU26 alone


@dataclass(frozen=True)
class Expression:
    """An expression and head pose to add to a photograph."""

    kind: str  # "single", "pair", "triple", "pose" or the expression's name
    au_intensities: np.ndarray  # (17,) to add, in [0, 5]
    sides: tuple[float, float]  # factors of the subject's left and right half
    closed_lips: bool  # whether lips part no further
    yaw: float  # turn of the head to add, radians
    pitch: float  # the same
    wrinkles: float  # depth of the skin's lines

    @property
    def mean_intensities(self) -> np.ndarray:
        """(17,) means of both halves, those of jaw and chin being whole."""
        whole = np.isin(np.arange(NUM_AUS), [_index(17), _index(26)])
        return np.asarray(np.where(whole, 1.0, np.mean(self.sides)) * self.au_intensities)


def _index(unit: int) -> int:
    return AU_NAMES.index(f"AU{unit:02d}_r")


def sample_expression(
    rng: np.random.Generator, smiling: bool = False, yaw: float = 0.0, turn: float = 1.0
) -> Expression:
    """One expression and head pose.

    A photograph that smiles rarely gets an expression without a smile. With its own yaw (radians)
    new faces stay within 34 degrees; ``turn`` is a factor on the angles, smaller where little
    surrounds the face.
    """
    while True:
        kind, units = _draw_units(rng)
        if rng.random() < _BLINKS:
            units = {unit: value for unit, value in units.items() if unit != 5}
            units[45] = rng.uniform(1.5, MAX_INTENSITY)
        fits = kind == "pose" or not units.keys().isdisjoint((6, 12, 25, 26, 45))
        if fits or not smiling or rng.random() < _UNSMILING_KEPT:
            break
    intensities = np.zeros(NUM_AUS)
    intensities[list(map(_index, units))] = list(units.values())
    sides = (1.0, 1.0)
    if kind == "contempt" or rng.random() < _ONE_SIDED:
        weak = rng.uniform(0, 0.3) if kind == "contempt" else rng.uniform(0.2, 0.9)
        sides = (1.0, weak) if rng.random() < 0.5 else (weak, 1.0)
    closed_lips = units.keys().isdisjoint((12, 25, 26)) and rng.random() < _CLOSED_LIPS
    new_yaw = pitch = 0.0
    if kind == "pose" or rng.random() < _TURNED:
        new_yaw, pitch = turn * rng.uniform(-_YAW, _YAW), turn * rng.uniform(-_PITCH, _PITCH)
        if abs(yaw + new_yaw) > _GREATEST_NEW_YAW:
            new_yaw = -new_yaw
        new_yaw = float(np.clip(yaw + new_yaw, -_GREATEST_NEW_YAW, _GREATEST_NEW_YAW)) - yaw
    wrinkles = 0.0 if rng.random() < _SMOOTH else rng.uniform(0.2, 1.2)
    return Expression(kind, intensities, sides, closed_lips, new_yaw, pitch, wrinkles)


def _draw_units(rng: np.random.Generator) -> tuple[str, dict[int, float]]:
    """A kind and the intensities of its units, by FACS number."""
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    if kind == "pose":
        return kind, {}
    if kind == "whole":
        weights = np.array([weight for weight, _ in _WHOLE.values()])
        kind = str(rng.choice(list(_WHOLE), p=weights / weights.sum()))
        strength = rng.uniform(0.5, 1) if rng.random() < 0.5 else 1.0
        ranges = _WHOLE[kind][1].items()
        return kind, {unit: strength * rng.uniform(low, high) for unit, (low, high) in ranges}
    if kind == "single":
        units = [int(name[2:4]) for name in AU_NAMES]
        weights = np.array([_SINGLES.get(unit, 1.0) for unit in units])
        chosen: tuple[int, ...] = (int(rng.choice(units, p=weights / weights.sum())),)
    else:
        choices = _PAIRS if kind == "pair" else _TRIPLES
        chosen = choices[rng.integers(len(choices))]
    return kind, {unit: 1 + (MAX_INTENSITY - 1) * float(rng.random()) ** 0.8 for unit in chosen}


@dataclass(frozen=True)
class LabelledFace:
    """A synthesised face with its action units."""

    face: SyntheticFace  # image, landmarks and mesh in the standard crop
    expression: Expression  # what was added
    au_intensities: np.ndarray  # (17,) in [0, 5]


def make_expressions(
    photograph: np.ndarray,
    mesh: np.ndarray,
    scores: np.ndarray,
    model: ExpressionModel,
    rng: np.random.Generator,
    count: int,
    turn: float = 1.0,
) -> Iterator[LabelledFace]:
    """Make new expressions and poses of one photograph.

    A face that does not smile gives one more, a smiling one gives one less: other expressions show
    better on unsmiling faces. None is made of a face turned by more than 37 degrees, or where
    landmarks would leave the crop.

    Photograph and mesh are those of ``make_face``, with MediaPipe's scores (52,); ``turn`` is a
    factor on the angles, smaller where little surrounds the face.
    """
    rotation = facs_reading.align(mesh[None], model.neutral)[1][0]
    yaw = float(np.arctan2(rotation[0, 2], rotation[2, 2]))
    if abs(yaw) > _GREATEST_YAW:
        return
    reading = facs_reading.read_action_units(mesh, scores)[0]
    amounts = photograph_amounts(mesh, scores, model)
    smile = float(amounts[model.names.index("mouthSmile_L")])
    opened = smile > _UNSMILING or amounts[model.names.index("jawOpen")] > _JAW_OPEN
    parted, dropped = AU_NAMES.index("AU25_r"), AU_NAMES.index("AU26_r")
    is_smile = np.isin(model.names, [n for s in _SMILE for n in shape_names(s, model.names)])
    for _ in range(count + 1 if smile <= _UNSMILING else max(count - 1, 1)):
        sampled = sample_expression(rng, smile > _SMILING, yaw, turn)
        removed = 0.0
        keeps_smile = sampled.au_intensities[_SMILING_UNITS].any() and rng.random() < _SMILES_KEPT
        if opened and not keeps_smile and sampled.kind not in ("pose", "blink"):
            removed = 1.0 if rng.random() < _FULLY_REMOVED else rng.random()
        face = make_face(
            photograph,
            mesh,
            model,
            model.amounts(sampled.au_intensities, *sampled.sides) - removed * is_smile * amounts,
            head_turn(sampled.yaw, sampled.pitch) if sampled.yaw or sampled.pitch else None,
            sampled.closed_lips and not removed,
            sampled.wrinkles,
        )
        units = reading * (1 - removed * _SMILE_UNITS) + sampled.mean_intensities
        units[parted] = max(units[parted], _PARTED * sampled.mean_intensities[dropped])
        if face.landmarks.min() >= _INSIDE[0] and face.landmarks.max() <= _INSIDE[1]:
            yield LabelledFace(face, sampled, units.clip(0, MAX_INTENSITY).astype(np.float32))


def photograph_amounts(mesh: np.ndarray, scores: np.ndarray, model: ExpressionModel) -> np.ndarray:
    """(K,) amounts of the shapes that a photograph shows, both sides alike, by the FACS reading."""
    table = facs_reading.load_table()
    values, _ = facs_reading.features(mesh[None], scores[None], table)
    (found,) = facs_reading.explain("face", values, table)
    amounts = np.zeros(len(model.names))
    for shape, amount in zip(facs_reading.FACE_SHAPES, found, strict=True):
        for name in shape_names(shape, model.names):
            amounts[model.names.index(name)] = amount
    return amounts
