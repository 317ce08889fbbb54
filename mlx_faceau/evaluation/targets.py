"""The accuracy that the nets are meant to reach on people they never saw."""

import math
from dataclasses import dataclass

MISSED, UNMEASURED = "missed", "unmeasured"


@dataclass(frozen=True)
class Target:
    """One line of the targets."""

    metric: str
    label: str
    must: float
    aim: float
    higher: bool  # whether more is better

    def grade(self, value: float) -> str:
        """``"aim"``, ``"must"`` or ``"missed"``; ``"unmeasured"`` for NaN."""
        if math.isnan(value):
            return UNMEASURED
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if value > bound if self.higher else value < bound:
                return name
        return MISSED


TARGETS = {
    "landmark_pose": (
        Target("correlation", "landmark correlation", 0.95, 0.99, True),
        Target("correlation_without_mean", "  without the mean face", 0.90, 0.95, True),
        Target("mae", "landmark MAE (px)", 2.0, 1.0, False),
    ),
    "au_prediction": (
        Target("correlation", "AU correlation", 0.90, 0.95, True),
        Target("mae", "AU MAE", 0.5, 0.2, False),
    ),
}
# Landmarks must stay that close on moved crops too; there is no aim beyond it.
JITTERED_MAE = Target("mae_jittered", "  the same, jittered", 2.0, 0.0, False)
