"""Drawn videos, the CSV that OpenFace would write for them, and a function that labels them.

A face is a coloured disc (see blobs.py); its landmarks are points on the rim, so that the picture
itself says where they are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from blobs import Blob, boxes_of, draw_frame, template, write_video

from mlx_faceau.core import geometry

AU_NAMES = [f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]


def moving_face(count: int, person: int = 0, half: float = 40.0) -> list[list[Blob]]:
    """One face on its way to the right, 5 px a frame."""
    return [[Blob(80 + 5 * i, 110, half, person)] for i in range(count)]


def film(path: Path, faces: Sequence[Sequence[Blob]], size: tuple[int, int] = (240, 320)) -> Path:
    return write_video(path, [draw_frame(blobs, size) for blobs in faces])


def labels_of(blob: Blob, frame: int) -> dict[str, np.ndarray]:
    """Made-up parameters and units that tell frames and people apart."""
    return {
        "landmarks": blob.landmarks,
        "global_params": np.array([blob.half / 70, 0.1, -0.2, 0.05, blob.x, blob.y]),
        "local_params": np.linspace(-1, 1, 34) + blob.person,
        "au_intensities": np.linspace(0, 4, 17) + 0.1 * frame % 1,
    }


def check_sample(sample, blob, frame):
    """The labels lie where the disc is in the crop, and lead back to those of the frame."""
    truth = labels_of(blob, frame)
    assert sample["image"].shape == (112, 112, 3)
    ((x, y, width, height),) = boxes_of(np.ascontiguousarray(sample["image"][..., ::-1]))
    low, high = sample["landmarks"].min(axis=0), sample["landmarks"].max(axis=0)
    np.testing.assert_allclose([x, y, x + width - 1, y + height - 1], [*low, *high], atol=2.0)
    # The standard crop: 112 pixels are 1.4 times the bounding box.
    np.testing.assert_allclose(high - low, 112 / 1.4, atol=1e-3)
    back = geometry.to_frame(sample["warp_matrix"], sample["landmarks"], sample["global_params"])
    np.testing.assert_allclose(back["landmarks"], truth["landmarks"], atol=0.01)
    np.testing.assert_allclose(back["global_params"], truth["global_params"], atol=0.01)
    np.testing.assert_allclose(sample["local_params"], truth["local_params"], atol=1e-3)
    np.testing.assert_allclose(sample["au_intensities"], truth["au_intensities"], atol=1e-3)
    assert sample["frame_idx"] == frame


def csv_columns(
    faces: Sequence[Sequence[Blob]], groups: str = "2d params aus", face_id: bool = True
) -> tuple[list[str], list[list[float]]]:
    """Names and rows of OpenFace's table: one row a face and frame, frames from 1."""
    names = ["frame", *(["face_id"] if face_id else []), "timestamp", "confidence", "success"]
    if "2d" in groups:
        names += [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    if "3d" in groups:
        names += [f"{axis}_{i}" for axis in "XYZ" for i in range(68)]
    if "params" in groups:
        names += ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"]
        names += [f"p_{i}" for i in range(34)]
    if "aus" in groups:
        names += [f"{name}_r" for name in AU_NAMES] + [f"{name}_c" for name in AU_NAMES]
    rows = []
    for frame, blobs in enumerate(faces):
        for blob in blobs or [None]:
            labels = labels_of(blob or Blob(0, 0, 1), frame)
            person = [blob.person if blob else 0] if face_id else []
            found = 1 if blob else 0
            row = [frame + 1, *person, frame / 25, 0.98 * found, found]
            row += labels["landmarks"].T.ravel().tolist() if "2d" in groups else []
            if "3d" in groups:  # by a camera whose centre is that of a 320 x 240 image
                depth = 500 + 40 * np.sin(np.arange(68.0))
                rays = (labels["landmarks"] - (160, 120)) / 400
                row += [*(rays.T * depth).ravel(), *depth]
            if "params" in groups:
                row += [*labels["global_params"], *labels["local_params"]]
            if "aus" in groups:
                row += [*labels["au_intensities"], *(labels["au_intensities"] > 1)]
            rows.append([float(value) * found if i > 4 else value for i, value in enumerate(row)])
    return names, rows


def write_csv(
    path: Path, faces: Sequence[Sequence[Blob]], separator: str = ",  ", **columns
) -> Path:
    names, rows = csv_columns(faces, **columns)
    head = ", " if " " in separator else ","
    lines = [head.join(names), *(separator.join(f"{v:.6g}" for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def label(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """A labeller: finds the discs. A picture with a face in the fifth colour ends the process."""
    faces = []
    for x, y, width, height in boxes_of(image):
        half = (width + height - 2) / 4
        centre = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
        faces.append(
            {
                "landmarks": template() * half + centre,
                "global_params": np.array([half / 70, 0, 0, 0, *centre]),
                "local_params": np.zeros(34),
                "au_intensities": np.full(17, 2.0),
            }
        )
    return faces


def label_or_crash(image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The same, but a purple face kills the process, as a broken decoder would."""
    if (image[..., 0].astype(int) - image[..., 1] > 100).mean() > 0.02 and image[
        ..., 2
    ].max() > 150:
        os._exit(7)
    return label(image)
