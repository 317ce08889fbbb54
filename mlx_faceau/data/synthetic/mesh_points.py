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

    The layout (468, 2) is that of a frontal face with parted lips, so that no triangle joins them,
    y down. The indices (T, 3) are clockwise on the screen.
    """
    from matplotlib.path import Path
    from matplotlib.tri import Triangulation

    triangles = Triangulation(*layout.T).triangles  # Delaunay's
    centres = layout[triangles].mean(axis=1)
    in_mouth, in_face = (Path(layout[p]).contains_points(centres) for p in (MOUTH, FACE_OVAL))
    open_eye = [np.isin(triangles, eye.ring).all(axis=1) for eye in EYES]
    open_mouth = np.isin(triangles, MOUTH).all(axis=1) & in_mouth
    triangles = triangles[in_face & ~np.any([*open_eye, open_mouth], axis=0)]
    backwards = twice_area(layout[triangles]) < 0
    triangles[backwards] = triangles[backwards][:, ::-1]
    return np.asarray(triangles)


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
