"""A small head model in ICT-FaceKit's file layout: the open PDM's mean, random identities."""

from pathlib import Path

import numpy as np

from mlx_faceau.core.pdm import OPEN_PDM, read_pdm

SHAPES = ("jawOpen", "mouthClose", "browDown_L", "browDown_R", "mouthPucker")
LANDMARKS = np.arange(12, 80)
_FILE_UNITS = np.array([0.1, -0.1, -0.1])  # centimetres, y up, z towards the viewer


def ict_arrays(landmarks: np.ndarray = LANDMARKS) -> dict[str, np.ndarray]:
    """The file's arrays: as many vertices as the landmarks ask for, 45 identities."""
    generator = np.random.default_rng(0)
    count, mean = landmarks.max() + 1, read_pdm(OPEN_PDM).mean
    neutral = generator.normal(0, 40, (count, 3))
    neutral[landmarks] = mean
    moves = np.zeros((len(SHAPES), 68, 3))
    moves[0, 4:13] = moves[0, 55:60] = (0, 20, 5)  # chin and lower lip fall
    moves[1, 55:60] = (0, -20, -5)
    moves[2, 22:27] = moves[3, 17:22] = (0, 4, 0)
    moves[4, 48:68] = mean[48:] * (-0.2, 0, 0)
    expression = np.zeros((len(SHAPES), count, 3))
    expression[:, landmarks] = moves
    return {
        "neutral": neutral * _FILE_UNITS,
        "identity": generator.normal(0, 0.15, (45, count, 3)) * _FILE_UNITS,
        "expression": expression * _FILE_UNITS,
        "expression_names": np.array(SHAPES),
        "faces": np.array([[0, 1, 2, 3], [4, 5, 6, -1]]),
        "landmarks68": landmarks,
    }


def write_ict(path: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    np.savez(path, **(ict_arrays() if arrays is None else arrays))
    return path
