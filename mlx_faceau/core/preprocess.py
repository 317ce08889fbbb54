"""From crops to network input: the one place where colour order and pixel scale change.

Crops are (112, 112, 3) uint8 BGR as cv2 gives them; training files hold RGB; every network and
every exported file reads float32 RGB in [0, 1].
"""

import numpy as np

from mlx_faceau.errors import UsageError

from .architectures import IMAGE_SIZE

CROP_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)
PIXEL_MAX = 255.0
COLOR_ORDER = "RGB"
PADDED_SIZES = (1, 4, 16, 64, 256)


def check_crops(crops: np.ndarray) -> np.ndarray:
    """Crops given to a predictor, one or N uint8 BGR, as (N, 112, 112, 3); else UsageError."""
    if not isinstance(crops, np.ndarray):
        raise UsageError(
            f"a crop is a NumPy array of shape {CROP_SHAPE}, got {type(crops).__name__}; "
            "read images with cv2.imread, which gives None for a wrong path"
        )
    if crops.shape[-3:] != CROP_SHAPE or crops.ndim not in (3, 4):
        raise UsageError(
            f"crops have shape {crops.shape}, expected {CROP_SHAPE} BGR, for a batch with the "
            "number of faces before it; cut faces out with FaceAligner().align(frame, bbox)"
        )
    if crops.dtype != np.uint8:
        raise UsageError(
            f"crops are {crops.dtype}, expected uint8 in [0, 255]; do not scale them beforehand"
        )
    return crops.reshape(-1, *CROP_SHAPE)


def to_network_input(crops: np.ndarray) -> np.ndarray:
    """One or N uint8 BGR crops as (N, 112, 112, 3) float32 RGB in [0, 1], contiguous."""
    import cv2  # here: reading a checkpoint needs NumPy alone

    crops = crops.reshape(-1, *CROP_SHAPE)
    if crops.size == 0:
        return scale_rgb(crops)
    # cv2 swaps colours five times as fast as NumPy; it takes the batch as one tall image.
    rgb = cv2.cvtColor(crops.reshape(-1, IMAGE_SIZE, 3), cv2.COLOR_BGR2RGB)
    return scale_rgb(rgb.reshape(crops.shape))


def scale_rgb(images: np.ndarray) -> np.ndarray:
    """(N, 112, 112, 3) uint8 RGB as contiguous float32 in [0, 1]."""
    return np.asarray(np.divide(images, np.float32(PIXEL_MAX), dtype=np.float32, order="C"))


def fill_batch(images: np.ndarray, size: int) -> np.ndarray:
    """A batch (N, ...), N >= 1, filled up to ``size`` with its last image: (max(N, size), ...).

    For what runs in batches of certain sizes; it is ``images`` itself where nothing is missing.
    """
    missing = size - len(images)
    if missing <= 0:
        return images
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])


def padded_size(count: int) -> int:
    """The batch size to fill up to where every new size costs a set-up, as on GPUs."""
    return next((size for size in PADDED_SIZES if size >= count), count)


def to_crops(images: np.ndarray) -> np.ndarray:
    """Network input, (N, 112, 112, 3) float32 RGB in [0, 1], back as contiguous uint8 BGR crops.

    For files that read uint8; exact for what came from crops.
    """
    return np.ascontiguousarray(np.rint(images[..., ::-1] * PIXEL_MAX).astype(np.uint8))
