"""The accuracy targets, on subjects who were not in the training."""

import math
from dataclasses import dataclass

MISSED, UNMEASURED = "missed", "unmeasured"


@dataclass(frozen=True)
class Target:
    """One line of the targets."""

    metric: str
    label: str
    must: float
    aim: float | None  # None: there is no aim beyond the bound
    higher: bool  # whether more is better

    def grade(self, value: float) -> str:
        """``"aim"``, ``"must"`` or ``"missed"``; ``"unmeasured"`` for NaN."""
        if math.isnan(value):
            return UNMEASURED
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if bound is not None and (value > bound if self.higher else value < bound):
                return name
        return MISSED


TARGETS = {
    "landmark_pose": (
        Target("correlation", "landmark correlation", 0.95, 0.99, True),
        Target("correlation_without_mean", "without the mean face", 0.90, 0.95, True),
        Target("mae", "landmark MAE, px", 2.0, 1.0, False),
    ),
    "au_prediction": (
        Target("correlation", "AU correlation (mean r)", 0.90, 0.95, True),
        Target("mae", "AU MAE", 0.5, 0.2, False),
    ),
}
JITTERED_MAE = Target("mae_jittered", "landmark MAE, jittered", 2.0, None, False)
