"""What the pipeline says about a frame and about each face in it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Args:
        index: from 0, counted in the source's own frames.
        timestamp: seconds from the source's first frame.
        image: (H, W, 3) uint8 BGR.
    """

    index: int
    timestamp: float
    image: np.ndarray


@dataclass(frozen=True)
class Face:
    """One face of one frame, in frame pixels and radians.

    Args:
        face_id: from 0; the same person keeps it through a video.
        confidence: in [0, 1]: how far this can be trusted (see :mod:`mlx_faceau.video.confidence`).
        success: the confidence reached the pipeline's threshold.
        landmarks: (68, 2).
        global_params: (6,) scale, rx, ry, rz, tx, ty.
        local_params: (34,).
        warp_matrix: (2, 3) from the frame to the crop that the action units were read from.
        au_intensities: (17,) in [0, 5], or None without an action unit net.
    """

    face_id: int
    confidence: float
    success: bool
    landmarks: np.ndarray
    global_params: np.ndarray
    local_params: np.ndarray
    warp_matrix: np.ndarray
    au_intensities: np.ndarray | None = None


@dataclass(frozen=True)
class FrameFaces:
    """A frame and its faces, ordered by ``face_id``; no face is an empty tuple."""

    frame: Frame
    faces: tuple[Face, ...] = field(default_factory=tuple)
