"""Points of synthetic faces beyond the 68: outlines of head and hair, wrinkles, tinted skin.

Millimetres on the mean face of :mod:`~mlx_faceau.data.synthetic.shape`; they move with the
landmarks. Sided ones are given for the image-left half and mirrored.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .shape import Point, interpolation

Line = tuple[Point, ...]


@dataclass(frozen=True)
class Wrinkle:
    """A line that darkens with the intensity of one action unit."""

    unit: str
    line: Line
    sided: bool = True


WRINKLES: tuple[Wrinkle, ...] = (
    # Horizontal lines in the middle of the forehead.
    Wrinkle("AU01_r", ((-17, -61, -8), (0, -58, -11), (17, -61, -8)), sided=False),
    Wrinkle("AU01_r", ((-18, -68, -6), (0, -65, -9), (18, -68, -6)), sided=False),
    # Arcs above the outer brows.
    Wrinkle("AU02_r", ((-61, -55, 18), (-50, -62, 6), (-34, -63, -1))),
    Wrinkle("AU02_r", ((-58, -62, 18), (-48, -69, 8), (-34, -70, 1))),
    # Vertical furrows between the brows.
    Wrinkle("AU04_r", ((-3, -57, -13), (-5, -49, -14), (-4, -40, -15))),
    # Crow's feet.
    Wrinkle("AU06_r", ((-48, -33, 12), (-53, -37, 15), (-58, -39, 20))),
    Wrinkle("AU06_r", ((-49, -29, 12), (-54, -29, 15), (-60, -28, 20))),
    Wrinkle("AU06_r", ((-48, -25, 12), (-53, -21, 15), (-57, -16, 20))),
    # A line along the tightened lower lid.
    Wrinkle("AU07_r", ((-41, -21, 4), (-31, -18.5, 0), (-20, -22, 2))),
    # Wrinkles across the root of the nose and down its sides.
    Wrinkle("AU09_r", ((-7, -30, -13), (0, -32, -16), (7, -30, -13)), sided=False),
    Wrinkle("AU09_r", ((-8, -23, -14), (0, -25, -20), (8, -23, -14)), sided=False),
    Wrinkle("AU09_r", ((-17, -11, -6), (-13, -4, -14), (-8, -5, -22))),
    # The furrow from the wing of the nose towards the mouth.
    Wrinkle("AU10_r", ((-17, 9, -12), (-23, 17, -8), (-27, 28, -4))),
    # The fold around the pulled corner of the mouth.
    Wrinkle("AU12_r", ((-34, 24, 0), (-38, 36, 3), (-35, 47, 4))),
    # A dimple beside the corner.
    Wrinkle("AU14_r", ((-32, 38, 2), (-33.5, 42, 2), (-32, 46, 2))),
    # Lines down from the corners.
    Wrinkle("AU15_r", ((-27, 48, 0), (-31, 55, 2), (-30, 63, 4))),
    # The pushed-up chin.
    Wrinkle(
        "AU17_r", ((-13, 69, -5), (-8, 61, -9), (0, 59, -11), (8, 61, -9), (13, 69, -5)), False
    ),
    Wrinkle("AU17_r", ((-6, 69, -8), (0, 66, -11), (6, 69, -8)), False),
    # Level lines beside the stretched mouth.
    Wrinkle("AU20_r", ((-32, 38, 3), (-38, 38, 6), (-45, 36, 10))),
    Wrinkle("AU20_r", ((-32, 45, 3), (-38, 47, 6), (-45, 48, 10))),
    # Short upright lines around the tightened lips.
    Wrinkle("AU23_r", ((-3, 27, -14), (-3, 30, -15), (-3, 33, -15))),
    Wrinkle("AU23_r", ((-10, 28, -12), (-9.5, 31, -13), (-9, 34, -13))),
)


@dataclass(frozen=True)
class Tint:
    """A patch of skin that flushes, darkens or shines with the intensity of one action unit.

    Wrinkles are one pixel wide here. The tints, stronger than on any real face, let a small network
    learn the units in a few hundred steps.
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
    Tint(
        "AU06_r",
        FLUSH,
        ((-56, -8, 16), (-40, -14, 3), (-26, -6, -4), (-36, 9, 2), (-52, 8, 12)),
    ),
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

# Open lines from the image-left ear over the top; the rest of an outline is the jaw.
FOREHEAD: Line = ((-73, -40, 54), (-68, -62, 40), (-54, -84, 24), (-30, -97, 12), (0, -101, 8))
HAIRLINE: Line = ((-72, -34, 50), (-64, -58, 30), (-48, -72, 14), (-25, -79, 4), (0, -81, 0))
HAIR: Line = ((-80, 10, 70), (-86, -30, 66), (-80, -75, 50), (-50, -108, 40), (0, -118, 34))
LONG_HAIR: Line = ((-62, 95, 70), (-88, 50, 72))
EAR: Line = ((-72, -30, 60), (-81, -33, 66), (-83, -14, 66), (-77, 6, 64), (-71, 4, 58))
NECK: Line = ((-45, 60, 60), (-44, 110, 60), (-80, 130, 60), (-95, 170, 60))

_OUTLINES = {"forehead": FOREHEAD, "hairline": HAIRLINE, "hair": HAIR, "long_hair": LONG_HAIR}
_SIDED = {"ear": EAR, "neck": NECK}


@dataclass(frozen=True)
class Marks:
    """All marks as one array of points, with the rows of each."""

    points: np.ndarray  # (M, 3) mm
    weights: np.ndarray  # (M, 68), see interpolation()
    wrinkles: tuple[tuple[Wrinkle, slice], ...]  # a sided one twice
    tints: tuple[tuple[Tint, slice], ...]  # likewise
    outlines: dict[str, slice]


@cache
def marks() -> Marks:
    """The marks of all synthetic people; the same arrays on every call."""
    rows: list[np.ndarray] = []
    used = 0

    def add(line: np.ndarray) -> slice:
        nonlocal used
        rows.append(line)
        used += len(line)
        return slice(used - len(line), used)

    def add_sides(line: Line, sided: bool) -> list[slice]:
        half = np.array(line, np.float64)
        return [add(side) for side in (half, _mirrored(half))[: 1 + sided]]

    wrinkles = [(mark, side) for mark in WRINKLES for side in add_sides(mark.line, mark.sided)]
    tints = [(mark, side) for mark in TINTS for side in add_sides(mark.outline, mark.sided)]
    outlines = {}
    for name, half in _OUTLINES.items():
        line = np.array(half, np.float64)
        middle = line[-1, 0] == 0
        outlines[name] = add(
            np.concatenate([line, _mirrored(line[: -1 if middle else None])[::-1]])
        )
    for name, half in _SIDED.items():
        line = np.array(half, np.float64)
        outlines[name] = add(np.concatenate([line, _mirrored(line)]))
    points = np.concatenate(rows)
    return Marks(points, interpolation(points), tuple(wrinkles), tuple(tints), outlines)


def _mirrored(line: np.ndarray) -> np.ndarray:
    return line * [-1, 1, 1]
