"""A drawn face with MediaPipe's 478 points in the right order, and simple shapes that move them."""

import cv2
import numpy as np

from mlx_faceau.data.synthetic.expression_model import AU_SHAPES, ExpressionModel
from mlx_faceau.data.synthetic.mesh_points import (
    EYES,
    FACE_OVAL,
    LOWER_LIP,
    MOUTH_CORNERS,
    NUM_POINTS,
    NUM_SKIN_POINTS,
    UPPER_LIP,
    triangulate_skin,
)

SIDELESS = (
    "jawOpen",
    "mouthPucker",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthRollLower",
    "mouthRollUpper",
)
EYE_CENTRES = np.array([[-30.0, -25.0], [30.0, -25.0]])  # the right and the left eye, mm
LIP_LINE = 42.0


def neutral_points() -> np.ndarray:
    """(478, 3) mm of a head whose face is an ellipse on a paraboloid; lips all but closed."""
    points = np.full((NUM_POINTS, 2), np.nan)
    angles = np.arange(36) * np.pi / 18
    points[FACE_OVAL] = np.stack([70 * np.sin(angles), -90 * np.cos(angles)], axis=1)
    along = np.linspace(-1, 1, 9)[1:-1]
    for eye, centre, outwards in zip(EYES, EYE_CENTRES, (-1, 1), strict=True):
        points[eye.corners] = centre + np.array([[13.0 * outwards, 0], [-13.0 * outwards, 0]])
        for lid, side in ((eye.upper, -1), (eye.lower, 1)):
            arc = np.stack([-13 * outwards * along, side * 5 * np.sqrt(1 - along**2)], axis=1)
            points[lid] = centre + arc
        points[eye.iris : eye.iris + 5] = centre + np.array(
            [[0.0, 0], [5, 0], [0, -5], [-5, 0], [0, 5]]
        )
    across = np.linspace(-1, 1, 11)[1:-1]
    points[MOUTH_CORNERS] = [[-25, LIP_LINE], [25, LIP_LINE]]
    for lip, side in ((UPPER_LIP, -1), (LOWER_LIP, 1)):
        arc = 0.2 * side * np.sqrt(1 - across**2)
        points[lip] = np.stack([25 * across, LIP_LINE + arc], axis=1)
    free = np.flatnonzero(np.isnan(points[:, 0]))
    points[free] = _spread(len(free))
    depth = -40 * (1 - (points[:, 0] / 70) ** 2 / 2 - (points[:, 1] / 90) ** 2 / 2)
    return np.concatenate([points, depth[:, None]], axis=1)


def _spread(count: int) -> np.ndarray:
    """Skin points inside the outline and clear of eyes and lips, the same ones every time."""
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        x, y = rng.uniform(-1, 1, 2) * [66, 86]
        clear_of_eyes = np.all(
            np.hypot((x - EYE_CENTRES[:, 0]) / 17, (y - EYE_CENTRES[:, 1]) / 9) > 1
        )
        clear_of_lips = np.hypot(x / 30, (y - LIP_LINE) / 4) > 1
        apart = not found or np.hypot(*(np.array(found) - [x, y]).T).min() > 4
        if np.hypot(x / 66, y / 86) < 1 and clear_of_eyes and clear_of_lips and apart:
            found.append([x, y])
    return np.array(found)


def drawn_model() -> ExpressionModel:
    """Every shape of :data:`AU_SHAPES`; the jaw opens 20 mm, brows rise 6, blinks close 10."""
    neutral = neutral_points()
    names = []
    for shapes in AU_SHAPES.values():
        for name in shapes:
            names += [name] if name in SIDELESS else [f"{name}_L", f"{name}_R"]
    names = list(dict.fromkeys(names))
    shapes = np.zeros((len(names), NUM_POINTS, 3))
    x, y = neutral[:NUM_SKIN_POINTS, :2].T
    lower = (y > LIP_LINE) & ~np.isin(np.arange(NUM_SKIN_POINTS), [*MOUTH_CORNERS, *UPPER_LIP])
    for number, name in enumerate(names):
        side = 1.0 * (x > 0) if name.endswith("_L") else 1.0 * (x <= 0)
        move = shapes[number, :NUM_SKIN_POINTS]
        if name == "jawOpen":
            move[:, 1] = 20 * lower * np.clip(1.3 - np.abs(x) / 70, 0, 1)
        elif name.startswith("brow"):
            sign = 1 if "Down" in name else -1
            move[:, 1] = sign * 6 * side * np.exp(-(((y + 45) / 12) ** 2))
        elif name.startswith("mouthUpperUp"):
            move[:, 1] = -6 * side * ~lower * np.exp(-(((y - LIP_LINE) / 15) ** 2))
        elif name.startswith("mouthSmile"):
            move[:, 0] = np.sign(x) * 5 * side * np.exp(-(((y - LIP_LINE) / 20) ** 2))
        elif name.startswith("eyeBlink"):
            near = np.exp(-(((y + 30) / 6) ** 2)) * (y < -25)
            move[:, 1] = 10 * side * near
    parted = neutral[:NUM_SKIN_POINTS, :2].copy()
    parted[lower, 1] += 12
    size = (len(names), 4, 4, 3)
    flat = np.tile(np.array([0.0, 0.0, -1.0], np.float32), (4, 4, 1))
    return ExpressionModel(
        neutral,
        shapes,
        tuple(names),
        triangulate_skin(parted),
        flat,
        np.zeros(size, np.float32),
        np.zeros(size[:3], np.float32),
        np.ones((4, 4), np.float32),
    )


def photograph(seed: int = 0, size: int = 220) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture (size, size, 3) and the mesh (478, 3) of the face in its middle."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(90, 200, (8, 8, 3)).astype(np.float32)
    picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    mesh = 0.62 * neutral_points() + [size / 2 - 3.3, size / 2 + 2.1, 0]
    return np.clip(picture, 0, 255).astype(np.uint8), mesh
