"""Random changes of a crop's appearance; none moves the face.

The order follows a photograph's life: light and colour, optics and motion, resolution, sensor
noise, compression, then the crop's own traces (edges repeated past the photograph's border) and
what covers a part of the face.
"""

from statistics import NormalDist

import cv2
import numpy as np

from .levels import Level

_LUMA = np.array([0.299, 0.587, 0.114])  # of RGB, ITU-R BT.601
_SHADES = np.linspace(0, 1, 256)[:, None]
# 256 equally likely values of the normal distribution: noise is then a table look-up of random
# bytes, four times as fast as drawing normal numbers.
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)


def change_appearance(image: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """The image, (112, 112, 3) uint8 RGB, with another appearance; the one given stays as it is."""
    # Gamma, contrast, brightness and tint of each level and channel, as a table.
    tone = _SHADES ** draw_factors(level.gamma, rng)
    tone = (tone - 0.5) * draw_factors(level.contrast, rng) + 0.5
    tone = tone + rng.uniform(-level.brightness, level.brightness)
    levels = 255 * tone * draw_factors(level.tint, rng, 3)
    image = cv2.LUT(image, np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)[None])

    kept = 1 + rng.uniform(-level.saturation, level.saturation)
    if rng.random() < level.grey:
        kept = 0.0
    image = cv2.transform(image, kept * np.eye(3) + (1 - kept) * _LUMA)

    if rng.random() < level.blur:
        if rng.random() < 0.5:
            sigma = rng.uniform(0.3, level.blur_sigma)
            image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        else:
            kernel = motion_kernel(rng.uniform(2, level.motion), rng.uniform(0, np.pi))
            image = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    if rng.random() < level.coarse:
        size, side = image.shape[:2], int(rng.integers(level.coarse_side, image.shape[0]))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < level.noise:
        sigma = rng.uniform(0, level.noise_sigma)
        noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
        image = cv2.add(image, cv2.LUT(noise, np.float32(sigma) * _NORMAL), dtype=cv2.CV_8U)
    if rng.random() < level.jpeg:
        quality = int(rng.integers(level.jpeg_quality, 96))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # the codec's colour order
        _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    if rng.random() < level.edges:
        depths = rng.integers(0, level.edge_depth + 1, 4) * rng.integers(0, 2, 4)
        top, bottom, left, right = depths.tolist()
        inner = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
        image = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE)
    if rng.random() < level.cutout:  # a rectangle of one colour; it may reach past the border
        longest = level.cutout_side
        height, width = rng.integers(longest // 3, longest + 1, 2).tolist()
        y, x = rng.integers(-longest // 2, image.shape[0], 2).tolist()
        covered = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        image[covered] = rng.integers(256, size=3)
    return image


def draw_factors(largest: float, rng: np.random.Generator, count: int = 1) -> np.ndarray:
    """(count,) factors in [1 / largest, largest], as often above 1 as below."""
    bound = np.log(largest)
    return np.asarray(np.exp(rng.uniform(-bound, bound, count)))


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Weights of a straight, even movement, centred, so that it moves nothing on average.

    ``length`` is in pixels, ``angle`` in radians from x towards y; (k, k) float32, sum 1, k odd.
    """
    reach = int(np.ceil(length / 2))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(y * np.cos(angle) - x * np.sin(angle))
    weights = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(weights / weights.sum(), np.float32)
