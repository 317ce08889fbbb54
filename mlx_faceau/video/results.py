"""What the pipeline returns: a frame, its faces, and the file they came from."""

from dataclasses import dataclass, field

import numpy as np

from mlx_faceau.core.facs import AU_NAMES


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    Args:
        index: from 0, counted in the source's own frames.
        timestamp: seconds from the source's first frame.
        image: (H, W, 3) uint8 BGR.
    """

    index: int
    timestamp: float
    image: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class FaceResult:
    """One face of one frame, in frame pixels and radians.

    Args:
        face_id: from 0; the same person keeps it through a video.
        confidence: in [0, 1], see :mod:`mlx_faceau.video.confidence`.
        success: whether the confidence reached the pipeline's threshold.
        landmarks: (68, 2).
        global_params: (6,) scale, rx, ry, rz, tx, ty.
        local_params: (34,).
        warp_matrix: (2, 3) from the frame to the crop that the action units were predicted from.
        au_intensities: (17,) in [0, 5], or None without an action unit net.
    """

    face_id: int
    confidence: float
    success: bool
    landmarks: np.ndarray = field(repr=False)
    global_params: np.ndarray = field(repr=False)
    local_params: np.ndarray = field(repr=False)
    warp_matrix: np.ndarray = field(repr=False)
    au_intensities: np.ndarray | None = field(default=None, repr=False)

    @property
    def aus(self) -> dict[str, float]:
        """Intensities by name (``AU01_r`` ... ``AU45_r``); empty without an action unit net."""
        if self.au_intensities is None:
            return {}
        return dict(zip(AU_NAMES, self.au_intensities.tolist(), strict=True))


@dataclass(frozen=True)
class FrameResult:
    """A frame and its faces.

    Args:
        frame: index, timestamp and pixels.
        faces: ordered by ``face_id``; empty where no face was found.
        source: the file as it was named, ``"webcam 0"`` and so on for a camera, ``""`` for an
            array.
    """

    frame: Frame
    faces: tuple[FaceResult, ...] = ()
    source: str = ""
