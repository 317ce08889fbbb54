"""Moving the mesh of a photographed face, and rendering it; open eyes and mouths are filled.

Triangles are drawn from the farthest to the nearest, each with its own affine map back to the
photograph; the openings of eyes and mouth lie under the skin. An eyeball keeps its place in the
head and is painted where the lids hid it. An open mouth keeps its inside; one that opens further
gets a dark cavity with teeth fixed to the skull and the jaw.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import euler_to_matrix, standard_crop_matrix, transform_points
from mlx_faceau.data.labels.facs_reading import align
from mlx_faceau.data.labels.mediapipe import IBUG

from .expression_model import ExpressionModel
from .mesh_points import (
    EYES,
    FACE_OVAL,
    LOWER_LIP,
    MOUTH,
    MOUTH_CORNERS,
    NUM_POINTS,
    NUM_SKIN_POINTS,
    UPPER_LIP,
    Eye,
    draw_triangles,
    twice_area,
)

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
_SUPERSAMPLING = 2
_LIDS_SHADE = 0.5  # of an eye's top that only opening reveals
_SKIN_PATCHES = np.array([50, 280, 205, 425, 4])  # cheeks, laugh lines and nose: the face's tone


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


@dataclass(frozen=True)
class SyntheticFace:
    """A face synthesised from a photograph, in its standard crop."""

    image: np.ndarray  # (112, 112, 3) uint8 RGB
    landmarks: np.ndarray  # (68, 2) float64 crop pixels
    mesh: np.ndarray  # (478, 3) float64 crop pixels, z in the same scale


@dataclass(frozen=True)
class _Canvas:
    """The crop being drawn at twice its size, and the way from the photograph's pixels to it."""

    photograph: np.ndarray
    motion: Motion
    matrix: np.ndarray
    pixels: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Canvas pixels (..., 2) of points (..., 2 or 3) of the photograph's frame."""
        moved = points[..., :2] @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.asarray((moved + 0.5) * _SUPERSAMPLING - 0.5)

    def rigid_map(self, ring: np.ndarray) -> np.ndarray:
        """(3, 2) affine map to the photograph of what lies in the skull behind the points."""
        seen = self.place(self.motion.rigid[ring])
        return np.asarray(
            np.linalg.lstsq(_homogeneous(seen), self.motion.source[ring, :2], rcond=None)[0]
        )


def make_face(
    photograph: np.ndarray,
    mesh: np.ndarray,
    model: ExpressionModel,
    amounts: np.ndarray,
    turn: np.ndarray | None = None,
    closed_lips: bool = False,
    wrinkles: float = 0.0,
) -> SyntheticFace:
    """The same person with another expression and head pose; landmarks are exact.

    Args:
        photograph: (H, W, 3) uint8 RGB.
        mesh: (478, 3) MediaPipe's points in its pixels, pixel centres at integers, z away from the
            viewer in the same scale.
        model: ICT-FaceKit's expressions.
        amounts: (K,) of its shapes to add, mostly in [0, 1]; negative ones take away.
        turn: (3, 3) rotation to add to the head.
        closed_lips: lips part no further than in the photograph.
        wrinkles: depth of the skin's lines, 0 for none, about 1 for an old face.
    """
    motion = move_mesh(model, np.asarray(mesh, np.float64), amounts, turn, closed_lips)
    matrix = standard_crop_matrix(motion.mesh[IBUG, :2])
    side = IMAGE_SIZE * _SUPERSAMPLING
    canvas = _Canvas(photograph, motion, matrix, np.empty((side, side, 3), np.float32))
    rings = ring_triangles()
    depth = motion.target[model.triangles, 2].mean(axis=1)
    skin = model.triangles[np.argsort(-depth)]
    triangles = np.concatenate([rings, skin])
    corners = canvas.place(motion.target[triangles])
    # The triangle that each pixel shows; -2 in the mouth, -3 and -4 in the eyes.
    owner = np.zeros((side, side), np.int32)
    draw_triangles(owner, corners, range(len(rings)))
    for value, opening in enumerate((MOUTH, *(eye.ring for eye in EYES))):
        outline = np.rint(canvas.place(motion.mesh[opening]) * 16).astype(np.int32)
        cv2.fillPoly(owner, [outline], -2 - value, cv2.LINE_8, 4)
    facing = np.flatnonzero(twice_area(corners) > 0)
    draw_triangles(owner, corners, facing[facing >= len(rings)].tolist())
    back = _affine_maps(corners, motion.source[triangles, :2])
    rows, columns = np.mgrid[:side, :side]
    places = _apply_maps(back[np.maximum(owner, 0)], columns, rows)
    x, y = cv2.split(places)
    canvas.pixels[:] = cv2.remap(photograph, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    lit = owner >= len(rings)  # skin, by the light at its place on the shading's grid
    to_grid = _affine_maps(corners[len(rings) :], model.grid_points[skin])
    on_grid = _apply_maps(to_grid[owner[lit] - len(rings)], columns[lit], rows[lit])
    canvas.pixels[lit] *= _sample(model.light_ratio(amounts, wrinkles), on_grid)
    eyeballs = photograph.astype(np.float32)
    for eye in EYES:
        _uncover_eye(eyeballs, eye, motion.source)
    for number, eye in enumerate(EYES):
        _fill_eye(canvas, eye, eyeballs, *np.nonzero(owner == -3 - number))
    _fill_mouth(canvas, *np.nonzero(owner == -2))
    size = IMAGE_SIZE, IMAGE_SIZE
    averaged = cv2.resize(np.clip(canvas.pixels, 0, 255), size, interpolation=cv2.INTER_AREA)
    moved = transform_points(matrix, motion.mesh[:, :2])
    return SyntheticFace(
        np.rint(averaged).astype(np.uint8),
        moved[IBUG],
        np.concatenate([moved, matrix[0, 0] * motion.mesh[:, 2:]], axis=1),
    )


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def _affine_maps(corners: np.ndarray, to: np.ndarray) -> np.ndarray:
    """(T, 3, 2) that take homogeneous points of triangles (T, 3, 2) to those of others."""
    matrices = _homogeneous(corners)
    flat = np.abs(twice_area(corners)) < 1e-6
    return np.linalg.solve(matrices + 1e-3 * flat[:, None, None] * np.eye(3), to)


def _apply_maps(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    places = maps[..., 0, :] * x[..., None] + maps[..., 1, :] * y[..., None] + maps[..., 2, :]
    return np.asarray(places, np.float32)


def _sample(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, channels) float32 at places (n, 2)."""
    x, y = cv2.split(places.astype(np.float32)[None])
    found = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found.reshape(len(places), -1).astype(np.float32))


def _uncover_eye(photograph: np.ndarray, eye: Eye, mesh: np.ndarray) -> None:
    """Paint the whole eyeball into a photograph (float32), and keep its visible part."""
    width = float(np.linalg.norm(mesh[eye.corners[0]] - mesh[eye.corners[1]]))
    centre = mesh[eye.ring, :2].mean(axis=0)
    low = np.maximum(np.floor(centre - 0.9 * width).astype(int), 0)
    high = np.minimum(np.ceil(centre + 0.9 * width).astype(int) + 1, photograph.shape[1::-1])
    if (high - low).min() < 6:
        return
    part = photograph[low[1] : high[1], low[0] : high[0]]
    mesh = mesh[:, :2] - low
    fine = 4  # cells a pixel of the opening's mask
    mask = np.zeros((part.shape[0] * fine, part.shape[1] * fine), np.uint8)
    cv2.fillPoly(mask, [np.rint((mesh[eye.ring] + 0.5) * fine - 0.5).astype(np.int32)], 255)
    depths = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / fine
    depth = cv2.resize(depths, part.shape[1::-1], interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
    centre, seen = mesh[eye.iris], depth > 0.8
    radius = np.linalg.norm(mesh[eye.iris + 1 : eye.iris + 5] - centre, axis=1).mean()
    distance = np.hypot(columns - centre[0], rows - centre[1])

    skin = np.median(part.reshape(-1, 3), axis=0)
    white, iris = seen & (distance > 1.1 * radius), seen & (abs(distance / radius - 0.525) < 0.325)
    sclera = np.percentile(part[white], 75, axis=0) if white.sum() >= 4 else 0.9 * skin + 12
    sclera = np.maximum(sclera, 0.75 * skin)
    sclera = (sclera + sclera.mean()) / 2
    colour = np.median(part[iris], axis=0) if iris.sum() >= 4 else 0.3 * skin
    colour = np.minimum(colour, 0.75 * sclera)

    sideways = np.clip(np.abs(columns - mesh[eye.ring, 0].mean()) / (0.55 * width), 0, 1.3)
    in_iris = np.clip((radius - distance) / 1.2 + 0.5, 0, 1)[..., None]
    in_pupil = np.clip(0.42 * radius - distance + 0.5, 0, 1)[..., None]
    limbus = 1.05 - 0.25 * np.clip(distance / radius, 0, 1)[..., None]  # darker towards its rim
    white_of_eye = sclera * (1 - 0.25 * sideways**3)[..., None]
    painted = white_of_eye * (1 - in_iris) + colour * limbus * in_iris
    painted *= 1 - 0.75 * in_pupil
    kept = np.clip((depth - 0.4) / 0.9, 0, 1)[..., None]
    part[:] = kept * part + (1 - kept) * painted


def _height_at(x: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """y of a polyline (n, 2) at the given x."""
    ordered = edge[np.argsort(edge[:, 0])]
    return np.asarray(np.interp(x, ordered[:, 0], ordered[:, 1]))


def _fill_eye(
    canvas: _Canvas, eye: Eye, eyeballs: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> None:
    if not len(rows):
        return
    pixels = np.stack([columns, rows], axis=1)
    back = canvas.rigid_map(np.r_[eye.ring, eye.iris])
    colour = _sample(eyeballs, _homogeneous(pixels) @ back)
    lid = np.r_[eye.corners[0], eye.upper, eye.corners[1]]
    now = _height_at(columns, canvas.place(canvas.motion.mesh[lid]))
    before = _height_at(columns, canvas.place(canvas.motion.rigid[lid]))
    revealed = np.clip((before - now) / (3 * _SUPERSAMPLING), 0, 1)
    below_lid = np.maximum(rows - now, 0) / (2.2 * _SUPERSAMPLING)
    shadow = 1 - _LIDS_SHADE * revealed * np.exp(-(below_lid**2))
    canvas.pixels[rows, columns] = colour * shadow[:, None]


def _fill_mouth(canvas: _Canvas, rows: np.ndarray, columns: np.ndarray) -> None:
    """The photograph's mouth where it was open, fading into a painted one where it opens further.

    Heights and widths below are in widths of the mouth, along and across the line of its corners.
    """
    if not len(rows):
        return
    mesh, rigid = canvas.motion.mesh, canvas.motion.rigid
    corners = canvas.place(rigid[MOUTH_CORNERS])
    middle, across = corners.mean(axis=0), corners[1] - corners[0]
    width = np.linalg.norm(across)
    axes = np.array([across, [-across[1], across[0]]]) / width

    def framed(points: np.ndarray) -> np.ndarray:
        return np.asarray((canvas.place(points) - middle) @ axes.T / width)

    along, height = ((np.stack([columns, rows], axis=1) - middle) @ axes.T / width).T
    edges = [np.r_[MOUTH_CORNERS[0], lip, MOUTH_CORNERS[1]] for lip in (UPPER_LIP, LOWER_LIP)]
    old_upper, old_lower = (framed(rigid[edge]) for edge in edges)
    upper, lower = (framed(mesh[edge]) for edge in edges)
    was_open = float((old_lower - old_upper)[3:8, 1].mean())

    top, bottom = _height_at(along, old_upper), _height_at(along, old_lower)
    margin = 1.2 * _SUPERSAMPLING / width  # lips' own colour
    between = (top + bottom) / 2
    top, bottom = np.minimum(top + margin, between), np.maximum(bottom - margin, between)
    beyond = np.maximum(height - bottom, 0) + 0.5 * np.maximum(top - height, 0)
    trust = np.clip((was_open - 0.03) / 0.05, 0, 1) * np.exp(-((beyond / 0.07) ** 2))
    kept = middle + width * np.stack([along, np.clip(height, top, bottom)], axis=1) @ axes
    photographed = _sample(canvas.photograph, _homogeneous(kept) @ canvas.rigid_map(MOUTH))

    jaw = float((framed(mesh[[14]]) - framed(rigid[[14]]))[0, 1])
    lip_line = old_upper[5, 1] if was_open >= 0.05 else (old_upper[5, 1] + old_lower[5, 1]) / 2
    patches = canvas.motion.source[_SKIN_PATCHES, :2]
    skin = _sample(canvas.photograph, patches).mean(axis=0).astype(np.float64)
    painted = _cavity(along, height - lip_line, 0.85 * jaw, skin, teeth_hidden=was_open > 0.06)
    below_upper = height - _height_at(along, upper)
    above_lower = _height_at(along, lower) - height
    from_lips = np.minimum(below_upper, 1.5 * above_lower)
    from_corners = np.ptp(upper[:, 0]) / 2 - np.abs(along - upper[:, 0].mean())
    painted *= (0.45 + 0.55 * np.clip(from_lips / 0.05, 0, 1))[:, None]
    painted *= (0.35 + 0.65 * np.clip(from_corners / 0.12, 0, 1))[:, None]
    canvas.pixels[rows, columns] = trust[:, None] * photographed + (1 - trust[:, None]) * painted


def _cavity(
    along: np.ndarray, height: np.ndarray, jaw: float, skin: np.ndarray, teeth_hidden: bool
) -> np.ndarray:
    """(n, 3) colours inside a mouth, at places in widths of it.

    ``along`` (n,) counts from its middle, ``height`` (n,) from the line of the closed lips, from
    which the lower teeth went down by ``jaw``. A dark or grey skin (3,) gets dark or grey teeth.
    """
    tone = float(np.clip(skin.mean() / 165, 0.15, 1.15))
    enamel = np.array([205.0, 197.0, 180.0]) * tone
    arch = np.sqrt(np.clip(1 - (along / 0.42) ** 2, 0, 1))

    def blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
        return np.asarray(under + share[:, None] * (over - under))

    def tooth_row(frequency: float) -> np.ndarray:
        gap = np.abs(np.abs((along * frequency + 0.5) % 1 - 0.5) - 0.5) / 0.07
        return (1 - 0.22 * np.exp(-(gap**2))) * (0.45 + 0.55 * arch)

    colours = np.tile(np.array([40.0, 16.0, 15.0]) * (0.4 + 0.6 * tone), (len(along), 1))
    if not teeth_hidden:
        gums = np.array([150.0, 80.0, 80.0]) * tone
        row = enamel * tooth_row(9.0)[:, None]
        row = blend(row, gums, np.clip((-0.22 - height) / 0.03, 0, 1))
        shown = np.clip((0.105 * arch - 0.015 - height) / 0.02 + 0.5, 0, 1) * (np.abs(along) < 0.42)
        colours = blend(colours, row, shown)
    lower_edge = jaw + 0.03 + 0.05 * (1 - arch)
    shown = 0.8 * np.clip((height - lower_edge) / 0.02 + 0.5, 0, 1) * (np.abs(along) < 0.36)
    colours = blend(colours, 0.72 * enamel * tooth_row(11.25)[:, None], shown)
    if np.ptp(skin) < 8:
        tint = np.clip(skin / max(skin.mean(), 1), 0.8, 1.2)
        colours = colours.mean(axis=1, keepdims=True) * tint
    return colours
