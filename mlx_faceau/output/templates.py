"""Pages and model cards from the jinja2 templates in ``templates/``."""

from functools import cache
from pathlib import Path
from typing import Any

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.libraries import import_library

_FOLDER = Path(__file__).with_name("templates")


def render(name: str, **values: Any) -> str:
    """Fill a file of ``templates/``; in ``.html`` values that are not marked safe are escaped."""
    return str(_environment().get_template(name).render(**values))


def write_page(path: Path | str, template: str, **values: Any) -> None:
    """Write a filled ``.html`` template, whole or not at all; see :func:`render`."""
    page = render(template, **values)
    with atomic_file(path) as temporary:
        temporary.write_text(page, "utf-8", "backslashreplace")


@cache
def _environment() -> Any:
    jinja2 = import_library("jinja2")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
