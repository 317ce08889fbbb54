"""ICT-FaceKit: a neutral head, its identity components and its FACS-like expression shapes.

The model is under the MIT licence; users bring it as one ``.npz`` file.

Reference:
    Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError

# The file's centimetres, y up and z to the viewer, in mm, y down and z away: a half turn about x.
_TO_MILLIMETRES = np.array([10, -10, -10], np.float32)
# What np.load raises for files of other kinds, and an .npz without one of the arrays.
_UNREADABLE = OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, zipfile.BadZipFile


@dataclass(frozen=True)
class ICTFaceKit:
    """A head is ``neutral + coefficients @ identity + amounts @ expression``.

    Millimetres: x to the right of the image, y down, z away from the viewer.
    """

    neutral: np.ndarray  # (V, 3) float32
    identity: np.ndarray  # (I, V, 3) float32; the coefficients of people are standard normal
    expression: np.ndarray  # (E, V, 3) float32; amounts lie in [0, 1]
    # E names; _L and _R end those of the subject's left and right side
    expression_names: tuple[str, ...]
    faces: np.ndarray  # (F, 4) vertices of the mesh's quadrilaterals; triangles end in -1
    landmarks68: np.ndarray  # (68,) vertices of the iBUG points, as the model's authors give them


def read_ict_facekit(path: Path | str) -> ICTFaceKit:
    """Read the model's ``.npz`` file: centimetres, y up and z towards the viewer.

    Raises:
        DatasetError: if it cannot be read, or is another file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            neutral, identity, expression = (
                file[name].astype(np.float32) * _TO_MILLIMETRES
                for name in ("neutral", "identity", "expression")
            )
            names = tuple(str(name) for name in file["expression_names"])
            return ICTFaceKit(
                neutral, identity, expression, names, file["faces"], file["landmarks68"]
            )
    except _UNREADABLE as error:
        raise DatasetError(f"{path}: no .npz file of ICT-FaceKit: {error}") from None
