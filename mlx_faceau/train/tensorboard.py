"""A training's figures for TensorBoard."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_faceau.core.libraries import import_library

FOLDER_NAME = "tensorboard"


def load_library() -> Any:
    """``tensorboardX``, or MissingDependency."""
    return import_library("tensorboardX", "tensorboard")


def open_writer(folder: Path, epoch: int) -> Any:
    """A ``tensorboardX.SummaryWriter`` from an epoch on: earlier figures of it are void."""
    # Its own file names differ by the second alone.
    suffix = f".epoch{epoch:06d}"
    return load_library().SummaryWriter(
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
