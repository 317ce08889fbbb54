"""A training's figures for TensorBoard, where they are wanted."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_faceau.core.libraries import LOAD_ERRORS, load_error

FOLDER_NAME = "tensorboard"


class NoBoard:
    """Stands in where nobody looks at TensorBoard."""

    def write(self, entry: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Board(NoBoard):
    """Writes what the history says of each epoch to an event file.

    Args:
        folder: of the event files; created.
        epoch: the first to be written: what earlier files tell about it and later ones is void.

    Raises:
        MissingDependency: if the library is not installed.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except LOAD_ERRORS as error:
            raise load_error(error, "tensorboardX", "tensorboard") from None
        self._writer = SummaryWriter(
            logdir=str(folder),
            purge_step=epoch,
            filename_suffix=f".epoch{epoch:06d}",  # its own names differ by the second alone
        )

    def write(self, entry: Mapping[str, Any]) -> None:
        """Every number of an epoch's entry under its path, such as ``metrics/aus/AU12_r/ccc``."""
        for name, value in numbers(entry):
            if name != "epoch":
                self._writer.add_scalar(name, value, entry["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def numbers(entry: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers of an entry, in nested objects too, with their names joined by slashes."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{path}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield f"{path}{name}", float(value)
