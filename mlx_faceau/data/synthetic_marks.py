"""Points of synthetic faces beyond the 68: outlines of head, ears and hair, and wrinkles.

Millimetres on the mean face of :mod:`~mlx_faceau.data.synthetic_shape`; they follow the landmarks'
displacements. Sided ones are given for the image-left half and mirrored.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .synthetic_shape import Point, interpolation

Line = tuple[Point, ...]


@dataclass(frozen=True)
class Wrinkle:
    """A line that darkens with the intensity of one action unit."""

    unit: str
    line: Line
    sided: bool = True
    strength: float = 1.0
    thickness: int = 1


WRINKLES: tuple[Wrinkle, ...] = (
    # Horizontal lines in the middle of the forehead.
    Wrinkle("AU01_r", ((-17, -61, -8), (0, -58, -11), (17, -61, -8)), sided=False),
    Wrinkle("AU01_r", ((-18, -68, -6), (0, -65, -9), (18, -68, -6)), sided=False),
    # Arcs above the outer brows.
    Wrinkle("AU02_r", ((-61, -55, 18), (-50, -62, 6), (-34, -63, -1))),
    Wrinkle("AU02_r", ((-58, -62, 18), (-48, -69, 8), (-34, -70, 1))),
    # Vertical furrows between the brows.
    Wrinkle("AU04_r", ((-3, -57, -13), (-5, -49, -14), (-4, -40, -15))),
    # Crow's feet and the furrow above the cheek.
    Wrinkle("AU06_r", ((-48, -33, 12), (-53, -37, 15), (-58, -39, 20))),
    Wrinkle("AU06_r", ((-49, -29, 12), (-54, -29, 15), (-60, -28, 20))),
    Wrinkle("AU06_r", ((-48, -25, 12), (-53, -21, 15), (-57, -16, 20))),
    Wrinkle("AU06_r", ((-48, -13, 10), (-37, -8, 2), (-24, -10, -4)), thickness=2, strength=0.6),
    # A line along the tightened lower lid.
    Wrinkle("AU07_r", ((-41, -22, 4), (-31, -19.5, 0), (-20, -23, 2))),
    # Wrinkles across the root of the nose and down its sides.
    Wrinkle("AU09_r", ((-7, -30, -13), (0, -32, -16), (7, -30, -13)), sided=False),
    Wrinkle("AU09_r", ((-8, -23, -14), (0, -25, -20), (8, -23, -14)), sided=False),
    Wrinkle("AU09_r", ((-16, -19, -6), (-12, -12, -12), (-8, -14, -20))),
    Wrinkle("AU09_r", ((-17, -11, -6), (-13, -4, -14), (-8, -5, -22))),
    # The furrow from the wing of the nose towards the mouth.
    Wrinkle("AU10_r", ((-17, 9, -12), (-23, 17, -8), (-27, 28, -4)), thickness=2, strength=0.65),
    # The fold around the pulled corner of the mouth.
    Wrinkle("AU12_r", ((-36, 24, 0), (-40, 36, 3), (-37, 47, 4)), thickness=2, strength=0.65),
    # A dimple beside the corner.
    Wrinkle("AU14_r", ((-31, 40, 2), (-32.5, 42, 2), (-31, 44, 2)), thickness=3),
    # Lines down from the corners.
    Wrinkle("AU15_r", ((-27, 48, 0), (-31, 55, 2), (-30, 63, 4)), thickness=2, strength=0.65),
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
    Wrinkle("AU23_r", ((-4, 52, -13), (-4, 55, -13), (-4, 58, -13))),
    Wrinkle("AU23_r", ((-12, 51, -11), (-12.5, 54, -11), (-13, 57, -11))),
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

    wrinkles = []
    for wrinkle in WRINKLES:
        line = np.array(wrinkle.line, np.float64)
        for side in (line, _mirrored(line))[: 1 + wrinkle.sided]:
            wrinkles.append((wrinkle, add(side)))
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
    return Marks(points, interpolation(points), tuple(wrinkles), outlines)


def _mirrored(line: np.ndarray) -> np.ndarray:
    return line * [-1, 1, 1]
