"""The 17 action units whose intensity is predicted, in output order.

Reference:
    Ekman, Friesen, Hager, Facial Action Coding System, 2002; the selection is OpenFace 2.2's.
"""

from typing import Any

AU_DESCRIPTIONS: dict[str, str] = {
    "AU01_r": "Inner Brow Raiser",
    "AU02_r": "Outer Brow Raiser",
    "AU04_r": "Brow Lowerer",
    "AU05_r": "Upper Lid Raiser",
    "AU06_r": "Cheek Raiser",
    "AU07_r": "Lid Tightener",
    "AU09_r": "Nose Wrinkler",
    "AU10_r": "Upper Lip Raiser",
    "AU12_r": "Lip Corner Puller",
    "AU14_r": "Dimpler",
    "AU15_r": "Lip Corner Depressor",
    "AU17_r": "Chin Raiser",
    "AU20_r": "Lip Stretcher",
    "AU23_r": "Lip Tightener",
    "AU25_r": "Lips Part",
    "AU26_r": "Jaw Drop",
    "AU45_r": "Blink",
}
AU_NAMES: tuple[str, ...] = tuple(AU_DESCRIPTIONS)
NUM_AUS = len(AU_NAMES)
MAX_INTENSITY = 5.0
# In the metadata of a net: by unit, the intensity from which it counts as present.
PRESENCE_KEY = "presence_thresholds"


def out_of_range(intensities: Any) -> int:
    """How many rows of an (N, 17) array hold an intensity outside [0, 5]."""
    return int(((intensities < 0) | (intensities > MAX_INTENSITY)).any(axis=1).sum())
