"""Cut the standard crop out of a frame.

The standard crop is the square both networks train and predict on (see
:func:`mlx_faceau.core.geometry.standard_crop_matrix`); edges are replicated, and a strong shrink is
blurred first so that it does not alias.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import CROP_CENTRE, square_crop_matrix, standard_crop_matrix
from mlx_faceau.errors import UsageError

from .box_calibration import CALIBRATIONS, BoxCalibration

_BLUR_FROM = 1.25  # shrink ratio above which the frame is blurred before sampling
_REACH = 3.0  # of the blur's kernel, in sigmas, as cv2.GaussianBlur has it for 8 bits
_SAME_BLUR = 0.08  # relative difference of blurs that a crop does not show
_ROOM = 0.02  # room around a blurred region for the crop of the new landmarks, in sides


class FaceAligner:
    """Cuts 112 x 112 standard crops out of frames.

    The default ``calibration`` takes a box as the crop's square itself; give
    ``detector.calibration`` for a detector's boxes.
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
        """The standard crop of a face, (112, 112, 3) uint8 BGR.

        Args:
            frame: (H, W, 3) uint8 BGR.
            bbox: x, y, width, height in frame pixels.
            landmarks: (68, 2) frame pixels, instead of a box.

        Raises:
            ValueError: if the frame is no BGR image, or the box or landmarks make no square.
        """
        return crop_frame(frame, self.matrix(bbox, landmarks=landmarks))

    def matrix(
        self, bbox: Sequence[float] | None = None, *, landmarks: np.ndarray | None = None
    ) -> np.ndarray:
        """The (2, 3) similarity, frame to crop, that :meth:`align` samples with."""
        if landmarks is not None and bbox is None:
            return standard_crop_matrix(landmarks)
        if bbox is None or landmarks is not None:
            raise UsageError("give either a box or landmarks")
        return square_crop_matrix(*self.calibration.square(bbox))


def crop_frame(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sample a crop: bilinear, edges replicated, blurred first when shrinking by more than 1.25.

    From an (H, W, 3) uint8 BGR frame and a (2, 3) similarity, frame to crop (no mirroring, no
    shear), to (112, 112, 3) uint8 BGR; ValueError if the frame is no BGR image.
    """
    return FrameCrops(frame).crop(matrix)


@dataclass(frozen=True)
class _Region:
    """A blurred part of a frame: crops may sample up to ``reach`` from the centre to each side."""

    pixels: np.ndarray
    origin: tuple[int, int]  # x, y of its first pixel
    centre: tuple[float, float]
    reach: float
    sigma: float


class FrameCrops:
    """Cuts several crops out of one frame; blurring, the costly part, is done once a face.

    A crop that lies in a region blurred before, for a blur within 8 %, is sampled from it. The
    frame, (H, W, 3) uint8 BGR (else ValueError), must not change meanwhile.
    """

    def __init__(self, frame: np.ndarray) -> None:
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            shape = getattr(frame, "shape", type(frame).__name__)
            raise UsageError(f"a frame is an (H, W, 3) BGR image, got {shape}")
        if frame.dtype != np.uint8 or frame.size == 0:
            raise UsageError(f"a frame is a non-empty uint8 image, got {frame.dtype} {frame.shape}")
        self.frame = frame
        self._regions: list[_Region] = []

    def crop(self, matrix: np.ndarray) -> np.ndarray:
        """See :func:`crop_frame`."""
        (a, _, dx), (b, _, dy) = np.asarray(matrix, np.float64).tolist()
        square = a * a + b * b
        shrink = square**-0.5
        sigma = 0.5 * (shrink * shrink - 1) ** 0.5 if shrink > _BLUR_FROM else 0.0
        sigma = min(sigma, max(self.frame.shape))  # a kernel that takes the whole frame in
        # The crop's middle in the frame (the inverse similarity), and how far its corners reach.
        x, y = CROP_CENTRE - dx, CROP_CENTRE - dy
        centre = ((a * x + b * y) / square, (a * y - b * x) / square)
        reach = CROP_CENTRE * (abs(a) + abs(b)) / square
        for region in self._regions:
            away = max(abs(centre[i] - region.centre[i]) for i in (0, 1))
            same_blur = abs(region.sigma - sigma) <= _SAME_BLUR * sigma
            if same_blur and away + reach <= region.reach:
                break
        else:
            region = self._blurred_region(centre, (1 + 2 * _ROOM) * reach, sigma)
            self._regions.append(region)
        left, top = region.origin
        moved = np.array([[a, -b, dx + a * left - b * top], [b, a, dy + b * left + a * top]])
        return cv2.warpAffine(
            region.pixels,
            moved,
            (IMAGE_SIZE, IMAGE_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _blurred_region(self, centre: tuple[float, float], reach: float, sigma: float) -> _Region:
        margin = math.ceil(_REACH * sigma) + 2
        height, width = self.frame.shape[:2]
        left, right = _span(centre[0] - reach, centre[0] + reach, margin, width)
        top, bottom = _span(centre[1] - reach, centre[1] + reach, margin, height)
        pixels = self.frame[top:bottom, left:right]
        if sigma:  # as exact as cv2.GaussianBlur for 8 bits, and in half its time
            kernel = cv2.getGaussianKernel(2 * math.ceil(_REACH * sigma) + 1, sigma)
            pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
        return _Region(pixels, (left, top), centre, reach, sigma)


def _span(low: float, high: float, margin: int, size: int) -> tuple[int, int]:
    """Pixels from ``low`` to ``high`` and a margin, as far as there are any.

    Outside the frame the margin's pixels at the nearest edge remain, because they are blurred.
    """
    start = min(max(math.floor(low) - margin, 0), max(size - 1 - margin, 0))
    stop = max(min(math.ceil(high) + margin + 1, size), min(margin + 1, size))
    return start, stop
