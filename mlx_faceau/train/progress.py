"""What a training shows while it runs: a bar within epochs, a line after each."""

from collections.abc import Mapping
from typing import Any

from mlx_faceau.core.libraries import LOAD_ERRORS, load_error
from mlx_faceau.output.tables import action_unit_table


class NoBar:
    """Stands in for tqdm where nobody watches."""

    def __init__(self, **_: object) -> None: ...

    def __enter__(self) -> "NoBar":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None: ...


def progress_bar() -> Any:
    """tqdm's class.

    Raises:
        MissingDependency: if it is not installed.
    """
    try:
        from tqdm import tqdm
    except LOAD_ERRORS as error:
        raise load_error(error, "tqdm") from None
    return tqdm


def epoch_line(entry: Mapping[str, Any], epochs: int, best: bool) -> str:
    """The line that tells about an epoch, from its entry in the history."""
    metrics = entry["metrics"]
    if "aus" in metrics:
        constant = metrics["constant"]
        figures = f"mean r {metrics['correlation']:.3f}  MAE {metrics['mae']:.3f}"
        names = f" ({', '.join(constant)})" if constant else ""
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


def au_table(entry: Mapping[str, Any]) -> str:
    """The action units' metrics in an epoch, from its entry in the history."""
    return action_unit_table({"net": entry["metrics"]}).text()
