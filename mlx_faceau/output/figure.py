"""Figures that matplotlib draws into files: no screen is asked for, no state is shared."""

from typing import Any

from mlx_faceau.errors import MissingDependency


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure whose parts find their places themselves.

    Args:
        width: inches.
        height: inches.

    Raises:
        MissingDependency: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", extra="train") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
