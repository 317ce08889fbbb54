"""Labelled faces, settings, pictures and videos for ``hostile_files.py``, and how each is read."""

import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hostile_models import DEEP

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.output.openface_csv import GROUPS

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
    from mlx_faceau.data.format.check import check_file, describe_dataset
    from mlx_faceau.data.format.dataset import FaceDataset

    path = folder / "faces.h5"
    path.write_bytes(data)
    check_file(path)
    dataset = FaceDataset(path, keep_outside=True)
    dataset.read_images(range(min(len(dataset), 8)))
    describe_dataset(dataset)


def read_shard(folder: Path, data: bytes) -> None:
    """As a shard of an interrupted writer, which merges it with every column."""
    from mlx_faceau.data.format.writer import TrainingDataWriter

    (folder / "faces.h5.partial").mkdir(parents=True, exist_ok=True)
    (folder / "faces.h5.partial" / "000000000000.h5").write_bytes(data)
    TrainingDataWriter(folder / "faces.h5").close()


@cache
def openface_csvs() -> list[bytes]:
    names = ["frame", "face_id", "timestamp", "confidence", "success"]
    names += [*GROUPS["2d"], *GROUPS["params"], *AU_NAMES]
    values = ["1", "0", "0.0", "0.98", "1", *["50.0"] * (len(names) - 5 - 17), *["1.5"] * 17]
    small = b"frame, timestamp\n1, 0.0\n2, 0.033\n"
    return ["\n".join(map(", ".join, (names, values, values))).encode(), small]


def read_csv(folder: Path, data: bytes) -> None:
    from mlx_faceau.data.labels.openface import OpenFaceLabeller
    from mlx_faceau.output.openface_csv import read_openface_csv
    from mlx_faceau.video.results import Frame

    (folder / "clip.csv").write_bytes(data)
    (folder / "clip.mp4").write_bytes(videos()[0])
    read_openface_csv(folder / "clip.csv")
    labels = OpenFaceLabeller().begin(folder / "clip.mp4")
    labels(Frame(0, 0.0, np.zeros((112, 112, 3), np.uint8)))


def pdm_texts() -> list[bytes]:
    mean, basis = "6\n1\n6\n1 2 3 4 5 6\n", "6\n2\n6\n" + "0.5 -0.5\n" * 6
    return [f"# a model\n{mean}\n# modes\n{basis}# variances\n1\n2\n6\n3.0 1.5\n".encode()]


def read_pdm_text(folder: Path, data: bytes) -> None:
    from mlx_faceau.core.pdm import read_pdm

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
    from mlx_faceau.train.config import (
        AUTrainConfig,
        read_au_weights,
        read_settings,
        resolve,
    )

    path = folder / "settings.json"
    path.write_bytes(data)
    settings = read_settings(path)
    if "AU09_r" in settings:
        read_au_weights(path)
    else:
        resolve(AUTrainConfig, settings)


def histories() -> list[bytes]:
    unit = {"r": 0.5, "ccc": 0.4, "icc31": 0.4, "mae": 0.3, "support": 60}
    metrics = {"correlation": 0.5, "mae": 0.3, "aus": dict.fromkeys(AU_NAMES, unit)}
    entry = {"epoch": 1, "validation": {"loss": 0.5}, "metrics": metrics}
    model = {"checkpoint": "a", "file": "runs/au/net.onnx", "backend": "onnx"}
    evaluation = {"model": model, "kind": "au_prediction", "trained_on": False}
    evaluation |= {"data": {"hash": "b"}, "faces": 3}
    tables = [{"columns": ["accuracy", "net"], "rows": [["AU MAE", "0.300"]]}]
    rendered = {**evaluation, "summary": "3 faces", "tables": tables, "notes": ["note"]}
    evaluation |= {"net": metrics, "jittered": metrics, "constant": metrics}
    evaluation |= {"intervals": {"mae": [0.1, 0.2], "aus": {"AU12_r": {"r": [0.1, 0.9]}}}}
    history = {"data": {"hash": "b"}, "epochs": [entry] * 2}
    return [
        json.dumps(history).encode(),
        json.dumps(evaluation).encode(),
        json.dumps(rendered).encode(),
        DEEP,
    ]


def read_history(folder: Path, data: bytes) -> None:
    from mlx_faceau.output.model_card import recorded_accuracy

    for name in ("training_history.json", "evaluation.json"):
        (folder / name).write_bytes(data)
    metadata = {"kind": "au_prediction", "data": {"hash": "b"}}
    metadata["progress"] = {"epoch": 1, "batch": 0}
    list(recorded_accuracy(metadata, {"a"}, folder, folder))


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
    from mlx_faceau.video.images import read_image

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
    from mlx_faceau.video.reader import Video

    (folder / "clip.mp4").write_bytes(data)
    for _ in Video(folder / "clip.mp4").frames():
        pass
