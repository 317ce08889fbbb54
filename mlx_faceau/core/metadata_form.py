"""The form of a net's metadata, checked once where a file is read.

Files from elsewhere may hold anything under these names; readers rely on this check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_faceau.errors import CheckpointError

from .architectures import CONFIGS
from .facs import AU_NAMES, PRESENCE_KEY


@dataclass(frozen=True)
class _Object:
    """A JSON object: the forms of known keys, and those it must have. Others are left alone."""

    fields: Mapping[str, Any]
    required: tuple[str, ...] = ()
    may_be_empty: bool = False  # where it is not recorded


_ANY = _Object({})
_PDM = _Object({"name": str, "hash": str}, ("name", "hash"), may_be_empty=True)
_LABELLER = _Object({"labeller": str, "licence": str, "pdm": _PDM}, ("labeller",))
_DATA = _Object(
    {
        **dict.fromkeys(("hash", "split_by"), str),
        **dict.fromkeys(("faces", "people", "training", "validation"), int),
        **{key: [str] for key in ("files", "fingerprint", "sketch")},
        "labellers": [_LABELLER],
    }
)
# A type, a list of one form, or an object; null is what is not recorded.
_METADATA: dict[str, Any] = {
    **dict.fromkeys(("kind", "crop", "builtin", "hash", "source_hash", "precision"), str),
    **dict.fromkeys(("licence_note", "package_version"), str),
    **dict.fromkeys(("model", "training", "target_statistics", "au_weights"), _ANY),
    PRESENCE_KEY: _Object({name.removesuffix("_r"): float for name in AU_NAMES}),
    "data": _DATA,
    "pdm": _PDM,
    "ranks": int,
    "progress": _Object({"epoch": int, "batch": int}),
}
_METADATA["init"] = _Object(_METADATA)  # a training before this one
_METADATA["nets"] = _Object(dict.fromkeys(CONFIGS, _Object(_METADATA)))


# By the type of a form: what Python reads, and what it is called.
_KINDS: dict[type, tuple[Any, str]] = {
    _Object: (dict, "JSON object"),
    list: (list, "list"),
    str: (str, "string"),
    int: (int, "whole number"),
    float: ((int, float), "number"),
}


def check_form(metadata: Any, path: object) -> dict[str, Any]:
    """The metadata of a file, or CheckpointError if it is no object of the expected form."""
    try:
        fault = next(_faults(metadata, _Object(_METADATA), "the metadata"), None)
    except RecursionError:
        fault = "the metadata is nested too deeply"
    if fault or metadata is None:
        fault = fault or "the metadata is not a JSON object"
        raise CheckpointError(f"{path}: {fault}; the file is damaged, or of another program")
    return dict(metadata)


def _faults(value: Any, form: Any, name: str) -> Iterator[str]:
    """What is wrong with a value, each on one line."""
    if value is None:
        return
    expected, kind = _KINDS[form if isinstance(form, type) else type(form)]
    if not isinstance(value, expected) or isinstance(value, bool):
        yield f"{name} is not a {kind}"
    elif isinstance(form, list):
        for item in value:
            yield from _faults(item, form[0], f"an entry of {name}")
    elif isinstance(form, _Object):
        required = () if form.may_be_empty and not value else form.required
        yield from (f"{name} has no {key!r}" for key in required if value.get(key) is None)
        for key in (key for key in form.fields if key in value):
            yield from _faults(value[key], form.fields[key], f"{key!r} of {name}")
