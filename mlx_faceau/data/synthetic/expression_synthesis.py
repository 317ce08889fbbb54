"""New expressions and head poses of a photographed face, with their labels.

Landmarks are exactly those of the moved mesh. Action units are the FACS reading of the photograph,
minus what was removed of a smile, plus what was added. Reading the new image instead would miss
most of it: the Face Landmarker follows unusual expressions by a fifth of their amount or less.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.data.labels import facs_reading

from .expression_model import ExpressionModel, shape_names
from .expression_render import SyntheticFace, head_turn, make_face
from .expression_sampling import Expression, sample_expression

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
