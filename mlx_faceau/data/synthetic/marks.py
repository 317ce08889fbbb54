"""Points of synthetic faces beyond the 68: outlines of head and hair, and tinted skin.

Millimetres on the mean face of :mod:`~mlx_faceau.data.synthetic.shape`; they move with the
landmarks. Sided ones are given for the image-left half and mirrored.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .shape import Point, interpolation

Line = tuple[Point, ...]


@dataclass(frozen=True)
class Tint:
    """A patch of skin that flushes, darkens or shines with the intensity of one action unit.

    Stronger than on any real face, so that a small network learns the units in a few hundred steps.
    """

    unit: str
    color: tuple[int, int, int]  # RGB
    outline: Line  # corners of the patch
    sided: bool = True


# Units of one expression share a colour where they can.
FLUSH, SHADE, SHINE = (225, 40, 40), (50, 25, 35), (255, 250, 235)
BRUISE, CHILL = (105, 10, 215), (40, 130, 255)

TINTS: tuple[Tint, ...] = (
    Tint("AU01_r", SHINE, ((-20, -57, -8), (20, -57, -8), (18, -76, -4), (-18, -76, -4)), False),
    Tint("AU02_r", SHINE, ((-64, -52, 22), (-32, -60, 0), (-34, -74, 2), (-58, -70, 20))),
    Tint(
        "AU04_r", BRUISE, ((-14, -60, -11), (14, -60, -11), (10, -33, -15), (-10, -33, -15)), False
    ),
    Tint("AU05_r", SHINE, ((-50, -34, 10), (-31, -40, 0), (-13, -34, 3), (-31, -54, 0))),
    Tint("AU06_r", FLUSH, ((-56, -8, 16), (-40, -14, 3), (-26, -6, -4), (-44, 10, 7))),
    Tint("AU07_r", BRUISE, ((-50, -24, 8), (-31, -20, 0), (-14, -24, 3), (-31, -7, -1))),
    Tint("AU09_r", FLUSH, ((-8, -32, -10), (8, -32, -10), (16, 8, -16), (-16, 8, -16)), False),
    Tint("AU10_r", SHADE, ((-17, 21, -12), (-20, 9, -8), (-34, 25, -2), (-25, 34, -8))),
    Tint("AU12_r", FLUSH, ((-40, 16, 0), (-56, 10, 14), (-56, 32, 14), (-41, 37, 3))),
    Tint("AU14_r", CHILL, ((-28, 34, 1), (-41, 33, 4), (-42, 52, 5), (-28, 50, 1))),
    Tint("AU15_r", SHADE, ((-18, 53, -6), (-29, 49, 1), (-42, 60, 9), (-26, 69, -2))),
    Tint("AU17_r", FLUSH, ((-18, 59, -6), (18, 59, -6), (15, 75, -6), (-15, 75, -6)), False),
    Tint("AU20_r", CHILL, ((-42, 33, 6), (-65, 25, 30), (-61, 51, 26), (-42, 52, 8))),
    Tint("AU23_r", BRUISE, ((-21, 33, -9), (21, 33, -9), (15, 22, -12), (-15, 22, -12)), False),
)

# Lines over the head end in its middle or beside it; the others belong to one side.
OUTLINES: dict[str, Line] = {
    "forehead": ((-73, -40, 54), (-68, -62, 40), (-54, -84, 24), (-30, -97, 12), (0, -101, 8)),
    "hairline": ((-72, -34, 50), (-64, -58, 30), (-48, -72, 14), (-25, -79, 4), (0, -81, 0)),
    "hair": ((-80, 10, 70), (-86, -30, 66), (-80, -75, 50), (-50, -108, 40), (0, -118, 34)),
    "long_hair": ((-62, 95, 70), (-88, 50, 72)),
    "ear": ((-72, -30, 60), (-81, -33, 66), (-83, -14, 66), (-77, 6, 64), (-71, 4, 58)),
    "neck": ((-45, 60, 60), (-44, 110, 60), (-80, 130, 60), (-95, 170, 60)),
}


@dataclass(frozen=True)
class Marks:
    """All marks as one array of points, with the rows of each."""

    points: np.ndarray  # (M, 3) mm
    weights: np.ndarray  # (M, 68), see interpolation()
    tints: tuple[tuple[Tint, slice], ...]  # a sided one twice
    outlines: dict[str, tuple[slice, slice]]  # image-left half and its mirror image


@cache
def marks() -> Marks:
    """The marks of all synthetic people; the same arrays on every call."""
    rows: list[np.ndarray] = []

    def add(line: Line) -> tuple[slice, slice]:
        start, count = sum(map(len, rows)), len(line)
        half = np.array(line, np.float64)
        rows.extend([half, half * [-1, 1, 1]])
        return slice(start, start + count), slice(start + count, start + 2 * count)

    tints = [(tint, side) for tint in TINTS for side in add(tint.outline)[: 1 + tint.sided]]
    outlines = {name: add(line) for name, line in OUTLINES.items()}
    points = np.concatenate(rows)
    return Marks(points, interpolation(points), tuple(tints), outlines)
