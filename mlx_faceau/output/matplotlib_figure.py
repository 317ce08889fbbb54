"""Figures that matplotlib draws into files: no screen is asked for, no state is shared."""

from typing import Any

from mlx_faceau.core.libraries import LOAD_ERRORS, load_error


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
    except LOAD_ERRORS as error:
        raise load_error(error, "matplotlib", "train") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
