"""The labelled faces that an int8 file is calibrated and measured with, and what it loses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlx_faceau.errors import UsageError

MINIMUM_FACES = 2  # to measure on: one differs from nothing
_RECOLOURED = 32  # crops, of many


@dataclass(frozen=True)
class CalibrationFaces:
    """Faces that an int8 file is made and measured with.

    Raises:
        UsageError: if there are none to calibrate on, or fewer than two others.
    """

    # (N, 112, 112, 3) uint8 BGR: training subjects, whose activations set the scales.
    calibration: np.ndarray
    crops: np.ndarray  # (M, 112, 112, 3) uint8 BGR: other subjects
    labels: Mapping[str, np.ndarray]  # of the crops, by output name, with a leading M
    hash: str = ""  # of the file that the calibration faces came from

    def __post_init__(self) -> None:
        if not len(self.calibration) or len(self.crops) < MINIMUM_FACES:
            raise UsageError(
                "int8 needs faces to calibrate on and other people's, "
                f"{MINIMUM_FACES} or more, to measure on; there are {len(self.calibration)} and "
                f"{len(self.crops)}"
            )

    def recoloured(self) -> np.ndarray:
        """Up to 32 evenly spaced ``crops`` in coloured light: swapped colours show on grey ones."""
        picked = np.unique(np.linspace(0, len(self.crops) - 1, _RECOLOURED).astype(int))
        light = np.random.default_rng(0).uniform(0.3, 1, (len(picked), 1, 1, 3))
        return np.asarray(np.rint(self.crops[picked] * light), np.uint8)


@dataclass(frozen=True)
class AccuracyChange:
    """Mean absolute error of one output against labels: of the float32 net, and of the file."""

    output: str
    before: float
    after: float
    limit: float | None

    @property
    def passed(self) -> bool:
        return self.limit is None or bool(abs(self.after - self.before) <= self.limit)

    def line(self) -> str:
        """The figures as one line of a table."""
        bound = "-" if self.limit is None else f"{self.limit:g}"
        return (
            f"{self.output:<20} {self.before:9.4f} {self.after:9.4f} "
            f"{self.after - self.before:+9.4f} {bound:>7}  {'ok' if self.passed else 'LOST'}"
        )
