"""Histograms of oriented gradients of aligned faces, the input of OpenFace's action unit models.

31 numbers a cell of 8 x 8 pixels: 18 directions, 9 orientations, and 4 for the texture around the
cell. Of 14 x 14 cells the outermost ring has no full surroundings and is left out.

Reference:
    Felzenszwalb, Girshick, McAllester, Ramanan, Object detection with discriminatively trained
    part-based models, PAMI 2010, section 6.
"""

import numpy as np

CELL = 8  # pixels
HOG_SIZE = 12 * 12 * 31
_ORIENTATIONS, _DIRECTIONS = 9, 18
_CELLS = 14
_CLIP = 0.2
_TEXTURE = 0.2357  # 1 / sqrt(18), as in the paper's code of the four sums
_TIE = 1e-4  # of a direction: what rounding may hide
_EMPTY = 1e-4  # energy that keeps a flat block's norm from being 0


def fhog(images: np.ndarray) -> np.ndarray:
    """(N, 4464) float32 in [0, 1] of images (N, 112, 112, 3) uint8, in any colour order.

    12 rows of 12 cells of 31 numbers.
    """
    # The gradient of the steepest channel, (N, 110, 110).
    pixels = images.astype(np.float32)
    x = pixels[:, 1:-1, 2:] - pixels[:, 1:-1, :-2]
    y = pixels[:, 2:, 1:-1] - pixels[:, :-2, 1:-1]
    steepest = (x * x + y * y).argmax(-1)[..., None]
    x, y = (np.take_along_axis(part, steepest, -1)[..., 0] for part in (x, y))
    magnitude = np.sqrt(x * x + y * y)
    # The nearest of 18 directions, 20 degrees apart. Upright gradients lie between two: the first.
    turn = np.arctan2(y, x) * np.float32(_ORIENTATIONS / np.pi) % _DIRECTIONS
    direction = np.ceil(turn - np.float32(0.5 + _TIE)).astype(np.int32) % _DIRECTIONS

    # Every pixel votes in the four cells around it, by its distance to each: (N, 14, 14, 18).
    count, side = len(magnitude), magnitude.shape[1]
    place = (np.arange(1, side + 1) + 0.5) / CELL - 0.5  # of pixels, in cells
    first = np.floor(place).astype(np.int32)
    after = (place - first).astype(np.float32)
    shares = (1 - after, after)
    wide = _CELLS + 2  # a ring for the votes that fall outside
    faces = np.arange(count, dtype=np.int32)[:, None, None] * wide
    votes = np.zeros(count * wide * wide * _DIRECTIONS)
    for down in (0, 1):
        rows = (faces + (first + 1 + down)[:, None]) * wide
        for right in (0, 1):
            bins = (rows + (first + 1 + right)) * _DIRECTIONS + direction
            weights = magnitude * (shares[down][:, None] * shares[right])
            votes += np.bincount(bins.ravel(), weights.ravel(), len(votes))
    cells = votes.reshape(count, wide, wide, _DIRECTIONS)[:, 1:-1, 1:-1].astype(np.float32)

    # Histograms over the norms of the four 2 x 2 blocks around each cell.
    unsigned = cells[..., :_ORIENTATIONS] + cells[..., _ORIENTATIONS:]
    energy = (unsigned * unsigned).sum(-1)
    blocks = energy[:, :-1, :-1] + energy[:, 1:, :-1] + energy[:, :-1, 1:] + energy[:, 1:, 1:]
    signed, unsigned = cells[:, 1:-1, 1:-1], unsigned[:, 1:-1, 1:-1]
    inner = signed.shape[1]
    features = np.zeros((*signed.shape[:3], 31), np.float32)
    for number, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        block = blocks[:, row : row + inner, column : column + inner, None]
        scale = 1 / np.sqrt(block + np.float32(_EMPTY))
        clipped = np.minimum(signed * scale, _CLIP)
        features[..., :18] += 0.5 * clipped
        features[..., 18:27] += 0.5 * np.minimum(unsigned * scale, _CLIP)
        features[..., 27 + number] = _TEXTURE * clipped.sum(-1)
    return features.reshape(count, HOG_SIZE)
