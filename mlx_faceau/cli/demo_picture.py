"""The demo's picture: fresh synthetic faces with predicted landmarks, and their action units."""

from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.output.plotting import new_figure

_SHOWN = 8
_TRUTH, _PREDICTION = "#2a9d8f", "#e76f51"


def draw_faces(path: Path, truth: dict[str, np.ndarray], predicted: dict[str, np.ndarray]) -> None:
    """Draw the first face of some people with true and predicted landmarks and action units.

    Args:
        path: PNG to write.
        truth: ``images`` (N, 112, 112, 3) uint8 RGB, ``landmarks``, ``au_intensities``, ``person``.
        predicted: ``landmarks`` (N, 68, 2), ``au_intensities`` (N, 17).
    """
    _, rows = np.unique(truth["person"], return_index=True)
    rows = rows[:_SHOWN]
    figure = new_figure(2.3 * len(rows), 5.6)
    axes = figure.subplots(2, len(rows), height_ratios=(1, 1.35))
    for column, row in enumerate(rows):
        face, bars = axes[:, column]
        face.imshow(truth["images"][row])
        face.set_axis_off()
        for points, color in ((truth, _TRUTH), (predicted, _PREDICTION)):
            for group in GROUPS.values():
                face.plot(*points["landmarks"][row][list(group)].T, ".-", color=color, lw=0.7, ms=2)
        _draw_aus(bars, truth["au_intensities"][row], predicted["au_intensities"][row], column == 0)
    figure.suptitle(
        "People never seen in training: exact labels (green) and predictions (orange)", fontsize=12
    )
    figure.savefig(path, dpi=110)


def _draw_aus(axis: Any, truth: np.ndarray, predicted: np.ndarray, named: bool) -> None:
    at = np.arange(len(AU_NAMES))
    axis.barh(at - 0.2, truth, 0.4, color=_TRUTH)
    axis.barh(at + 0.2, predicted, 0.4, color=_PREDICTION)
    axis.set_xlim(0, MAX_INTENSITY)
    axis.invert_yaxis()
    axis.tick_params(labelsize=7)
    axis.set_yticks(at, [name.removesuffix("_r") for name in AU_NAMES] if named else [])
