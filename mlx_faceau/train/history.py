"""``training_history.json``: a training so far, rewritten as a whole after every epoch.

Keys: ``config`` (all settings), ``net``, ``data``, ``environment``, ``au_weights``
(null where they weigh alike), ``init`` (file and hash of the checkpoint whose weights it started
from, and what that one records of its own training; null for random weights), ``epochs`` (one
object an epoch), ``stopped`` (why training ended; null while it runs) and ``exports``.
"""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.core.libraries import package_version
from mlx_faceau.output.tables import number

HISTORY_NAME = "training_history.json"


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write JSON: complete under its name, or what stood there before. NaN becomes null."""
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", "utf-8")


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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
