"""Contact sheets: faces with their landmarks drawn, to inspect data and augmentation."""

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import GROUPS

_SHIFT = 4  # bits of sub-pixel position
_ZOOM = 2
_COLUMNS = 10  # faces in a row
_CAPTION = 20  # rows of a caption
_NAMED = 3  # action units in one
_CLOSED = ("right_eye", "left_eye", "outer_mouth", "inner_mouth")
_COLORS = {  # RGB
    **{"jaw": (255, 255, 255), "right_brow": (255, 200, 0), "left_brow": (255, 120, 0)},
    **{"nose": (80, 220, 255), "right_eye": (80, 255, 80), "left_eye": (0, 200, 0)},
    **{"outer_mouth": (255, 80, 160), "inner_mouth": (200, 80, 255)},
}


def contact_sheet(images: np.ndarray, landmarks: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 3) uint8 RGB at twice their size, with landmarks (N, 68, 2) in pixels.

    The strongest of the intensities (N, 17) are written at a face's lower edge. The sheet has at
    most ten columns, (rows * 2H, columns * 2W, 3) uint8 RGB; places left over are black.
    """
    tiles = []
    for image, points, units in zip(images, landmarks, intensities, strict=True):
        tile = cv2.resize(image, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_LINEAR)
        # Resizing keeps pixel borders, so a centre moves by half a pixel.
        fixed = np.round(((points + 0.5) * _ZOOM - 0.5) * (1 << _SHIFT)).astype(np.int32)
        for name, members in GROUPS.items():
            line, color = fixed[list(members)], _COLORS[name]
            cv2.polylines(tile, [line], name in _CLOSED, color, 1, cv2.LINE_AA, _SHIFT)
            for x, y in line.tolist():
                cv2.circle(tile, (x, y), 1 << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)
        tile[-_CAPTION:] //= 3
        place, white = (4, tile.shape[0] - 6), (255, 255, 255)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(tile, strongest_units(units), place, font, 0.42, white, 1, cv2.LINE_AA)
        tiles.append(tile)
    columns = min(_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def strongest_units(au_intensities: np.ndarray) -> str:
    """The three strongest action units of (17,) intensities that are at least 0.5, as a caption."""
    order = np.argsort(-np.asarray(au_intensities), kind="stable")[:_NAMED]
    shown = [i for i in order.tolist() if au_intensities[i] >= 0.5]
    return "  ".join(f"{AU_NAMES[i].removesuffix('_r')} {au_intensities[i]:.1f}" for i in shown)
