"""The shape model of synthetic people: a linear 3-d model of the 68 points, made by hand.

Units are millimetres; x points to the image's right, y down, z away from the camera. The tables
give the image-left half (x < 0) and the midline; the other half is its mirror image. The 34 modes
are an orthonormal basis of 17 differences between people and 17 action units, all of them
orthogonal to moving, turning and scaling the head, so that pose and shape of a face are determined.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import GROUPS, MIRROR, NUM_LANDMARKS

Point = tuple[float, float, float]

_MEAN_HALF: dict[int, Point] = {
    **{0: (-72, -22, 58), 1: (-71, -4, 54), 2: (-69, 14, 48), 3: (-65, 32, 40)},
    **{4: (-57, 48, 28), 5: (-46, 61, 14), 6: (-32, 71, 2), 7: (-16, 77, -6), 8: (0, 79, -9)},
    **{17: (-56, -44, 12), 18: (-47, -51, 2), 19: (-36, -53, -5)},
    **{20: (-25, -51, -10), 21: (-14, -47, -12)},
    **{27: (0, -33, -15), 28: (0, -21, -21), 29: (0, -9, -28), 30: (0, 3, -35)},
    **{31: (-15, 14, -16), 32: (-8, 17, -20), 33: (0, 19, -23)},
    **{36: (-44, -30, 8), 37: (-36, -36.5, 2), 38: (-27, -36.5, 1)},
    **{39: (-18, -29, 4), 40: (-27, -25, 1), 41: (-36, -25, 3)},
    **{48: (-25, 42, 0), 49: (-15, 36, -9), 50: (-6, 33.5, -14), 51: (0, 35, -15)},
    **{57: (0, 51, -13), 58: (-7, 50, -12), 59: (-16, 47, -8)},
    **{60: (-21, 42, -1), 61: (-8, 41, -11), 62: (0, 41.3, -13), 66: (0, 42.1, -12)},
    **{67: (-8, 41.9, -11)},
}

# Full intensity (5) of each action unit. Inward is +x on this half.
_AU_HALF: dict[str, dict[int, Point]] = {
    "AU01_r": {21: (0, -9, 0), 20: (0, -7, 0), 19: (0, -3, 0)},
    "AU02_r": {17: (0, -8, 0), 18: (0, -9, 0), 19: (0, -6, 0), 20: (0, -2, 0)},
    "AU04_r": {21: (5, 6, 0), 20: (4, 5, 0), 19: (2.5, 4, 0), 18: (1, 2.5, 0), 17: (0, 1, 0)},
    "AU05_r": {37: (0, -4.5, 0), 38: (0, -5.5, 0), 39: (0, -0.5, 0)},
    "AU06_r": {41: (0, -2, 0), 40: (0, -1.5, 0), 36: (1, 0, 0), 2: (-2, -1, 0), 3: (-2, -1, 0)},
    "AU07_r": {
        **{37: (0, 1.5, 0), 38: (0, 1.5, 0), 40: (0, -3, 0), 41: (0, -3, 0)},
        **{36: (1, 0, 0), 39: (-1, 0, 0)},
    },
    "AU09_r": {
        **{31: (-2, -4, 0), 32: (-1, -3, 0), 33: (0, -1.5, 0), 30: (0, -1.5, 0)},
        **{29: (0, -1.5, 0), 21: (1, 2, 0), 50: (0, -1.5, 0)},
    },
    "AU10_r": {
        **{49: (0, -4, 0), 50: (0, -6, 0), 51: (0, -5.5, 0)},
        **{61: (0, -3.5, 0), 62: (0, -3.5, 0), 31: (0, -1, 0)},
    },
    "AU12_r": {48: (-7, -8, 2), 60: (-6, -7, 2), 49: (-3, -3, 0), 59: (-3, -3, 0), 3: (-1, -1, 0)},
    "AU14_r": {48: (-3, 0, 3), 60: (-3, 0, 3), 59: (-1, -1, 0), 49: (-1, 1, 0)},
    "AU15_r": {48: (1, 8, 0), 60: (1, 7, 0), 59: (0, 3, 0), 49: (0, 2, 0)},
    "AU17_r": {
        **{8: (0, -4, 0), 7: (0, -4, 0), 6: (0, -2.5, 0), 57: (0, -4, -1), 58: (0, -4, -1)},
        **{59: (0, -2, 0), 66: (0, -1, 0), 67: (0, -1, 0)},
    },
    "AU20_r": {
        **{48: (-9, 1, 3), 60: (-8, 1, 3), 49: (-4, 0.5, 0), 59: (-4, 0, 0), 50: (-1.5, 1, 0)},
        **{58: (-1.5, -1, 0), 61: (-3, 0, 0), 67: (-3, 0, 0), 51: (0, 1, 0), 57: (0, -1, 0)},
    },
    "AU23_r": {
        **{48: (3.5, 0, 0), 60: (3, 0, 0), 49: (2, 2.5, 0), 50: (1, 3.5, 0), 51: (0, 3, 0)},
        **{57: (0, -4, 0), 58: (1, -4, 0), 59: (2, -3, 0)},
    },
    "AU25_r": {
        **{61: (0, -3, 0), 62: (0, -3, 0), 50: (0, -2.5, 0), 51: (0, -2.5, 0)},
        **{66: (0, 7, 0), 67: (0, 6.5, 0), 57: (0, 6.5, 0), 58: (0, 6, 0), 59: (0, 3, 0)},
    },
    "AU26_r": {
        **{8: (0, 15, 2), 7: (0, 14.5, 2), 6: (0, 13, 2), 5: (0, 10, 1), 4: (0, 6, 0)},
        **{3: (0, 3, 0), 57: (0, 12, 1), 58: (0, 11.5, 1), 59: (0, 7, 1), 66: (0, 11.5, 1)},
        **{67: (0, 10.5, 1), 48: (2, 4, 0), 60: (2, 4, 0)},
    },
    "AU45_r": {37: (0, 11, 0), 38: (0, 11, 0), 40: (0, -0.5, 0), 41: (0, -0.5, 0)},
}


@dataclass(frozen=True)
class ShapeModel:
    """Points = mean + basis @ local, as ``geometry.project`` takes them."""

    mean: np.ndarray  # (68, 3) mm
    basis: np.ndarray  # (68, 3, 34), orthonormal as (204, 34)
    identity: np.ndarray  # (17, 34) local parameters of one standard deviation of each difference
    expression: np.ndarray  # (17, 34) local parameters of each action unit at intensity 1


@cache
def shape_model() -> ShapeModel:
    """The model of all synthetic people; the same arrays on every call."""
    mean = _both_sides(_MEAN_HALF)
    fields = [*_differences(mean), *(_both_sides(_AU_HALF[name]) for name in AU_NAMES)]
    columns = np.stack([field.reshape(-1) for field in fields], axis=1)
    shifts = [np.broadcast_to(axis, mean.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, mean) for axis in np.eye(3)]
    motions = np.stack([field.reshape(-1) for field in (*shifts, *turns, mean)], axis=1)
    rigid, _ = np.linalg.qr(motions)  # shifting, turning and scaling the mean face
    columns -= rigid @ (rigid.T @ columns)
    basis, _ = np.linalg.qr(columns)
    local = (basis.T @ columns).T
    count = len(AU_NAMES)
    return ShapeModel(
        mean=mean,
        basis=basis.reshape(NUM_LANDMARKS, 3, -1),
        identity=local[:-count],
        expression=local[-count:] / 5.0,
    )


def interpolation(points: np.ndarray) -> np.ndarray:
    """Weights (K, 68) by which points (K, 3) of the mean face follow the landmarks' displacements.

    They follow the affine map that is nearest to these; a rigid one is reproduced exactly.
    """
    mean = shape_model().mean
    return np.insert(points, 3, 1, axis=1) @ np.linalg.pinv(np.insert(mean, 3, 1, axis=1))


def _both_sides(half: dict[int, Point]) -> np.ndarray:
    """(68, 3) points or displacements from their image-left half; unnamed ones are zero."""
    values = np.zeros((NUM_LANDMARKS, 3))
    for index, value in half.items():
        values[index] = value
        values[MIRROR[index]] = (-value[0], value[1], value[2])
    return values


def _differences(mean: np.ndarray) -> list[np.ndarray]:
    """17 displacement fields (68, 3): one standard deviation of how people differ, in mm."""
    x, y, _ = mean.T
    side, zero = np.sign(x), np.zeros(NUM_LANDMARKS)

    def only(*names: str) -> np.ndarray:
        mask = np.zeros(NUM_LANDMARKS)
        for name in names:
            mask[GROUPS[name]] = 1
        return mask

    jaw, nose, brows = only("jaw"), only("nose"), only("right_brow", "left_brow")
    eyes, lips = only("right_eye", "left_eye"), only("outer_mouth")
    mouth = lips + only("inner_mouth")
    lower_jaw, lower_nose = jaw * np.clip((y - 10) / 60, 0, 1), nose * np.clip((y + 33) / 50, 0, 1)
    along_x = [
        0.05 * x,  # width
        0.12 * x * lower_jaw,  # square or narrow jaw
        2.0 * side * (eyes + brows),  # distance of the eyes
        0.08 * (x - 31 * side) * eyes,  # length of the eyes
        0.15 * x * lower_nose,  # width of the nose
        0.08 * x * mouth,  # width of the mouth
    ]
    along_y = [
        0.05 * y,  # height
        4.0 * lower_jaw,  # length of the chin
        0.12 * (y + 30) * eyes,  # height of the eyes
        -1.5 * brows,  # height of the brows
        1.5 * (np.abs(x) - 35) / 20 * brows,  # slant of the brows
        2.5 * lower_nose,  # length of the nose
        0.15 * (y - 42) * lips,  # fullness of the lips
        2.0 * mouth,  # height of the mouth
        1.0 * (np.abs(x) - 31) / 13 * eyes,  # slant of the eyes
    ]
    along_z = [5.0 * lower_jaw, -3.0 * lower_nose]  # chin set back, nose stands out
    return (
        [np.stack([field, zero, zero], axis=1) for field in along_x]
        + [np.stack([zero, field, zero], axis=1) for field in along_y]
        + [np.stack([zero, zero, field], axis=1) for field in along_z]
    )


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
