"""Cut a training file's crops again, upright, by a landmark network's own points.

    python benchmarks/upright_crops.py LANDMARKS faces.h5 upright.h5

The eyes of each stored crop are turned level, and the standard crop is cut around the turned
points; landmarks and pose follow.
"""

import shutil
import sys

import cv2
import h5py
import numpy as np

from mlx_faceau import load_predictor
from mlx_faceau.core.geometry import transform_global_params, transform_points

RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)


def main() -> None:
    model, source, output = sys.argv[1:]
    net = load_predictor(model)
    shutil.copy(source, output)
    with h5py.File(output, "r+") as file:
        images, labels = file["images"], file["landmarks"][:]
        poses = file["global_params"][:]
        for start in range(0, len(images), 256):
            rgb = images[start : start + 256]
            points = net.predict_batch(np.ascontiguousarray(rgb[..., ::-1]))["landmarks"]
            for row, (image, found) in enumerate(zip(rgb, points.astype(np.float64), strict=True)):
                matrix = upright_matrix(found)
                rgb[row] = cv2.warpAffine(
                    image, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE
                )
                index = start + row
                labels[index] = transform_points(matrix, labels[index])
                poses[index] = transform_global_params(matrix, poses[index])
            images[start : start + 256] = rgb
        file["landmarks"][:], file["global_params"][:] = labels, poses


def upright_matrix(points: np.ndarray) -> np.ndarray:
    """(2, 3) from the stored crop to the upright one."""
    across = points[LEFT_EYE].mean(axis=0) - points[RIGHT_EYE].mean(axis=0)
    cosine, sine = across / np.linalg.norm(across)
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    low, high = (points @ rotation.T).min(axis=0), (points @ rotation.T).max(axis=0)
    scale = 112 / (1.4 * (high - low).max())
    return np.c_[scale * rotation, 55.5 - scale * (low + high) / 2]


if __name__ == "__main__":
    main()
