"""Parts of the face among MediaPipe's 478 mesh points, and a triangulation of the points."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

NUM_POINTS = 478
NUM_SKIN_POINTS = 468  # the others are the irises'

# The outline, clockwise from the forehead.
FACE_OVAL = np.array([
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
])  # fmt: skip
MOUTH_CORNERS = np.array([78, 308])
UPPER_LIP = np.array([191, 80, 81, 82, 13, 312, 311, 310, 415])  # inner edge, image left to right
LOWER_LIP = np.array([95, 88, 178, 87, 14, 317, 402, 318, 324])
MOUTH = np.r_[MOUTH_CORNERS[0], LOWER_LIP, MOUTH_CORNERS[1], UPPER_LIP[::-1]]


@dataclass(frozen=True)
class Eye:
    """One eye: its corners, its lids' edges from the outer to the inner one, and its iris."""

    side: str  # of the subject, as ICT-FaceKit's names end
    corners: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    iris: int  # its centre; four points around it follow

    @property
    def ring(self) -> np.ndarray:
        """The 16 points of the opening, in order."""
        return np.asarray(np.r_[self.corners[0], self.lower, self.corners[1], self.upper[::-1]])

    def aperture(self, points: np.ndarray) -> float:
        """Mean height of the opening's middle over its width, of points (478, 2 or 3)."""
        middle = points[self.upper[2:5], :2] - points[self.lower[2:5], :2]
        width = np.linalg.norm(points[self.corners[0]] - points[self.corners[1]])
        return float(np.linalg.norm(middle, axis=1).mean() / width)


EYES = (
    Eye(
        "R",
        np.array([33, 133]),
        np.array([246, 161, 160, 159, 158, 157, 173]),
        np.array([7, 163, 144, 145, 153, 154, 155]),
        468,
    ),
    Eye(
        "L",
        np.array([263, 362]),
        np.array([466, 388, 387, 386, 385, 384, 398]),
        np.array([249, 390, 373, 374, 380, 381, 382]),
        473,
    ),
)


def triangulate_skin(layout: np.ndarray) -> np.ndarray:
    """Triangles between the skin points: none in the eyes, the mouth or outside the face's outline.

    Args:
        layout: (468, 2) a frontal face with parted lips, so that no triangle joins them; y down.

    Returns:
        (T, 3) indices, clockwise on the screen.
    """
    triangles = _delaunay(layout)
    centres = layout[triangles].mean(axis=1)
    open_eye = [np.isin(triangles, eye.ring).all(axis=1) for eye in EYES]
    open_mouth = np.isin(triangles, MOUTH).all(axis=1) & _inside(layout[MOUTH], centres)
    dropped = np.any([*open_eye, open_mouth], axis=0) | ~_inside(layout[FACE_OVAL], centres)
    triangles = triangles[~dropped]
    backwards = twice_area(layout[triangles]) < 0
    triangles[backwards] = triangles[backwards][:, ::-1]
    return np.asarray(triangles)


def _delaunay(points: np.ndarray) -> np.ndarray:
    """(T, 3) indices of the Delaunay triangulation of points (n, 2)."""
    exact = points.astype(np.float32)
    low, high = np.floor(exact.min(axis=0)) - 1, np.ceil(exact.max(axis=0)) + 1
    plane = cv2.Subdiv2D([int(value) for value in (*low, *(high - low))])
    for x, y in exact.tolist():
        plane.insert((x, y))
    corners = np.asarray(plane.getTriangleList(), np.float32).reshape(-1, 3, 1, 2)
    # Triangles with one of the plane's own three corners match no point.
    distances = np.abs(corners - exact).max(axis=3)
    return np.asarray(distances.argmin(axis=2)[(distances.min(axis=2) == 0).all(axis=1)])


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    outline = polygon.astype(np.float32)
    return np.array([cv2.pointPolygonTest(outline, (x, y), False) >= 0 for x, y in points.tolist()])


def twice_area(corners: np.ndarray) -> np.ndarray:
    """(T,) of triangles (T, 3, 2); positive where clockwise on a screen whose y points down."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])


def draw_triangles(owner: np.ndarray, corners: np.ndarray, indices: Iterable[int]) -> None:
    """Write indices of triangles (T, 3, 2) into the pixels (H, W) int32 that show them, in order.

    Corners are pixels, to a sixteenth; later triangles hide earlier ones.
    """
    fixed = np.rint(corners * 16).astype(np.int32)
    for index in indices:
        cv2.fillConvexPoly(owner, fixed[index], index, cv2.LINE_8, 4)
