"""Training curves as a PNG image."""

import logging
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.errors import FaceauError
from mlx_faceau.output.plotting import new_figure

_LOG = logging.getLogger(__name__)
CURVES_NAME = "training_curves.png"


def draw_curves(epochs: Sequence[Any], folder: Path) -> Path | None:
    """Draw the history's epochs as ``training_curves.png``; None without any, or matplotlib."""
    if not epochs:
        return None
    try:
        figure = new_figure(11, 7)
    except FaceauError as error:
        _LOG.warning("training curves not written: %s", error)
        return None
    # The auxiliary head's loss is part of the training's loss and not of the validation's.
    loss = "ccc" if "auxiliary" in epochs[0]["training"] else "loss"
    net = "AU" if "aus" in epochs[0]["metrics"] else "landmark"
    # Title -> legend and path into an epoch's entry of each curve.
    panels: dict[str, dict[str, tuple[str, ...]]] = {
        "concordance loss" if loss == "ccc" else "loss": {
            "training": ("training", loss),
            "validation": ("validation", loss),
        },
        f"{net} correlation (validation)": {"Pearson r": ("metrics", "correlation")},
        f"{net} MAE (validation)": {"MAE": ("metrics", "mae")},
        "learning rate": {"last step": ("learning_rate",)},
    }
    if net == "landmark":
        curves = panels["landmark correlation (validation)"]
        curves["mean face removed"] = ("metrics", "correlation_without_mean")
    numbers = [entry["epoch"] for entry in epochs]
    for axes, (title, curves) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for label, keys in curves.items():
            values = [float(reduce(getitem, keys, entry)) for entry in epochs]
            axes.plot(numbers, values, label=label, marker="o" if len(numbers) < 30 else None, ms=3)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()
    path = folder / CURVES_NAME
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
