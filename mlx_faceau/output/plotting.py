"""Matplotlib figures drawn into files or pages; no display is needed and no state is shared."""

import io
import re
from typing import Any

from mlx_faceau.core.libraries import import_library

INK = "#010203"  # in an SVG it becomes the text colour of the page, light or dark
# After Okabe and Ito: distinguishable with any colour vision, on white and on black.
PALETTE = ("#2b88c9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_INK_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlx-faceau",
    "path.simplify_threshold": 0.3,
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches, with constrained layout."""
    figure = import_library("matplotlib.figure").Figure((width, height), layout="constrained")
    import_library("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def page_style() -> Any:
    """A context in which figures for :func:`svg` are made: text in :data:`INK`."""
    return import_library("matplotlib").rc_context(_INK_STYLE)


def svg(figure: Any) -> str:
    """A figure as an ``<svg>`` element for a page; transparent, its ink in the page's own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same names in every figure of the page
    text = re.sub(r'width="[^"]*pt" height="[^"]*pt"|height="[^"]*pt" width="[^"]*pt"', "", text)
    return text.replace(INK, "currentColor").strip()
