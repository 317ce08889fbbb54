"""The levels of augmentation: how far each of its steps goes."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


def _limit(light: float, strong: float) -> Any:
    return field(metadata={"light": light, "strong": strong})


@dataclass(frozen=True)
class Level:
    """How far a face moves and each step goes, and in which share of the samples it happens."""

    rotation: float = _limit(np.radians(10), np.radians(20))  # largest angle, radians, either way
    scale: float = _limit(1.1, 1.2)  # largest factor; at least its inverse
    shift: float = _limit(5.6, 9.0)  # largest shift in x and in y, pixels, either way
    stretch: float = _limit(1.15, 1.3)  # largest factor of width to height; at least its inverse
    brightness: float = _limit(0.08, 0.15)  # largest offset, as a share of white
    contrast: float = _limit(1.2, 1.5)  # largest factor around mid-grey; at least its inverse
    gamma: float = _limit(1.2, 1.6)  # largest exponent; at least its inverse
    tint: float = _limit(1.06, 1.1)  # largest factor of one colour channel; at least its inverse
    saturation: float = _limit(0.3, 0.6)  # largest relative change of the distance from grey
    grey: float = _limit(0.1, 0.25)  # share of samples without colour
    blur: float = _limit(0.1, 0.3)  # share of samples blurred, as by defocus or by motion
    blur_sigma: float = _limit(1.0, 1.8)  # largest sigma of the defocus, pixels
    motion: float = _limit(3.0, 7.0)  # longest path of the motion, pixels
    coarse: float = _limit(0.1, 0.25)  # share of samples shrunk and enlarged again
    coarse_side: int = _limit(72, 40)  # smallest side in between, pixels
    noise: float = _limit(0.1, 0.3)  # share of samples with Gaussian noise
    noise_sigma: float = _limit(5.0, 14.0)  # its largest sigma, levels of 255
    jpeg: float = _limit(0.1, 0.3)  # share of samples compressed
    jpeg_quality: int = _limit(60, 25)  # lowest quality
    edges: float = _limit(0.1, 0.3)  # share of samples whose borders repeat a line further in
    edge_depth: int = _limit(10, 14)  # how far in, at most, pixels
    cutout: float = _limit(0.0, 0.2)  # share of samples with a rectangle of one colour over them
    cutout_side: int = _limit(0, 28)  # its longest side, pixels
    flip: float = 0.0  # share of samples that are mirrored, whatever the level


def _level(name: str) -> Level:
    return Level(**{item.name: item.metadata[name] for item in fields(Level) if item.metadata})


# Light: the jitter of an evaluation's crops (10 degrees, 10 %, 5 %), and good photographs. Strong:
# tilted heads, loose detector boxes, and poor video; the face can still be read by eye.
LEVELS = {"none": None, "light": _level("light"), "strong": _level("strong")}
_NO_FACTORS: dict[str, Any] = dict.fromkeys(("stretch", "contrast", "gamma", "tint"), 1.0)
_NO_SHARES: dict[str, Any] = dict.fromkeys(
    ("brightness", "saturation", "grey", "blur", "coarse", "noise", "jpeg", "edges"), 0.0
)
# The light level's similarity alone.
JITTER = replace(_level("light"), **_NO_FACTORS, **_NO_SHARES)
