"""Checkpoints and exported files for ``hostile_files.py``, and how each is read."""

import io
import json
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import wire

from mlx_faceau.core.architectures import AUPredictionConfig, weight_shapes
from mlx_faceau.core.checkpoint import describe

CONFIG = AUPredictionConfig(width_mult=0.0625)
DEEP = b"[" * 100_000  # JSON that overflows a recursive parser


# --- checkpoints


@cache
def checkpoint_headers() -> list[bytes]:
    """A checkpoint's length, header and history; zeros follow in the file."""
    shapes = {f"model.{name}": shape for name, shape in weight_shapes(CONFIG).items()}
    progress = {"epoch": 0, "batch": 2, "best_epoch": 0, "best_loss": None}
    settings = {"framework": "torch", "epochs": 3, "data": ["faces.h5"]}
    return [
        _header(shapes, {"progress": progress, "training": settings}) + _HISTORY,
        _header(shapes, {}) + _HISTORY,
        _header({"model.a": (2,)}, {}),
    ]


_HISTORY = b"[]  "


def _header(shapes: dict[str, tuple[int, ...]], more: dict[str, Any]) -> bytes:
    metadata = {"mlx-faceau": json.dumps(describe(CONFIG, **more))}
    entries: dict[str, Any] = {"__metadata__": metadata}
    start = len(_HISTORY)
    entries["loop.history"] = {"dtype": "U8", "shape": [start], "data_offsets": [0, start]}
    for name, shape in shapes.items():
        end = start + 4 * int(np.prod(shape))
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def _weight_bytes() -> int:
    return 4 * sum(int(np.prod(shape)) for shape in weight_shapes(CONFIG).values())


def read_checkpoint(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.checkpoint import load_checkpoint
    from mlx_faceau.train.checkpoints import TrainingState
    from mlx_faceau.train.config import AUTrainConfig
    from mlx_faceau.train.run import run_settings

    path = folder / "net.safetensors"
    path.write_bytes(data)
    with path.open("rb+") as file:
        file.truncate(len(data) + _weight_bytes())
    checkpoint = load_checkpoint(path)
    checkpoint.weights()
    run_settings(AUTrainConfig, {}, checkpoint)
    TrainingState.from_checkpoint(checkpoint)


def read_short_checkpoint(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.checkpoint import load_checkpoint

    (folder / "net.safetensors").write_bytes(data)
    load_checkpoint(folder / "net.safetensors").weights()


def short_checkpoints() -> list[bytes]:
    small = _header({"model.a": (2,)}, {}) + _HISTORY + bytes(8)
    return [small, checkpoint_headers()[1][:3000], b""]


# --- the original tool's checkpoints


@cache
def pt_archives() -> list[bytes]:
    import torch

    contents = [
        {"model_state_dict": {"au_head.x": torch.zeros(2)}, "train_history": [np.float64(0.5)]},
        {"model_state_dict": {}},
    ]
    return [_saved(content) for content in contents]


def _saved(content: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@cache
def pt_pickles() -> list[bytes]:
    """A net's pickle, each weight one number seen through strides of zero; and a small one."""
    import torch

    from mlx_faceau.convert.pyfaceau import pyfaceau_shapes

    one = torch.zeros(1)
    shapes = pyfaceau_shapes(AUPredictionConfig(width_mult=0.25))
    state = {name: one.expand(shape) for name, shape in shapes.items()}
    whole = {"epoch": 3, "model_state_dict": state, "best_val_loss": np.float64(0.5)}
    return [_pickle_of(_saved(content)) for content in (whole, {"model_state_dict": {"a": one}})]


def _pickle_of(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return file.read("archive/data.pkl")


def read_pt(folder: Path, data: bytes) -> None:
    from mlx_faceau.convert.pyfaceau import read_pyfaceau

    (folder / "net.pt").write_bytes(data)
    read_pyfaceau(folder / "net.pt")


def read_pt_pickle(folder: Path, data: bytes) -> None:
    """The input as the pickle of a whole archive whose storages all hold one number."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        parts = {"data.pkl": data, "byteorder": b"little", "data/0": bytes(4), "version": b"3\n"}
        for name, part in parts.items():
            file.writestr(f"archive/{name}", part)
    read_pt(folder, buffer.getvalue())


# --- exported files


@cache
def onnx_files() -> list[bytes]:
    """A graph of the right shapes: the crop's three means through one matrix."""
    dims = {"batch": "batch"}
    image = _value("image", [dims["batch"], 3, 112, 112])
    output = _value("au_intensities", ["batch", 17])
    nodes = [
        _node("GlobalAveragePool", ["image"], ["pooled"]),
        _node("Flatten", ["pooled"], ["flat"]),
        _node("MatMul", ["flat", "w"], ["au_intensities"]),
    ]
    weight = wire.number(1, 3) + wire.number(1, 17) + wire.number(2, 1)
    weight += wire.message(8, "w") + wire.message(9, bytes(4 * 51))
    graph = b"".join(wire.message(1, node) for node in nodes) + wire.message(2, "net")
    graph += wire.message(5, weight) + wire.message(11, image) + wire.message(12, output)
    model = wire.number(1, 8) + wire.message(8, wire.number(2, 17)) + wire.message(7, graph)
    about = wire.message(14, wire.pair("mlx-faceau", json.dumps(describe(CONFIG))))
    return [model + about, model]


def _value(name: str, shape: list[int | str]) -> bytes:
    """A ValueInfoProto of float32."""
    sizes = [
        wire.message(1, wire.message(2, size) if isinstance(size, str) else wire.number(1, size))
        for size in shape
    ]
    tensor = wire.number(1, 1) + wire.message(2, b"".join(sizes))
    return wire.message(1, name) + wire.message(2, wire.message(1, tensor))


def _node(kind: str, inputs: list[str], outputs: list[str]) -> bytes:
    ports = [wire.message(1, name) for name in inputs] + [wire.message(2, n) for n in outputs]
    return b"".join(ports) + wire.message(4, kind)


def read_onnx(folder: Path, data: bytes) -> None:
    from mlx_faceau.inference.backends.onnx_backend import ONNXBackend

    (folder / "net.onnx").write_bytes(data)
    ONNXBackend(folder / "net.onnx", providers=["CPUExecutionProvider"]).describe()


def exported_metadata() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = wire.write_onnx(Path(folder) / "net.onnx", describe(CONFIG))
        return [path.read_bytes(), *onnx_files()]


def read_onnx_metadata(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.artifact_metadata import read_exported_metadata
    from mlx_faceau.core.checkpoint import config_of

    path = folder / "net.onnx"
    path.write_bytes(data)
    metadata = read_exported_metadata(path)
    if metadata is not None:
        config_of(metadata, path)


def manifests() -> list[bytes]:
    items = {"id": {"author": "com.apple.CoreML", "path": "model.mlmodel"}}
    more = {"rootModelIdentifier": "id", "fileFormatVersion": "1.0.0"}
    return [json.dumps({"itemInfoEntries": items, **more}).encode(), DEEP]


def read_manifest(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.artifact_metadata import read_exported_metadata

    package = wire.write_mlpackage(folder / "net.mlpackage", describe(CONFIG))
    (package / "Manifest.json").write_bytes(data)
    read_exported_metadata(package)


def core_ml_metadata() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        package = wire.write_mlpackage(Path(folder) / "net.mlpackage", describe(CONFIG))
        return [(package / "Data" / "model.mlmodel").read_bytes()]


def read_core_ml_metadata(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.artifact_metadata import read_exported_metadata

    package = wire.write_mlpackage(folder / "net.mlpackage", None)
    (package / "Data" / "model.mlmodel").write_bytes(data)
    read_exported_metadata(package)
