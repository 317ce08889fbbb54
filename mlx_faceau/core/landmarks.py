"""The 68 facial landmarks of iBUG 300-W: groups, mirror pairs and the eye corners.

"Right" and "left" are the subject's own: the right eye lies in the left half of the image.

Reference:
    Sagonas et al., 300 Faces in-the-Wild Challenge, ICCV Workshops 2013, figure 1 (0-based here).
"""

import numpy as np

NUM_LANDMARKS = 68

GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose": range(27, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "outer_mouth": range(48, 60),
    "inner_mouth": range(60, 68),
}

# What face detectors mark as well: middles of the eyes, tip of the nose, corners of the mouth.
FIVE_POINTS = (GROUPS["right_eye"], GROUPS["left_eye"], (30,), (48,), (54,))

# Outer corners of the eyes: their distance is the inter-ocular normaliser of the NME.
OUTER_EYE_CORNERS = (36, 45)

_MIRROR_PAIRS = (
    [(i, 16 - i) for i in range(8)]
    + [(17 + i, 26 - i) for i in range(5)]
    + [(31, 35), (32, 34)]
    + [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    + [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
)


# landmarks[MIRROR] are the landmarks of the mirrored face, in order (before x is mirrored).
MIRROR: np.ndarray = np.arange(NUM_LANDMARKS)
for _right, _left in _MIRROR_PAIRS:
    MIRROR[_right], MIRROR[_left] = _left, _right
