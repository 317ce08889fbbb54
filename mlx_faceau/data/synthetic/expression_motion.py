"""Moving a photograph's mesh points to another expression and head pose."""

from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.data.labels.facs_reading import align

from .expression_model import ExpressionModel
from .mesh_points import EYES, FACE_OVAL, LOWER_LIP, NUM_POINTS, NUM_SKIN_POINTS, UPPER_LIP

_LID_SHARE = 0.85  # of a closing eye's height that the upper lid covers
_MIN_OPENING = 0.1  # mm between the lids
_LIP_REACH = 11.0  # mm over which skin follows the lips' inner edge
_UPPER_LIP_SHARE = 0.55  # of a gap that the upper lip closes
_PIVOT = 0.45  # face widths behind the outline about which heads turn

# Rings around the face's outline: its size, how far behind it lies (face widths), how far it
# follows the outline's expression, and how far the head's turn at the top and under the chin.
_RINGS = (
    (1.2, 0.25, 0.6, 1.0, 0.7),
    (1.6, 0.6, 0.2, 0.75, 0.1),
    (2.3, 0.8, 0.0, 0.0, 0.0),
    (6.0, 0.8, 0.0, 0.0, 0.0),
)


@dataclass(frozen=True)
class Motion:
    """Mesh and surroundings before and after; pixels of the photograph, z away from the viewer."""

    # (478 + 144, 3) the mesh, then four rings of 36 points around the face's outline
    source: np.ndarray
    target: np.ndarray  # (478 + 144, 3) their new positions
    rigid: np.ndarray  # (478, 3) positions of the mesh after the head's rotation alone

    @property
    def mesh(self) -> np.ndarray:
        """(478, 3) the new mesh."""
        return self.target[:NUM_POINTS]


def ring_triangles() -> np.ndarray:
    """(288, 3) triangles between the outline and the rings, the outermost first."""
    count = len(FACE_OVAL)
    added = NUM_POINTS + np.arange(len(_RINGS) * count).reshape(-1, count)
    rings = [FACE_OVAL, *added]
    found = []
    for inner, outer in zip(rings[-2::-1], rings[:0:-1], strict=True):
        following, beyond = np.roll(inner, -1), np.roll(outer, -1)
        found += [np.stack([inner, outer, beyond], 1), np.stack([inner, beyond, following], 1)]
    return np.concatenate(found)


def head_turn(yaw: float, pitch: float) -> np.ndarray:
    """Rotation (3, 3) by pitch, then yaw, radians; x right, y down, z away from the viewer."""
    about_x, about_y = euler_to_matrix(np.array([[pitch, 0, 0], [0, yaw, 0]]))
    return np.asarray(about_y @ about_x)


def move_mesh(
    model: ExpressionModel,
    mesh: np.ndarray,
    amounts: np.ndarray,
    turn: np.ndarray | None = None,
    closed_lips: bool = False,
) -> Motion:
    """Add expression shapes in the head's own frame, then turn it; see ``make_face``.

    Lids and lips never cross, and a blink of 1 closes an eye however far it is open.
    """
    (resting,), (rotation,) = align(mesh[None], model.neutral)
    moved = _add_shapes(model, resting, amounts)
    if closed_lips:
        _close_lips(model, resting, moved)
    _separate(moved, UPPER_LIP, LOWER_LIP, 0.0)
    extent, resting_extent = (np.linalg.norm(each - each.mean(axis=0)) for each in (mesh, resting))
    scale = extent / resting_extent
    expressed = mesh + scale * (moved - resting) @ rotation.T

    outline = mesh[FACE_OVAL]
    low, high = outline.min(axis=0), outline.max(axis=0)
    centre, (width, height, _) = (low + high) / 2, high - low
    pivot = centre + np.array([0, 0, _PIVOT * width])
    rotation_about = np.eye(3) if turn is None else turn

    def turned(points: np.ndarray) -> np.ndarray:
        return np.asarray((points - pivot) @ rotation_about.T + pivot)

    below = np.clip((outline[:, 1:2] - centre[1]) / (0.5 * height), 0, 1)
    source, target = [mesh], [turned(expressed)]
    for size, behind, follows, top, bottom in _RINGS:
        ring = centre + size * (outline - centre)
        ring[:, 2] = outline[:, 2] + behind * width
        shifted = ring + follows * (expressed[FACE_OVAL] - outline)
        source.append(ring)
        target.append(shifted + (top + (bottom - top) * below) * (turned(shifted) - shifted))
    return Motion(np.concatenate(source), np.concatenate(target), turned(mesh))


def _add_shapes(model: ExpressionModel, resting: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    factors = amounts.astype(np.float64)
    for eye in EYES:
        openness = eye.aperture(resting) / eye.aperture(model.neutral)
        for shape, low, high in (("eyeSquint", 0.4, 1.3), ("eyeBlink", 0.2, 1.5)):
            factors[model.names.index(f"{shape}_{eye.side}")] *= np.clip(openness, low, high)
    active = np.flatnonzero(factors)
    moved = resting + np.tensordot(factors[active], model.shapes[active], 1)
    for eye in EYES:
        blink = model.names.index(f"eyeBlink_{eye.side}")
        if amounts[blink]:  # by a share of the opening instead of by the shape's displacement
            moved[eye.ring] -= factors[blink] * model.shapes[blink][eye.ring]
            gap = moved[eye.lower] - moved[eye.upper]
            moved[eye.upper] += _LID_SHARE * amounts[blink] * gap
            moved[eye.lower] -= (1 - _LID_SHARE) * amounts[blink] * gap
        _separate(moved, eye.upper, eye.lower, _MIN_OPENING)
    return moved


def _close_lips(model: ExpressionModel, resting: np.ndarray, moved: np.ndarray) -> None:
    """Undo the parting of the lips; the skin above and below follows."""
    gap = moved[LOWER_LIP, 1] - moved[UPPER_LIP, 1]
    parting = np.maximum(gap - (resting[LOWER_LIP, 1] - resting[UPPER_LIP, 1]), 0)
    skin = resting[:NUM_SKIN_POINTS, :2]
    above = model.neutral[:NUM_SKIN_POINTS, 1] < model.neutral[[13, 14], 1].mean()
    for edge, side, share in (
        (UPPER_LIP, above, _UPPER_LIP_SHARE),
        (LOWER_LIP, ~above, _UPPER_LIP_SHARE - 1),
    ):
        distance = np.linalg.norm(skin[:, None] - resting[None, edge, :2], axis=2)
        weights = np.exp(-((distance / _LIP_REACH) ** 2))
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
        follows = np.where(side, weights @ parting, 0)
        follows[edge] = parting
        moved[:NUM_SKIN_POINTS, 1] += share * follows


def _separate(points: np.ndarray, upper: np.ndarray, lower: np.ndarray, least: float) -> None:
    overlap = np.maximum(points[upper, 1] - points[lower, 1] + least, 0)
    points[upper, 1] -= overlap / 2
    points[lower, 1] += overlap / 2
