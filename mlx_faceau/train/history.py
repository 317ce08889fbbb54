"""A training's figures: its history as JSON, its curves as PNG, and for TensorBoard.

``training_history.json`` is rewritten as a whole after every epoch. Keys: ``config`` (settings),
``net``, ``data``, ``environment``, ``au_weights`` (null where they weigh alike), ``init`` (file and
hash of the checkpoint whose weights it started from, and what that one records of its own training;
null for random weights), ``epochs`` (one object an epoch), ``stopped`` (why training ended; null
while it runs) and ``exports``.
"""

import logging
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.core.libraries import import_library, package_version
from mlx_faceau.errors import FaceauError
from mlx_faceau.output.plotting import new_figure
from mlx_faceau.output.tables import number

_LOG = logging.getLogger(__name__)

HISTORY_NAME = "training_history.json"
CURVES_NAME = "training_curves.png"
TENSORBOARD_FOLDER = "tensorboard"


def history(
    metadata: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    stopped: str | None,
    exports: Mapping[str, str],
) -> dict[str, Any]:
    """The content of the file, from what the training's checkpoints record."""
    return {
        "config": metadata["training"],
        "net": {"kind": metadata["kind"], **metadata["model"]},
        "data": metadata["data"],
        "environment": metadata["versions"],
        "au_weights": metadata["au_weights"],
        "init": metadata["init"],
        "exports": exports,
        "epochs": epochs,
        "stopped": stopped,
    }


def environment() -> dict[str, str]:
    """Versions and machine that a training's figures depend on."""
    return {
        "mlx_faceau": package_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def epoch_line(entry: Mapping[str, Any], epochs: int, best: bool) -> str:
    """The line that is logged after an epoch, from its entry in the history."""
    metrics = entry["metrics"]
    if "aus" in metrics:
        constant = metrics["constant"]
        figures = f"mean r {number(metrics['correlation'])}  MAE {metrics['mae']:.3f}"
        every = len(constant) == NUM_AUS
        names = " (all)" if every else f" ({', '.join(constant)})" if constant else ""
        figures += f"  constant AUs {len(constant)}{names}"
    else:
        figures = (
            f"MAE {metrics['mae']:.2f} px  r {metrics['correlation']:.4f}"
            f"  r without mean face {metrics['correlation_without_mean']:.3f}"
        )
    return (
        f"epoch {entry['epoch']}/{epochs}  loss {entry['training']['loss']:.4f}"
        f"  validation {entry['validation']['loss']:.4f}{' (best)' if best else ''}  {figures}"
        f"  {entry['images_per_second']:.0f} images/s  {entry['seconds']:.0f} s"
    )


def load_tensorboard() -> Any:
    """``tensorboardX``, or MissingDependency."""
    return import_library("tensorboardX", "tensorboard")


def open_tensorboard(folder: Path, epoch: int) -> Any:
    """A ``tensorboardX.SummaryWriter`` from an epoch on: earlier figures of it are void."""
    # Its own file names differ by the second alone.
    suffix = f".epoch{epoch:06d}"
    return load_tensorboard().SummaryWriter(
        logdir=str(folder), purge_step=epoch, filename_suffix=suffix
    )


def write_scalars(writer: Any, entry: Mapping[str, Any]) -> None:
    """Write every number of an epoch's entry under its path, such as ``metrics/aus/AU12_r/ccc``."""
    for name, value in scalars(entry):
        if name != "epoch":
            writer.add_scalar(name, value, entry["epoch"])
    writer.flush()


def scalars(entry: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers of an entry, in nested objects too, with their names joined by slashes."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{path}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield f"{path}{name}", float(value)


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
