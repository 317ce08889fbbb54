"""Cut the standard crop out of a frame.

The standard crop is the square both networks train and predict on (see
:func:`mlx_faceau.geometry.standard_crop_matrix`); edges are replicated, and a strong shrink is
blurred first so that it does not alias.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .architectures import IMAGE_SIZE
from .detect import CALIBRATIONS, BoxCalibration
from .geometry import invert, square_crop_matrix, standard_crop_matrix, transform_points

_BLUR_FROM = 1.25  # shrink ratio above which the frame is blurred before sampling
_SAME_BLUR = 0.03  # relative difference of blurs that a crop does not show
_ROOM = 0.06  # room around a blurred region for further crops, in sides
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
    return FrameCrops(frame).crop(matrix)


@dataclass(frozen=True)
class _Region:
    """A part of a frame, blurred: its pixels, and where it may be sampled, in frame pixels."""

    pixels: np.ndarray
    origin: np.ndarray  # (2,) of the first pixel
    low: np.ndarray  # (2,) first corner that a crop may reach to
    high: np.ndarray
    sigma: float


class FrameCrops:
    """Cuts several crops out of one frame; blurring, the costly part, is done once a face.

    A crop that lies in a region blurred before, for a shrink within 3 %, is sampled from it.

    Args:
        frame: (H, W, 3) uint8 BGR; it must not change meanwhile.

    Raises:
        ValueError: if the frame is no BGR image.
    """

    def __init__(self, frame: np.ndarray) -> None:
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            shape = getattr(frame, "shape", type(frame).__name__)
            raise ValueError(f"a frame is an (H, W, 3) BGR image, got {shape}")
        if frame.dtype != np.uint8 or frame.size == 0:
            raise ValueError(f"a frame is a non-empty uint8 image, got {frame.dtype} {frame.shape}")
        self.frame = frame
        self._regions: list[_Region] = []

    def crop(self, matrix: np.ndarray) -> np.ndarray:
        """See :func:`crop_frame`."""
        shrink = 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
        sigma = 0.5 * float(np.sqrt(shrink * shrink - 1)) if shrink > _BLUR_FROM else 0.0
        corners = transform_points(invert(matrix), _CORNERS)
        low, high = corners.min(axis=0), corners.max(axis=0)
        region = self._kept(low, high, sigma)
        if region is None:
            region = self._cut(low, high, sigma)
            self._regions.append(region)
        moved = np.array(matrix, np.float64)
        moved[:, 2] = transform_points(matrix, region.origin[None])[0]
        return cv2.warpAffine(
            region.pixels,
            moved,
            (IMAGE_SIZE, IMAGE_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _kept(self, low: np.ndarray, high: np.ndarray, sigma: float) -> _Region | None:
        for region in self._regions:
            similar = abs(region.sigma - sigma) <= _SAME_BLUR * sigma
            if similar and (low >= region.low).all() and (high <= region.high).all():
                return region
        return None

    def _cut(self, low: np.ndarray, high: np.ndarray, sigma: float) -> _Region:
        """The part of the frame that a crop samples, with room for others near it."""
        room = _ROOM * float((high - low).max())
        low, high = low - room, high + room
        margin = int(np.ceil(4 * sigma)) + 2
        size = np.array(self.frame.shape[1::-1])
        # A square outside the frame still needs the margin's pixels, blurred, at the nearest edge.
        last, first = np.maximum(size - 1 - margin, 0), np.minimum(margin + 1, size)
        start = np.clip(np.floor(low).astype(int) - margin, 0, last)
        stop = np.clip(np.ceil(high).astype(int) + margin + 1, first, size)
        pixels = self.frame[start[1] : stop[1], start[0] : stop[0]]
        if sigma:
            pixels = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return _Region(pixels, start.astype(np.float64), low, high, sigma)
