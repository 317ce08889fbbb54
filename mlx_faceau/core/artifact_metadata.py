"""The form of a net's metadata; and that of exported files, read before any library is loaded.

Files from elsewhere may hold anything under the names of ours: readers rely on :func:`check_form`.
ONNX and Core ML files carry the metadata of the net they were made from (see
``checkpoint.describe``) as JSON under one key. Both are protocol buffers; a few fields of the
wire format suffice to find it, so that a backend can be chosen before its library is loaded.

Reference:
    Protocol Buffers, Encoding (protobuf.dev); onnx.proto3; Core ML's Model.proto.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_faceau.errors import CheckpointError

from .architectures import CONFIGS
from .facs import AU_NAMES, PRESENCE_KEY

METADATA_KEY = "mlx-faceau"
ONNX_SUFFIX = ".onnx"
COREML_SUFFIX = ".mlpackage"
COMBINED = "combined"  # kind of a file that holds both nets

# Field numbers on the way to the (key, value) pairs.
_ONNX_PATH = (14,)  # ModelProto.metadata_props
_COREML_PATH = (2, 100, 100)  # Model.description, .metadata, .userDefined
_KEY, _VALUE = 1, 2
_EXTERNAL = "external_data"
# Messages of onnx.proto3 and their fields that may hold a tensor.
_TENSORS_LIE_IN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": dict.fromkeys((5, 10), "tensor")
    | dict.fromkeys((6, 11), "graph")
    | dict.fromkeys((22, 23), "sparse"),
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: _EXTERNAL},
}
_MAX_FIELD = 16 << 20  # bytes of one metadata field; a real one has a few KiB
_MAX_MANIFEST = 1 << 20  # bytes
_MAX_FIELDS = 100_000  # that are looked at; a real file has some dozens on the way


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


def read_exported_metadata(path: Path | str) -> dict[str, Any] | None:
    """The metadata of an ``.onnx`` file or ``.mlpackage`` folder; None of another tool's.

    CheckpointError is raised if it is missing, truncated or malformed.
    """
    path = Path(path)
    package = path.suffix == COREML_SUFFIX and path.is_dir()
    file_path, fields = (find_mlmodel(path), _COREML_PATH) if package else (path, _ONNX_PATH)
    with _opened(file_path, path, "Core ML package" if package else "ONNX file") as (file, size):
        text = dict(_pairs(file, 0, size, fields)).get(METADATA_KEY)
    return None if text is None else parse_metadata(text, path)


def parse_metadata(text: str, path: Path | str) -> dict[str, Any]:
    """The JSON under ``METADATA_KEY``; CheckpointError if it has not the form of metadata."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its settings are not JSON: {error}") from None
    return check_form(metadata, path)


def net_metadata(metadata: dict[str, Any], kind: str) -> dict[str, Any]:
    """What a file's metadata says of its net of a kind, as if a combined file held that alone."""
    own = (metadata.get("nets") or {}).get(kind)
    common = {key: value for key, value in metadata.items() if key != "nets"}
    return {**common, **own} if own else metadata


def check_self_contained(path: Path | str) -> None:
    """Raise CheckpointError unless an ``.onnx`` file holds all its tensors, and is well formed.

    ONNX Runtime would open the other files that it names.
    """
    with _opened(Path(path), path, "ONNX file") as (file, size):
        outside = _names_a_file(file, 0, size, "model")
    if outside:
        raise CheckpointError(
            f"{path}: its weights are in another file; save it with all data in one file"
        )


@contextmanager
def _opened(file_path: Path, path: Path | str, kind: str) -> Iterator[tuple[BinaryIO, int]]:
    """A protocol buffer and its size; CheckpointError, naming ``path``, if it cannot be read."""
    try:
        with file_path.open("rb") as file:
            yield file, file_path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable {kind}: {error}") from None


def _names_a_file(file: BinaryIO, start: int, end: int, kind: str) -> bool:
    for number, begin, size in _fields(file, start, end):
        inner = _TENSORS_LIE_IN[kind].get(number)
        if inner == _EXTERNAL or (inner and _names_a_file(file, begin, begin + size, inner)):
            return True
    return False


def find_mlmodel(package: Path | str) -> Path:
    """The protocol buffer inside a Core ML package, named by its manifest, or CheckpointError."""
    package = Path(package)
    try:
        with (package / "Manifest.json").open("rb") as file:
            manifest = json.loads(file.read(_MAX_MANIFEST))
        root = manifest["rootModelIdentifier"]
        data = (package / "Data").resolve()
        model: Path = (data / manifest["itemInfoEntries"][root]["path"]).resolve()
        there = model.is_relative_to(data) and model.is_file()
    except OSError as error:
        raise CheckpointError(f"{package}: not a Core ML package: {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{package}: its Manifest.json names no model") from None
    if not there:
        raise CheckpointError(f"{package}: its Manifest.json names no file of the package")
    return model


def _pairs(
    file: BinaryIO, start: int, end: int, path: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    """The string pairs under a path of field numbers."""
    for number, begin, size in _fields(file, start, end):
        if number != path[0]:
            continue
        if len(path) > 1:
            yield from _pairs(file, begin, begin + size, path[1:])
            continue
        texts = {_KEY: "", _VALUE: ""}
        for field, at, length in _fields(file, begin, begin + size):
            if length > _MAX_FIELD:
                raise ValueError(f"a metadata field of {length} bytes")
            file.seek(at)
            texts[field] = file.read(length).decode()
        yield texts[_KEY], texts[_VALUE]


def _fields(file: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, position and size of each length-delimited field of a message in [position, end)."""
    for _ in range(_MAX_FIELDS):
        if position >= end:
            return
        file.seek(position)
        tag = _varint(file)
        wire = tag & 7
        if wire == 0:
            _varint(file)
            size, begin = 0, file.tell()
        elif wire in (1, 5):
            size, begin = 0, file.tell() + (8 if wire == 1 else 4)
        elif wire == 2:
            size = _varint(file)
            begin = file.tell()
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        position = begin + size
        if position > end:
            raise ValueError(f"cut short at byte {end}")
        if wire == 2:
            yield tag >> 3, begin, size
    raise ValueError(f"more than {_MAX_FIELDS} fields")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError(f"cut short at byte {file.tell()}")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError(f"a number of more than 64 bits at byte {file.tell()}")
