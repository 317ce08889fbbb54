"""Cut the standard crop out of a frame.

The standard crop is the square both networks train and predict on (see
:func:`mlx_faceau.geometry.standard_crop_matrix`); edges are replicated, and a strong shrink is
blurred first so that it does not alias.
"""

import cv2
import numpy as np

from .architectures import IMAGE_SIZE
from .geometry import square_crop_matrix

_BLUR_FROM = 1.25  # shrink ratio above which the frame is blurred before sampling


class FaceAligner:
    """Cuts 112 x 112 crops out of frames."""

    def align(self, frame: np.ndarray, bbox: tuple[float, float, float, float]) -> np.ndarray:
        """The square around a box, as a crop.

        Args:
            frame: (H, W, 3) uint8 BGR.
            bbox: x, y, width, height in frame pixels of the standard crop's square; the longer
                side counts, around the box's middle.

        Returns:
            (112, 112, 3) uint8 BGR.

        Raises:
            ValueError: if the frame is no BGR image or the box has no area.
        """
        x, y, width, height = (float(value) for value in bbox)
        centre = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
        return crop_frame(frame, square_crop_matrix(centre, max(width, height)))


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
    if shrink > _BLUR_FROM:
        sigma = 0.5 * np.sqrt(shrink * shrink - 1)
        frame = cv2.GaussianBlur(frame, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(
        frame,
        matrix,
        (IMAGE_SIZE, IMAGE_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
