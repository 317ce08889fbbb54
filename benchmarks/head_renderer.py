"""Pictures of ICT-FaceKit's heads at known poses: painted vertices, one light, a z-buffer.

Good enough that face nets find and measure them; the model has no skin texture.
"""

from itertools import pairwise

import cv2
import numpy as np

from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.data.labels.ict_facekit import ICTFaceKit

# Parts of the model by vertices, as its authors number them: (first, behind the last).
FACE = (0, 9409)
_HEAD = (0, 11248)  # face, scalp and neck
_MOUTH_SOCKET, _EYE_SOCKETS, _GUMS, _TEETH = (
    (11248, 13294),
    (13294, 14062),
    (14062, 17039),
    (17039, 21451),
)
_EYEBALLS = ((21451, 23021), (23021, 24591))
_OPAQUE = 24591  # vertices; behind them lie fluid, lashes and occlusion
_SKIN, _BROW, _LIP, _HAIR = (150, 175, 215), (45, 60, 75), (110, 110, 190), (35, 45, 60)  # BGR
_LIGHT = np.array([-0.26, -0.43, -0.86])  # from the upper left, in front


def paint(model: ICTFaceKit) -> np.ndarray:
    """(V, 3) BGR of the vertices: skin, brows, lips, hair, eyes, mouth."""
    colours = np.tile(np.array(_SKIN, np.float64), (len(model.neutral), 1))
    points, landmarks = model.neutral, model.neutral[model.landmarks68, :2]
    front = (np.arange(len(points)) < FACE[1]) & (points[:, 2] < 0)
    for name in ("right_brow", "left_brow"):
        colours[front & (_distance(points[:, :2], landmarks[GROUPS[name]]) < 4)] = _BROW
    lips = cv2.convexHull(landmarks[GROUPS["outer_mouth"]].astype(np.float32))
    inside = [cv2.pointPolygonTest(lips, (float(x), float(y)), True) > -0.5 for x, y, _ in points]
    colours[front & np.array(inside) & (points[:, 2] < -85)] = _LIP
    scalp = (points[:, 1] < -88) | ((points[:, 2] > 5) & (points[:, 1] < 0))
    colours[(np.arange(len(points)) < _HEAD[1]) & scalp] = _HAIR
    inner = (
        (_MOUTH_SOCKET, (40, 30, 70)),
        (_EYE_SOCKETS, (90, 100, 150)),
        (_GUMS, (90, 90, 170)),
        (_TEETH, (215, 225, 230)),
    )
    for part, colour in inner:
        colours[slice(*part)] = colour
    for part in _EYEBALLS:
        ball = points[slice(*part)]
        radius = np.linalg.norm((ball - ball.mean(axis=0))[:, :2], axis=1)
        ahead = ball[:, 2] < ball[:, 2].mean()
        colours[slice(*part)] = (225, 228, 230)
        colours[slice(*part)][ahead & (radius < 5.8)] = (50, 80, 110)  # iris
        colours[slice(*part)][ahead & (radius < 2.2)] = (15, 15, 15)  # pupil
    return colours


def _distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """(V,) from each point to a line of segments."""
    nearest = np.full(len(points), np.inf)
    for start, end in pairwise(line):
        along = (points - start) @ (end - start) / ((end - start) @ (end - start))
        foot = start + np.clip(along, 0, 1)[:, None] * (end - start)
        nearest = np.minimum(nearest, np.linalg.norm(points - foot, axis=1))
    return nearest


def see(
    vertices: np.ndarray, rotation: np.ndarray, size: int, distance: float, height: float
) -> np.ndarray:
    """Vertices as a camera sees them: pixels and depth.

    Args:
        vertices: (V, 3) mm around the head's origin, which lies on the camera's axis.
        rotation: (3, 3) of the head.
        size: pixels of the square picture's side.
        distance: mm from the camera to the origin.
        height: mm that the picture shows there.

    Returns:
        (V, 3) x, y in pixels with centres at whole numbers, and mm from the camera.
    """
    seen = vertices @ rotation.T
    depth = distance + seen[:, 2:]
    flat = seen[:, :2] * (size / height * distance) / depth + (size - 1) / 2
    return np.concatenate([flat, depth], axis=1)


def draw(
    model: ICTFaceKit, vertices: np.ndarray, colours: np.ndarray, seen: np.ndarray, size: int
) -> np.ndarray:
    """(size, size, 3) uint8 BGR picture.

    Args:
        model: whose faces join the vertices.
        vertices: (V, 3) turned like the head: they take the light.
        colours: (V, 3) of :func:`paint`.
        seen: (V, 3) of :func:`see`.
        size: pixels of the side.
    """
    quads = model.faces[model.faces.max(axis=1) < _OPAQUE]
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
    shaded = colours * (0.45 + 0.6 * np.clip(_normals(vertices, triangles) @ _LIGHT, 0, 1))[:, None]
    pixels, owners, weights = _fragments(seen[:, :2][triangles], size)
    depth = (seen[:, 2][triangles[owners]] * weights).sum(axis=1)
    order = np.lexsort((depth, pixels))
    nearest = order[np.diff(pixels[order], prepend=-1) > 0]
    background = np.linspace(165, 100, size)[:, None, None]
    picture = np.tile(background, (1, size, 3)).reshape(-1, 3)
    corners = shaded[triangles[owners[nearest]]]
    picture[pixels[nearest]] = (corners * weights[nearest, :, None]).sum(axis=1)
    picture = np.clip(picture, 0, 255).astype(np.uint8).reshape(size, size, 3)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.7))


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    corners = vertices[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], across)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9))


def _fragments(corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (F,) under the triangles (T, 3, 2), whose each is, and its barycentric weights."""
    first, last = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    low, span = first.astype(int), (last - first).astype(int)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    usable = (np.abs(area) > 1e-6) & (last.min(axis=1) >= 0) & (first.max(axis=1) < size)
    found = []
    for down in range(span[usable, 1].max() + 1):
        for right in range(span[usable, 0].max() + 1):
            chosen = np.flatnonzero(usable & (span >= (right, down)).all(axis=1))
            pixel, corner = low[chosen] + (right, down), corners[chosen]
            sides = [(corner[:, (k + 1) % 3], corner[:, (k + 2) % 3]) for k in range(3)]
            weights = np.stack([_cross(b - a, pixel - a) for a, b in sides], axis=1)
            weights /= area[chosen, None]
            inside = ((weights >= -1e-6).all(axis=1)) & ((pixel >= 0) & (pixel < size)).all(axis=1)
            found.append((pixel[inside] @ [1, size], chosen[inside], weights[inside]))
    pixels, owners, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixels, owners, weights


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
