"""Readers of foreign files, each with the smallest files it takes; see ``hostile_files.py``."""

import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import wire

from mlx_faceau.architectures import AUPredictionConfig, weight_shapes
from mlx_faceau.checkpoint import describe
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.facs import AU_NAMES
from mlx_faceau.openface_csv import GROUPS
from mlx_faceau.video import VideoError

CONFIG = AUPredictionConfig(width_mult=0.0625)


DEEP = b"[" * 100_000  # JSON that overflows a recursive parser


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        name: what it reads.
        seeds: valid inputs, and nearly valid ones.
        read: puts an input into an empty folder and reads it there.
        errors: exactly the classes that the reader declares.
        native: whether a library in C parses the bytes.
        names_file: whether every error names the file.
        modules: what it imports, so that no reading is charged with that.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path, bytes], object]
    errors: tuple[type[Exception], ...]
    native: bool = False
    names_file: bool = True
    modules: tuple[str, ...] = ()


# --- checkpoints


@cache
def checkpoint_headers() -> list[bytes]:
    """A checkpoint's length, header and history; zeros follow in the file."""
    shapes = {f"model.{name}": shape for name, shape in weight_shapes(CONFIG).items()}
    progress = {"epoch": 1, "batch": 0, "best_epoch": 1, "best_loss": 0.5}
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
    from mlx_faceau.checkpoint import load_checkpoint
    from mlx_faceau.train.checkpoints import Progress
    from mlx_faceau.train.config import AUTraining
    from mlx_faceau.train.resume import run_settings

    path = folder / "net.safetensors"
    path.write_bytes(data)
    with path.open("rb+") as file:
        file.truncate(len(data) + _weight_bytes())
    checkpoint = load_checkpoint(path)
    checkpoint.weights()
    run_settings(AUTraining, {}, checkpoint)
    Progress.of(checkpoint)


def read_short_checkpoint(folder: Path, data: bytes) -> None:
    from mlx_faceau.checkpoint import load_checkpoint

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

    from mlx_faceau.convert.pyfaceau_names import pyfaceau_shapes

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
    from mlx_faceau.backends.onnx_backend import ONNXBackend

    (folder / "net.onnx").write_bytes(data)
    ONNXBackend(folder / "net.onnx", providers=["CPUExecutionProvider"]).describe()


def exported_metadata() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = wire.write_onnx(Path(folder) / "net.onnx", describe(CONFIG))
        return [path.read_bytes(), *onnx_files()]


def read_onnx_metadata(folder: Path, data: bytes) -> None:
    from mlx_faceau.checkpoint import config_of
    from mlx_faceau.exported import read_exported_metadata

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
    from mlx_faceau.exported import read_exported_metadata

    package = wire.write_mlpackage(folder / "net.mlpackage", describe(CONFIG))
    (package / "Manifest.json").write_bytes(data)
    read_exported_metadata(package)


def core_ml_metadata() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        package = wire.write_mlpackage(Path(folder) / "net.mlpackage", describe(CONFIG))
        return [(package / "Data" / "model.mlmodel").read_bytes(), *core_ml_models()]


def read_core_ml_metadata(folder: Path, data: bytes) -> None:
    from mlx_faceau.exported import read_exported_metadata

    package = wire.write_mlpackage(folder / "net.mlpackage", None)
    (package / "Data" / "model.mlmodel").write_bytes(data)
    read_exported_metadata(package)


@cache
def core_ml_models() -> list[bytes]:
    """A program of three operations, with constants in place and in the weights' file."""
    from mlx_faceau.convert.mil import load_coremltools

    load_coremltools()
    from core_ml_program import tiny_model

    return [tiny_model(blob=blob).SerializeToString(deterministic=True) for blob in (True, False)]


WEIGHT_RECORD = struct.pack("<IIQQ", 0xDEADBEEF, 2, 17 * 3 * 4, 128)


def weight_files() -> list[bytes]:
    """A storage header, one record's 64 bytes at 64, and its 51 numbers at 128."""
    head = struct.pack("<II", 1, 2).ljust(64, b"\0")
    return [head + WEIGHT_RECORD.ljust(64, b"\0") + bytes(17 * 3 * 4)]


def read_core_ml_model(folder: Path, data: bytes) -> None:
    read_package(folder, data, weight_files()[0])


def read_core_ml_weights(folder: Path, data: bytes) -> None:
    read_package(folder, core_ml_models()[0], data)


def read_package(folder: Path, model: bytes, weights: bytes) -> None:
    from mlx_faceau.convert.mil import read_mlpackage

    package = folder / "net.mlpackage"
    (package / "Data" / "weights").mkdir(parents=True)
    (package / "Data" / "model.mlmodel").write_bytes(model)
    (package / "Data" / "weights" / "weight.bin").write_bytes(weights)
    (package / "Manifest.json").write_bytes(manifests()[0])
    read_mlpackage(package)


# --- labelled faces


@cache
def hdf5_files() -> list[bytes]:
    """Two faces in our format, compressed and not, and three in the original tool's."""
    return [_hdf5(True, "gzip"), _hdf5(True, None), _hdf5(False, "gzip")]


def _hdf5(ours: bool, compression: str | None) -> bytes:
    import h5py

    count = 2 if ours else 3
    rng = np.random.default_rng(0)
    images = np.zeros((count, 112, 112, 3), np.uint8)
    images[:, :8, :8] = rng.integers(0, 255, (count, 8, 8, 3))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if ours:
            file.attrs.update(format="mlx-faceau", version=1, landmark_space="crop")
        file.attrs.update(color_format="RGB", image_size=(112, 112), au_names=list(AU_NAMES))
        file.create_dataset("images", data=images, chunks=(1, 112, 112, 3), compression=compression)
        file["landmarks"] = rng.uniform(20, 90, (count, 68, 2)).astype("f4")
        file["global_params"] = np.tile(np.float32([1, 0, 0, 0, 55, 56]), (count, 1))
        file["local_params"] = np.zeros((count, 34), "f4")
        file["au_intensities"] = rng.uniform(0, 5, (count, 17)).astype("f4")
        file["warp_matrices"] = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (count, 1, 1))
        names = np.array(["a", "b", "b"][:count], dtype=h5py.string_dtype())
        file.create_dataset("metadata/video_names", data=names)
        file["metadata/quality_scores"] = np.ones(count, "f4")
    return buffer.getvalue()


def read_hdf5(folder: Path, data: bytes) -> None:
    from mlx_faceau.data.check import check_file
    from mlx_faceau.data.describe import describe_dataset
    from mlx_faceau.data.hdf5 import FaceDataset

    path = folder / "faces.h5"
    path.write_bytes(data)
    check_file(path)
    dataset = FaceDataset(path, keep_outside=True)
    dataset.read_images(range(min(len(dataset), 8)))
    describe_dataset(dataset)


@cache
def journals() -> list[bytes]:
    """The log of an interrupted writer: its name and two samples."""
    from safetensors.numpy import save

    arrays = {
        "images": np.zeros((1, 112, 112, 3), np.uint8),
        "landmarks": np.full((1, 68, 2), 50, np.float32),
        "global_params": np.ones((1, 6), np.float32),
        "local_params": np.zeros((1, 34), np.float32),
        "au_intensities": np.zeros((1, 17), np.float32),
        "metadata/video_names": np.frombuffer(b'["a"]', np.uint8),
    }
    name = json.dumps({"id": "0" * 32, "once": False}).encode()
    return [b"\n".join((name, save(arrays), save(arrays)))]


def read_journal(folder: Path, data: bytes) -> None:
    """Each line of the input as one record with a right checksum, the first on one line."""
    from mlx_faceau.data.writer import TrainingDataWriter

    name, _, rest = data.partition(b"\n")
    middle = rest.rfind(b"\n", 0, len(rest) // 2 + 64)
    records = [name, rest[:middle], rest[middle + 1 :]] if middle > 0 else [name, rest]
    heads = [struct.pack("<4sIQ", b"MXFJ", zlib.crc32(part), len(part)) for part in records]
    log = b"".join(head + part for head, part in zip(heads, records, strict=True))
    (folder / "faces.h5.partial").write_bytes(log)
    TrainingDataWriter(folder / "faces.h5").close()


@cache
def openface_csvs() -> list[bytes]:
    names = ["frame", "face_id", "timestamp", "confidence", "success"]
    names += [*GROUPS["2d"], *GROUPS["params"], *AU_NAMES]
    values = ["1", "0", "0.0", "0.98", "1", *["50.0"] * (len(names) - 5 - 17), *["1.5"] * 17]
    small = b"frame, timestamp\n1, 0.0\n2, 0.033\n"
    return ["\n".join(map(", ".join, (names, values, values))).encode(), small]


def read_csv(folder: Path, data: bytes) -> None:
    from mlx_faceau.data.label_openface import OpenFaceLabeller
    from mlx_faceau.faces import Frame
    from mlx_faceau.openface_csv import read_openface_csv

    (folder / "clip.csv").write_bytes(data)
    (folder / "clip.mp4").write_bytes(videos()[0])
    read_openface_csv(folder / "clip.csv")
    labels = OpenFaceLabeller().begin(folder / "clip.mp4")
    labels(Frame(0, 0.0, np.zeros((112, 112, 3), np.uint8)))


def pdm_texts() -> list[bytes]:
    mean, basis = "6\n1\n6\n1 2 3 4 5 6\n", "6\n2\n6\n" + "0.5 -0.5\n" * 6
    return [f"# a model\n{mean}\n# modes\n{basis}# variances\n1\n2\n6\n3.0 1.5\n".encode()]


def read_pdm_text(folder: Path, data: bytes) -> None:
    from mlx_faceau.pdm import read_pdm

    (folder / "shape.txt").write_bytes(data)
    read_pdm(folder / "shape.txt").shape(np.zeros(2))


# --- settings and history


def settings_files() -> list[bytes]:
    given = {"data": ["faces.h5"], "epochs": 5, "lr": 0.001, "width_mult": 0.25, "init": None}
    return [
        json.dumps(given).encode(),
        b'{"AU09_r": 2, "AU12_r": 0.5}',
        b'{"framework": "torch"}',
        DEEP,
    ]


def read_settings_file(folder: Path, data: bytes) -> None:
    from mlx_faceau.train.config import AUTraining, read_settings, resolve
    from mlx_faceau.train.rarity import read_weights

    path = folder / "settings.json"
    path.write_bytes(data)
    settings = read_settings(path)
    if "AU09_r" in settings:
        read_weights(path)
    else:
        resolve(AUTraining, settings)


def histories() -> list[bytes]:
    unit = {"r": 0.5, "ccc": 0.4, "icc31": 0.4, "mae": 0.3, "support": 60}
    metrics = {"correlation": 0.5, "mae": 0.3, "aus": dict.fromkeys(AU_NAMES, unit)}
    entry = {"epoch": 1, "validation": {"loss": 0.5}, "metrics": metrics}
    evaluation = {"model": {"checkpoint": "a"}, "kind": "au_prediction", "faces": 3, "people": 2}
    evaluation |= {"people_by": "subject", "trained_on": False, "data": {"hash": "b"}}
    evaluation |= {"boxes": None, "net": metrics, "jittered": metrics, "constant": metrics}
    evaluation |= {"intervals": {"mae": [0.1, 0.2], "aus": {"AU12_r": {"r": [0.1, 0.9]}}}}
    return [json.dumps({"epochs": [entry] * 2}).encode(), json.dumps(evaluation).encode(), DEEP]


def read_history(folder: Path, data: bytes) -> None:
    from mlx_faceau.recorded_accuracy import recorded_accuracy

    for name in ("training_history.json", "evaluation.json"):
        (folder / name).write_bytes(data)
    list(recorded_accuracy("au_prediction", "a", folder, folder))


# --- pictures and videos


@cache
def pictures() -> list[bytes]:
    import cv2

    crop = np.zeros((112, 112, 3), np.uint8)
    crop[30:60, 40:80] = (40, 90, 200)
    endings = (".png", ".jpg", ".bmp", ".tif", ".webp")
    return [cv2.imencode(ending, crop)[1].tobytes() for ending in endings]


def read_picture(folder: Path, data: bytes) -> None:
    from mlx_faceau.cli.predict_aligned import read_crop
    from mlx_faceau.video import read_image

    (folder / "face.png").write_bytes(data)
    read_image(folder / "face.png")
    read_crop(folder / "face.png")


@cache
def videos() -> list[bytes]:
    import cv2
    from blobs import write_video

    frames = [np.full((48, 64, 3), shade, np.uint8) for shade in (0, 90, 180)]
    with tempfile.TemporaryDirectory() as folder:
        cv2.setNumThreads(1)
        found = [write_video(Path(folder) / f"a.{kind}", frames) for kind in ("mp4", "mkv", "avi")]
        return [path.read_bytes() for path in found]


def read_video(folder: Path, data: bytes) -> None:
    from mlx_faceau.video import Video

    (folder / "clip.mp4").write_bytes(data)
    for _ in Video(folder / "clip.mp4").frames():
        pass


_CHECKPOINT, _DATASET = (CheckpointError,), (DatasetError,)
_PT, _MIL = (
    ("mlx_faceau.convert.pyfaceau",),
    ("mlx_faceau.convert.mil", "coremltools.proto.Model_pb2"),
)

TARGETS = {
    target.name: target
    for target in (
        Target("checkpoint", checkpoint_headers, read_checkpoint, (CheckpointError, ValueError),
               names_file=False, modules=("safetensors.numpy", "mlx_faceau.train.resume")),
        Target("short checkpoint", short_checkpoints, read_short_checkpoint, _CHECKPOINT,
               modules=("safetensors.numpy",)),
        Target("pt archive", pt_archives, read_pt, _CHECKPOINT, native=True, modules=_PT),
        Target("pt pickle", pt_pickles, read_pt_pickle, _CHECKPOINT, native=True, modules=_PT),
        Target("onnx", onnx_files, read_onnx, _CHECKPOINT, native=True,
               modules=("mlx_faceau.backends.onnx_backend",)),
        Target("onnx metadata", exported_metadata, read_onnx_metadata, _CHECKPOINT),
        Target("manifest", manifests, read_manifest, _CHECKPOINT),
        Target("core ml metadata", core_ml_metadata, read_core_ml_metadata, _CHECKPOINT),
        Target("core ml model", core_ml_models, read_core_ml_model, _CHECKPOINT, modules=_MIL),
        Target("core ml weights", weight_files, read_core_ml_weights, _CHECKPOINT, modules=_MIL),
        Target("hdf5", hdf5_files, read_hdf5, _DATASET, native=True,
               modules=("mlx_faceau.data.check", "mlx_faceau.data.describe")),
        Target("writer's log", journals, read_journal, _DATASET,
               modules=("mlx_faceau.data.writer",)),
        Target("openface csv", openface_csvs, read_csv, _DATASET,
               modules=("mlx_faceau.data.label_openface",)),
        Target("pdm", pdm_texts, read_pdm_text, _DATASET),
        Target("settings", settings_files, read_settings_file, (ValueError,), names_file=False),
        Target("history", histories, read_history, ()),
        Target("picture", pictures, read_picture, (VideoError, ValueError), native=True,
               modules=("mlx_faceau.cli.predict_aligned",)),
        Target("video", videos, read_video, (VideoError,), native=True),
    )
}  # fmt: skip
