"""Head pose in millimetres and radians, relative to a pinhole camera.

The PDM's shape is in millimetres, so a face's scale tells how far away it is. Without the PDM
that is all there is; with it, the pose is refined so that the perspective picture of the 3-d shape
meets the landmarks.
"""

import math
from dataclasses import dataclass
from numbers import Real

import cv2
import numpy as np

from mlx_faceau.core.geometry import euler_to_matrix, matrix_to_euler
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import UsageError


@dataclass(frozen=True)
class Camera:
    """Focal lengths and principal point in pixels; ValueError unless they can be a camera's."""

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float

    def __post_init__(self) -> None:
        finite = all(isinstance(n, Real) and math.isfinite(n) for n in vars(self).values())
        if not (finite and self.focal_x > 0 and self.focal_y > 0):
            raise UsageError(f"{self}: focal lengths are positive, all are finite numbers")

    @classmethod
    def from_size(cls, width: int, height: int) -> "Camera":
        """OpenFace's guess for an unknown camera: about 65 degrees across."""
        focal = 500 * (width / 640 + height / 480) / 2
        return cls(focal, focal, width / 2, height / 2)


@dataclass(frozen=True, eq=False, repr=False)
class HeadPose:
    """Where the head is and how it is turned, seen from the camera."""

    position: np.ndarray  # (3,) mm: right, down, away from the camera
    angles: np.ndarray  # (3,) radians rx, ry, rz with R = Rx Ry Rz

    @property
    def pitch(self) -> float:
        """Degrees about the axis to the right; positive looks down."""
        return float(np.degrees(self.angles[0]))

    @property
    def yaw(self) -> float:
        """Degrees about the axis down; positive turns the nose to the image's left."""
        return float(np.degrees(self.angles[1]))

    @property
    def roll(self) -> float:
        """Degrees about the viewing axis; positive tilts the head clockwise in the image."""
        return float(np.degrees(self.angles[2]))

    def __repr__(self) -> str:
        x, y, z = self.position
        angles = f"pitch={self.pitch:.1f}, yaw={self.yaw:.1f}, roll={self.roll:.1f}"
        return f"HeadPose({angles}, position=({x:.0f}, {y:.0f}, {z:.0f}))"


def head_pose(global_params: np.ndarray, camera: Camera) -> HeadPose:
    """Pose from weak-perspective parameters (6,) in frame pixels only.

    The distance is focal length / scale. The angles of the PDM are relative to the line of sight
    through the head; they are turned to be relative to the camera's axis (as in Baltrusaitis et
    al., OpenFace 2.0, FG 2018).
    """
    scale, *angles, tx, ty = np.asarray(global_params, np.float64)
    distance = camera.focal_x / scale
    x = (tx - camera.centre_x) * distance / camera.focal_x
    y = (ty - camera.centre_y) * distance / camera.focal_y
    sight = [-np.arctan2(y, np.hypot(x, distance)), np.arctan2(x, np.hypot(y, distance)), 0.0]
    rotation = euler_to_matrix(np.array(sight)) @ euler_to_matrix(np.array(angles))
    return HeadPose(np.array([x, y, distance]), matrix_to_euler(rotation))


def refined_head_pose(
    global_params: np.ndarray,
    local_params: np.ndarray,
    landmarks: np.ndarray,
    pdm: PDM,
    camera: Camera,
) -> HeadPose:
    """Pose at which the PDM's 3-d shape (K,), in perspective, meets the (P, 2) landmarks.

    Least squares in frame pixels; the search starts at the pose of the global parameters (6,).
    """
    start = head_pose(global_params, camera)
    projection = np.array(
        [[camera.focal_x, 0, camera.centre_x], [0, camera.focal_y, camera.centre_y], [0, 0, 1.0]]
    )
    turn = cv2.Rodrigues(euler_to_matrix(start.angles))[0]
    found, turn, position = cv2.solvePnP(
        pdm.shape(local_params),
        np.asarray(landmarks, np.float64),
        projection,
        None,
        turn,
        start.position.reshape(3, 1).copy(),
        useExtrinsicGuess=True,
        flags=cv2.SOLVEPNP_ITERATIVE,
    )
    if not found or not np.isfinite(position).all() or position[2, 0] <= 0:
        return start
    return HeadPose(position[:, 0], matrix_to_euler(cv2.Rodrigues(turn)[0]))


def points_3d(pose: HeadPose, local_params: np.ndarray, pdm: PDM) -> np.ndarray:
    """(P, 3) millimetres: the PDM's shape where the head is, in camera coordinates."""
    return np.asarray(pdm.shape(local_params) @ euler_to_matrix(pose.angles).T + pose.position)
