"""Training curves as a picture."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.errors import BrokenLibrary, MissingDependency
from mlx_faceau.output.plotting import new_figure

_LOG = logging.getLogger(__name__)
CURVES_NAME = "training_curves.png"

# Title of a panel -> curves in it: legend and path into an epoch's entry.
Panel = tuple[str, dict[str, tuple[str, ...]]]
_LOSS: Panel = ("loss", {"training": ("training", "loss"), "validation": ("validation", "loss")})
# What an auxiliary head learns is in the training's loss and not in the validation's.
_CONCORDANCE: Panel = (
    "concordance loss",
    {"training": ("training", "ccc"), "validation": ("validation", "ccc")},
)
_RATE: Panel = ("learning rate", {"last step": ("learning_rate",)})
_LANDMARKS: tuple[Panel, ...] = (
    _LOSS,
    (
        "landmark correlation (validation)",
        {
            "all coordinates": ("metrics", "correlation"),
            "mean face removed": ("metrics", "correlation_without_mean"),
        },
    ),
    ("landmark MAE, px (validation)", {"MAE": ("metrics", "mae")}),
    _RATE,
)
_AUS: tuple[Panel, ...] = (
    _LOSS,
    ("mean AU correlation (validation)", {"Pearson r": ("metrics", "correlation")}),
    ("AU MAE (validation)", {"MAE": ("metrics", "mae")}),
    _RATE,
)


def draw_curves(epochs: Sequence[Mapping[str, Any]], folder: Path) -> Path | None:
    """Draw loss, metrics and learning rate over the epochs.

    Args:
        epochs: the history's entries.
        folder: gets ``training_curves.png``.

    Returns:
        The picture's path; None without an epoch, or without matplotlib (which is logged).
    """
    if not epochs:
        return None
    try:
        figure = new_figure(11, 7)
    except (MissingDependency, BrokenLibrary) as error:
        _LOG.warning("no curves drawn: %s", error)
        return None
    panels = _AUS if "aus" in epochs[0]["metrics"] else _LANDMARKS
    if "auxiliary" in epochs[0]["training"]:
        panels = (_CONCORDANCE, *panels[1:])
    for axes, (title, curves) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        _draw_panel(axes, title, curves, epochs)
    path = folder / CURVES_NAME
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _draw_panel(
    axes: Any, title: str, curves: Mapping[str, tuple[str, ...]], epochs: Sequence[Any]
) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = [entry["epoch"] for entry in epochs]
    for label, keys in curves.items():
        values = [_value(entry, keys) for entry in epochs]
        axes.plot(numbers, values, label=label, marker="o" if len(numbers) < 30 else None, ms=3)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()


def _value(entry: Any, keys: Sequence[str]) -> float:
    for key in keys:
        entry = entry[key]
    return float(entry)
