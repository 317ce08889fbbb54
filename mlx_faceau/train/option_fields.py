"""A setting as a dataclass field that carries its help text and its limits."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field
from pathlib import Path
from typing import Any

from mlx_faceau.errors import UsageError


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | tuple[int, ...] | None = None,
) -> Any:
    """A field with its help text and the values allowed: at least, below, or one of choices.

    The default is MISSING for a required one, a function for one that depends on the machine.
    """
    metadata = {"help": help, "least": least, "below": below, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(item: Field[Any]) -> Any:
    """A field's default on this machine; MISSING for a required one."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def read_object(path: Path | str, example: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that a file given on the command line holds; the error has an example."""
    try:
        values = json.loads(Path(path).read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object such as {json.dumps(example)}")
    return values


def checked_value(item: Field[Any], value: Any) -> Any:
    """A value as its field holds it, or UsageError: texts as a tuple, one or JSON's array too."""
    name, rules = flag(item.name), item.metadata
    if item.type == tuple[str, ...] and isinstance(value, (str, list)):
        value = (value,) if isinstance(value, str) else tuple(value)
    expected, is_right = _TYPES[item.type]
    if not is_right(value):
        raise UsageError(f"{name} is {value!r}, expected {expected}")
    if rules["least"] is not None and value < rules["least"]:
        raise UsageError(f"{name} is {value}, expected at least {rules['least']}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UsageError(f"{name} is {value}, expected less than {rules['below']}")
    if rules["choices"] and value not in rules["choices"]:
        allowed = ", ".join(map(str, rules["choices"]))
        raise UsageError(f"{name} is {value!r}, expected one of {allowed}")
    return value


def _is_float(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and bool(abs(value) <= sys.float_info.max)


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


# By the type of a field: what is expected, and whether a value is that.
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", lambda value: type(value) is int),  # no bool
    float: ("a number", _is_float),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("a text", lambda value: isinstance(value, str)),
    str | None: ("a text", lambda value: isinstance(value, str | None)),
    tuple[str, ...]: ("a text or several", _is_texts),
}
