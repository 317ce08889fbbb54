"""Small training files for these tests, written with h5py alone."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

AU_NAMES = [f"AU{n:02d}_r" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
OURS = {"format": "mlx-faceau", "version": 1, "landmark_space": "crop"}
COMMON = {"color_format": "RGB", "image_size": (112, 112), "au_names": AU_NAMES}


def arrays(count: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """Random but valid data sets; pixel (0, 0) of an image holds its row number."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    angles = rng.uniform(-0.4, 0.4, (count, 3))
    scale, shift = rng.uniform(0.4, 0.6, (count, 1)), rng.uniform(50, 60, (count, 2))
    return {
        "images": images,
        "landmarks": rng.uniform(15, 96, (count, 68, 2)).astype("f4"),
        "global_params": np.concatenate([scale, angles, shift], axis=1).astype("f4"),
        "local_params": rng.standard_normal((count, 34)).astype("f4"),
        "au_intensities": rng.uniform(0, 5, (count, 17)).astype("f4"),
        "bboxes": np.tile(np.float32([0, 0, 112, 112]), (count, 1)),
        "warp_matrices": np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (count, 1, 1)),
        "metadata/video_names": texts([f"video{i // 4}" for i in range(count)]),
        "metadata/frame_indices": np.arange(count, dtype="i4"),
        "metadata/quality_scores": np.ones(count, "f4"),
        "metadata/subjects": texts([f"person{i // 4}" for i in range(count)]),
    }


def texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=h5py.string_dtype())


def write(
    path: Path,
    data: dict[str, np.ndarray],
    attributes: dict[str, Any] | None = None,
    chunk: int = 16,
) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update({**OURS, **COMMON} if attributes is None else attributes)
        for name, values in data.items():
            chunks = (
                (chunk, *values.shape[1:]) if name == "images" and len(values) >= chunk else None
            )
            file.create_dataset(name, data=values, chunks=chunks)
    return path


def row_numbers(images: np.ndarray) -> np.ndarray:
    """The rows that images of :func:`arrays` came from."""
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 1].astype(int)
