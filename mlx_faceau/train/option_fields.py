"""A setting as a dataclass field that carries its help text and its limits."""

import json
import sys
from collections.abc import Mapping
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
    choices: tuple[str, ...] | None = None,
    may_change: bool = False,
    basic: bool = False,
) -> Any:
    """A field with its help text.

    Args:
        default: MISSING for a required one, a function for one that depends on the machine.
        help: one line for ``--help``.
        least: smallest number allowed.
        below: numbers must stay under it.
        choices: texts allowed.
        may_change: whether a resumed run may be given another value.
        basic: whether ``--help`` lists it among the options that most users need.
    """
    metadata = {
        "help": help,
        "least": least,
        "below": below,
        "choices": choices,
        "may_change": may_change,
        "basic": basic,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(item: Field[Any]) -> Any:
    """A field's default on this machine; MISSING for a required one."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def as_option(value: Any, kind: Any) -> Any:
    """A value as its field holds it: several texts as a tuple, also one or JSON's array of them."""
    if kind != tuple[str, ...] or not isinstance(value, (str, list)):
        return value
    return (value,) if isinstance(value, str) else tuple(value)


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def read_object(path: Path | str, example: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that a file given on the command line holds.

    Args:
        path: of the file.
        example: of such an object, for the error.

    Raises:
        ValueError: if it holds something else.
        OSError: if it cannot be read.
    """
    try:
        values = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object such as {json.dumps(example)}")
    return values


def check_option(name: str, value: Any, kind: Any, rules: Mapping[str, Any]) -> None:
    """Check a field's value by its type and its metadata.

    Raises:
        ValueError: saying what is expected.
    """
    if kind in (int, float) and not _is_number(value, kind):
        raise UsageError(f"{flag(name)} is {value!r}, expected a {'whole ' * (kind is int)}number")
    if kind is bool and not isinstance(value, bool):
        raise UsageError(f"{flag(name)} is {value!r}, expected true or false")
    if kind in (str, str | None) and not isinstance(value, str | None):
        raise UsageError(f"{flag(name)} is {value!r}, expected a text")
    texts = isinstance(value, tuple) and all(isinstance(text, str) for text in value)
    if kind == tuple[str, ...] and not texts:
        raise UsageError(f"{flag(name)} is {value!r}, expected a text or several")
    if rules["least"] is not None and value < rules["least"]:
        raise UsageError(f"{flag(name)} is {value}, expected at least {rules['least']}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UsageError(f"{flag(name)} is {value}, expected less than {rules['below']}")
    if rules["choices"] and value not in rules["choices"]:
        raise UsageError(f"{flag(name)} is {value!r}, expected {', '.join(rules['choices'])}")


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return (
        isinstance(value, int)
        if kind is int
        else (isinstance(value, (int, float)) and abs(value) <= sys.float_info.max)
    )
