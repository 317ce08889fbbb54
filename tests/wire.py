"""Exported files written by hand, so that tests need not have the libraries they are for."""

import json
from pathlib import Path


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(number: int, payload: bytes | str) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(data)) + data


def pair(key: str, value: str) -> bytes:
    return message(1, key) + message(2, value)


def write_onnx(path: Path, metadata: dict | None) -> Path:
    """An ``.onnx`` file of a version number, a graph that is no graph, and metadata."""
    data = varint(1 << 3) + varint(10) + message(7, b"\xff" * 1000)
    if metadata is not None:
        data += message(14, pair("mlx-faceau", json.dumps(metadata)))
    path.write_bytes(data + message(2, "producer"))
    return path


def write_mlpackage(path: Path, metadata: dict | None) -> Path:
    """An ``.mlpackage`` folder whose model holds a description alone."""
    entries = message(100, pair("com.github.apple.coremltools.version", "9.0"))
    if metadata is not None:
        entries += message(100, pair("mlx-faceau", json.dumps(metadata)))
    model = varint(1 << 3) + varint(7) + message(2, message(100, entries))
    (path / "Data").mkdir(parents=True)
    (path / "Data" / "model.mlmodel").write_bytes(model)
    items = {"id": {"path": "model.mlmodel"}}
    manifest = {"itemInfoEntries": items, "rootModelIdentifier": "id"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path
