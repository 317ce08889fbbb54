"""ICT-FaceKit's expression shapes at MediaPipe's 478 mesh points, with their shading.

Amounts of the shapes, 1 being the strongest that the model's authors sculpted, follow from action
unit intensities by :data:`AU_SHAPES`: intensity 5 is about 1 of the shapes named there.

References:
    Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020 (ICT-FaceKit).
    Liu et al., Expressive expression mapping with ratio images, SIGGRAPH 2001.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.data.labels.facs_reading import load_table
from mlx_faceau.data.labels.open_pdm import ICTFaceKit

from .mesh_points import FACE_OVAL, NUM_SKIN_POINTS, draw_triangles, triangulate_skin

# Per action unit: shapes and their amounts at intensity 5. Those without a side have only one;
# the others are taken of both sides.
AU_SHAPES: dict[str, dict[str, float]] = {
    "AU01_r": {"browInnerUp": 1.0},
    "AU02_r": {"browOuterUp": 1.0},
    "AU04_r": {"browDown": 1.7},
    "AU05_r": {"eyeWide": 1.3},
    "AU06_r": {"cheekRaiser": 0.85, "cheekSquint": 0.5},
    "AU07_r": {"eyeSquint": 1.0},
    "AU09_r": {"noseSneer": 0.9},
    "AU10_r": {"mouthUpperUp": 0.85},
    "AU12_r": {"mouthSmile": 1.25},
    "AU14_r": {"mouthDimple": 1.0},
    "AU15_r": {"mouthFrown": 1.2},
    "AU17_r": {"mouthShrugLower": 0.75, "mouthShrugUpper": 0.3},
    "AU20_r": {"mouthStretch": 1.0},
    "AU23_r": {
        "mouthPress": 0.35,
        "mouthRollLower": 0.4,
        "mouthRollUpper": 0.35,
        "mouthPucker": 0.2,
    },
    "AU25_r": {"mouthLowerDown": 0.8, "mouthUpperUp": 0.3, "jawOpen": 0.06},
    "AU26_r": {"jawOpen": 0.75},
    "AU45_r": {"eyeBlink": 1.0},
}
_PARTED_LIPS = {"jawOpen": 0.5, "mouthUpperUp": 0.8, "mouthLowerDown": 0.8}
_FRONT = slice(0, 9409)  # vertices of the face: eyeballs, teeth and the rest of the head follow

_GRID = 128  # cells of the shading's frontal grid
_GRID_CORNER, _GRID_SIDE = np.array([-80.0, -95.0]), 180.0  # mm, around the neutral face
_LIGHT = np.array([0.0, -0.65, -0.76])  # where it comes from: above the viewer
_AMBIENT = 0.3
_RATIO_GAIN = 1.2
_RATIO_LIMITS = -0.6, 0.22  # of its logarithm: folds may darken more than bulges shine
# Wrinkles of the shapes, finer than the sculpted surface: end points (x, y, x, y), mm on the left
# half of the neutral face, mirrored to the right, and darkness at amount 1 (logarithm).
_WRINKLES: dict[str, tuple[tuple[float, float, float, float, float], ...]] = {
    "browDown": ((5, -62, 6, -46, 0.28),),
    "browInnerUp": ((0, -70, 24, -72, 0.22), (0, -79, 24, -81, 0.22)),
    "browOuterUp": ((22, -73, 50, -68, 0.22), (22, -82, 50, -76, 0.22)),
    "noseSneer": (
        (1, -40, 12, -37, 0.26),
        (1, -33, 13, -31, 0.26),
        (10, -24, 18, -16, 0.22),
        (20, -2, 30, 14, 0.22),
    ),
    "cheekRaiser": (
        (54, -34, 64, -38, 0.22),
        (54, -31, 65, -31, 0.22),
        (53, -28, 63, -23, 0.22),
        (22, -20, 44, -22, 0.2),
    ),
    "eyeSquint": ((24, -22, 42, -24, 0.25),),
    "mouthSmile": ((22, 2, 34, 26, 0.25),),
    "mouthDimple": ((33, 28, 35, 42, 0.26),),
    "mouthFrown": ((27, 40, 31, 52, 0.25),),
    "mouthShrugLower": ((2, 57, 11, 60, 0.25),),
}
_WRINKLE_WIDTH = 1.8  # mm
_FADE = 16.0  # mm inside the outline over which shading sets in


def shape_names(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The shapes of both sides, or the one that has no side."""
    return (name,) if name in known else (f"{name}_L", f"{name}_R")


@dataclass(frozen=True)
class ExpressionModel:
    """Built by :func:`expression_model`. Millimetres; x right, y down, z away from the viewer."""

    neutral: np.ndarray  # (478, 3) mesh points of the neutral head
    shapes: np.ndarray  # (K, 478, 3) displacements at amount 1; none of the irises
    names: tuple[str, ...]  # K names; _L and _R end those of the subject's left and right side
    triangles: np.ndarray  # (T, 3) of the skin points
    normals: np.ndarray  # (128, 128, 3) of the neutral face on a frontal grid; 0 outside
    normal_changes: np.ndarray  # (K, 128, 128, 3) at amount 1
    wrinkles: np.ndarray  # (K, 128, 128) logarithms of the light on skin lines at amount 1
    fade: np.ndarray  # (128, 128) weight of the shading, in [0, 1]

    def amounts(self, au_intensities: np.ndarray, left: float = 1, right: float = 1) -> np.ndarray:
        """Amounts (K,) of the shapes that show action units (17,) in [0, 5].

        Left and right are factors of the subject's sides, for the shapes that have one.
        """
        sides = {"_L": left, "_R": right}
        found = np.zeros(len(self.names))
        for au, intensity in zip(AU_NAMES, au_intensities, strict=True):
            for shape, most in AU_SHAPES[au].items():
                for name in shape_names(shape, self.names):
                    amount = most * intensity / MAX_INTENSITY * sides.get(name[-2:], 1.0)
                    found[self.names.index(name)] += amount
        return found

    @property
    def grid_points(self) -> np.ndarray:
        """(468, 2) where the skin points lie on the shading's grid."""
        return _to_grid(self.neutral[:NUM_SKIN_POINTS])

    def light_ratio(self, amounts: np.ndarray, wrinkles: float = 0.0) -> np.ndarray:
        """(128, 128) float32 factor on the light of the neutral face, diffuse and from above.

        It is that of amounts (K,) of the shapes, with wrinkles of a depth: 1 for an old face.
        """
        active = np.flatnonzero(amounts)
        turned = self.normals + np.tensordot(amounts[active], self.normal_changes[active], 1)
        turned /= np.maximum(np.linalg.norm(turned, axis=2, keepdims=True), 1e-6)
        change = _RATIO_GAIN * np.clip(np.log(_lit(turned) / _lit(self.normals)), *_RATIO_LIMITS)
        lined = np.flatnonzero(amounts > 0)
        change += wrinkles * np.tensordot(amounts[lined], self.wrinkles[lined], 1)
        return np.asarray(np.exp(change * self.fade).astype(np.float32))


def expression_model(model: ICTFaceKit) -> ExpressionModel:
    """Transfer ICT-FaceKit's expressions to the mesh, by the FACS reading's correspondence."""
    table = load_table()
    corners, weights = table.ict_vertices, table.ict_weights
    neutral = np.einsum("pc,pcd->pd", weights, model.neutral[corners].astype(np.float64))
    shapes = np.einsum("pc,kpcd->kpd", weights, model.expression[:, corners].astype(np.float64))
    shapes[:, NUM_SKIN_POINTS:] = 0  # eyeballs neither widen nor blink
    names = model.expression_names
    parted = neutral + sum(
        amount * shapes[names.index(name)]
        for shape, amount in _PARTED_LIPS.items()
        for name in shape_names(shape, names)
    )
    normals, changes = _frontal_normals(model)
    # Shading: none in the face's openings, setting in from the outline.
    solid = cv2.GaussianBlur((np.abs(normals).max(axis=2) > 0).astype(np.float32), (0, 0), 3)
    inside = np.zeros((_GRID, _GRID), np.uint8)
    cv2.fillPoly(inside, [np.round(_to_grid(neutral[FACE_OVAL])).astype(np.int32)], 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - 1
    edge = np.clip(depth / (_FADE * (_GRID - 1) / _GRID_SIDE), 0, 1)
    return ExpressionModel(
        neutral,
        shapes,
        names,
        triangulate_skin(parted[:NUM_SKIN_POINTS, :2]),
        normals,
        changes,
        np.stack([_wrinkles(name) for name in names]),
        np.asarray(np.clip((solid - 0.6) / 0.35, 0, 1) * edge),
    )


def _to_grid(points: np.ndarray) -> np.ndarray:
    return np.asarray((points[..., :2] - _GRID_CORNER) * ((_GRID - 1) / _GRID_SIDE))


def _wrinkles(shape: str) -> np.ndarray:
    """(128, 128) of one shape; on its own half only, where it has one."""
    lines = np.zeros((_GRID, _GRID), np.float32)
    name, half = (shape[:-2], shape[-1]) if shape[-2:] in ("_L", "_R") else (shape, "LR")
    rows, columns = np.mgrid[:_GRID, :_GRID]
    places = np.stack([columns, rows], axis=2) * (_GRID_SIDE / (_GRID - 1)) + _GRID_CORNER
    for x0, y0, x1, y1, depth in _WRINKLES.get(name, ()):
        for sign in (1.0 if side == "L" else -1.0 for side in half):
            start, along = np.array([sign * x0, y0]), np.array([sign * (x1 - x0), y1 - y0])
            share = np.clip((places - start) @ along / (along @ along), 0, 1)[..., None]
            distance = np.linalg.norm(places - start - share * along, axis=2) / _WRINKLE_WIDTH
            ridge = 0.25 * np.exp(-((distance - 2) ** 2))  # both sides of a fold catch the light
            lines -= depth * (np.exp(-(distance**2)) - ridge)
    return lines


def _lit(normals: np.ndarray) -> np.ndarray:
    return np.asarray(_AMBIENT + np.maximum(normals @ (_LIGHT / np.linalg.norm(_LIGHT)), 0))


def _frontal_normals(model: ICTFaceKit) -> tuple[np.ndarray, np.ndarray]:
    """Normals (128, 128, 3) of the neutral face on the grid, 0 outside; (K, ...) their changes."""
    vertices = model.neutral[_FRONT].astype(np.float64)
    quads = model.faces[((model.faces >= 0) & (model.faces < _FRONT.stop)).all(axis=1)]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    neutral = _vertex_normals(vertices, triangles)
    if neutral[:, 2].mean() > 0:  # they shall point to the viewer
        triangles, neutral = triangles[:, ::-1], -neutral
    moved = (_vertex_normals(vertices + shape[_FRONT], triangles) for shape in model.expression)
    normals = np.stack([neutral, *(each - neutral for each in moved)], axis=1)

    # The triangle that each cell of the grid shows, the nearest drawn last.
    triangles = triangles[(neutral[triangles, 2] < -0.05).all(axis=1)]
    triangles = triangles[np.argsort(-vertices[triangles, 2].mean(axis=1))]
    corners = _to_grid(vertices[triangles])
    owner = np.full((_GRID, _GRID), -1, np.int32)
    draw_triangles(owner, corners, range(len(corners)))
    rows, columns = np.nonzero(owner >= 0)
    shown = owner[rows, columns]
    sides = np.insert(corners[shown], 2, 1, axis=2).transpose(0, 2, 1)
    places = np.stack([columns, rows, np.ones(len(rows))], axis=1)[..., None]
    weights = np.linalg.pinv(sides) @ places  # a triangle seen edgewise has no inverse
    shares = weights[..., 0].clip(1e-6, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    maps = np.zeros((normals.shape[1], _GRID, _GRID, 3), np.float32)
    maps[:, rows, columns] = np.einsum("pc,pckd->kpd", shares, normals[triangles[shown]])
    maps[0] /= np.maximum(np.linalg.norm(maps[0], axis=2, keepdims=True), 1e-6)
    return maps[0], maps[1:]


def _vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    first, second, third = (vertices[triangles[:, corner]] for corner in range(3))
    of_triangles = np.cross(second - first, third - first)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], of_triangles)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9))
