"""Cut the standard crop out of a frame.

The standard crop is the square both networks train and predict on (see
:func:`mlx_faceau.geometry.standard_crop_matrix`); edges are replicated, and a strong shrink is
blurred first so that it does not alias.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from .architectures import IMAGE_SIZE
from .detect import CALIBRATIONS, BoxCalibration
from .geometry import invert, square_crop_matrix, standard_crop_matrix, transform_points

_BLUR_FROM = 1.25  # shrink ratio above which the frame is blurred before sampling
_CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * (IMAGE_SIZE - 1.0)


class FaceAligner:
    """Cuts 112 x 112 standard crops out of frames.

    Args:
        calibration: how boxes map to the crop's square. The default takes the box as the square
            itself; give ``detector.calibration`` for a detector's boxes.
    """

    def __init__(self, calibration: BoxCalibration = CALIBRATIONS["square"]) -> None:
        self.calibration = calibration

    def align(
        self,
        frame: np.ndarray,
        bbox: Sequence[float] | None = None,
        *,
        landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """The standard crop of a face.

        Args:
            frame: (H, W, 3) uint8 BGR.
            bbox: x, y, width, height in frame pixels, or None.
            landmarks: (68, 2) frame pixels, or None. One of the two is given.

        Returns:
            (112, 112, 3) uint8 BGR.

        Raises:
            ValueError: if the frame is no BGR image, or the box or landmarks make no square.
        """
        return crop_frame(frame, self.matrix(bbox, landmarks=landmarks))

    def matrix(
        self, bbox: Sequence[float] | None = None, *, landmarks: np.ndarray | None = None
    ) -> np.ndarray:
        """The (2, 3) similarity, frame to crop, that :meth:`align` samples with.

        Raises:
            ValueError: see :meth:`align`.
        """
        if landmarks is not None and bbox is None:
            return standard_crop_matrix(landmarks)
        if bbox is None or landmarks is not None:
            raise ValueError("give either a box or landmarks")
        return square_crop_matrix(*self.calibration.square(bbox))


def crop_frame(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sample a crop: bilinear, edges replicated, blurred first when shrinking by more than 1.25.

    Args:
        frame: (H, W, 3) uint8 BGR.
        matrix: (2, 3) similarity, frame to crop.

    Returns:
        (112, 112, 3) uint8 BGR.

    Raises:
        ValueError: if the frame is no BGR image.
    """
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
        shape = getattr(frame, "shape", type(frame).__name__)
        raise ValueError(f"a frame is an (H, W, 3) BGR image, got {shape}")
    if frame.dtype != np.uint8 or frame.size == 0:
        raise ValueError(f"a frame is a non-empty uint8 image, got {frame.dtype} {frame.shape}")
    shrink = 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    sigma = 0.5 * np.sqrt(shrink * shrink - 1) if shrink > _BLUR_FROM else 0.0
    region, matrix = _region(frame, matrix, margin=int(np.ceil(4 * sigma)) + 2)
    if sigma:
        region = cv2.GaussianBlur(region, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(
        region,
        matrix,
        (IMAGE_SIZE, IMAGE_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _region(frame: np.ndarray, matrix: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame that a crop samples, and the matrix from it: blurring more is waste."""
    corners = transform_points(invert(matrix), _CORNERS)
    size = np.array(frame.shape[1::-1])
    # A square outside the frame still needs the margin's pixels, blurred, at the nearest edge.
    last, first = np.maximum(size - 1 - margin, 0), np.minimum(margin + 1, size)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - margin, 0, last)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + margin + 1, first, size)
    moved = np.array(matrix, np.float64)
    moved[:, 2] = transform_points(matrix, low[None].astype(np.float64))[0]
    return frame[low[1] : high[1], low[0] : high[0]], moved
