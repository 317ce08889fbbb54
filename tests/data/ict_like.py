"""A small head model in ICT-FaceKit's file layout: the open PDM's mean, random identities."""

from pathlib import Path

import numpy as np

from mlx_faceau.core.pdm import OPEN_PDM, read_pdm

SHAPES = ("jawOpen", "mouthClose", "browDown_L", "browDown_R", "mouthPucker")
_FILE_UNITS = np.array([0.1, -0.1, -0.1])  # centimetres, y up, z towards the viewer


def ict_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """The file's arrays: 80 vertices, of which the last 68 are the landmarks; 45 identities."""
    generator = np.random.default_rng(seed)
    neutral = np.concatenate([generator.normal(0, 40, (12, 3)), read_pdm(OPEN_PDM).mean])
    expression = np.zeros((len(SHAPES), 80, 3))
    landmarks = expression[:, 12:]
    landmarks[0, 4:13] = landmarks[0, 55:60] = (0, 20, 5)  # chin and lower lip fall
    landmarks[1, 55:60] = (0, -20, -5)
    landmarks[2, 22:27] = landmarks[3, 17:22] = (0, 4, 0)
    landmarks[4, 48:68] = neutral[60:] * (-0.2, 0, 0)
    return {
        "neutral": neutral * _FILE_UNITS,
        "identity": generator.normal(0, 0.15, (45, 80, 3)) * _FILE_UNITS,
        "expression": expression * _FILE_UNITS,
        "expression_names": np.array(SHAPES),
        "faces": np.array([[0, 1, 2, 3], [4, 5, 6, -1]]),
        "landmarks68": np.arange(12, 80),
    }


def write_ict(path: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    np.savez(path, **(ict_arrays() if arrays is None else arrays))
    return path
