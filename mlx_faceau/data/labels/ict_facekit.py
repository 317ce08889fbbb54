"""ICT-FaceKit: a neutral head, its identity components and its FACS-like expression shapes.

The model is under the MIT licence; users bring it as one ``.npz`` file.

Reference:
    Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.errors import DatasetError, UsageError

# The file's centimetres, y up and z to the viewer, in mm, y down and z away: a half turn about x.
_TO_MILLIMETRES = np.array([10, -10, -10], np.float32)


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

    def __post_init__(self) -> None:
        vertices = len(self.neutral)
        shapes = {
            "neutral": (vertices, 3),
            "identity": (len(self.identity), vertices, 3),
            "expression": (len(self.expression_names), vertices, 3),
            "faces": (len(self.faces), 4),
            "landmarks68": (NUM_LANDMARKS,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise UsageError(f"{name!r} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise UsageError(f"{name!r} has numbers that are not finite")
        for name, least in (("faces", -1), ("landmarks68", 0)):
            indices = getattr(self, name)
            if indices.dtype.kind not in "iu" or indices.min() < least or indices.max() >= vertices:
                raise UsageError(f"{name!r} are not vertices from {least} to {vertices - 1}")


def read_ict_facekit(path: Path | str) -> ICTFaceKit:
    """Read the model's ``.npz`` file: centimetres, y up and z towards the viewer.

    Raises:
        DatasetError: if the file is missing, no ``.npz``, lacks an array of :class:`ICTFaceKit`, or
            its arrays do not belong together.
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
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; give ICT-FaceKit's .npz file") from None
    except KeyError as error:
        raise DatasetError(f"{path}: {error.args[0]}: not a file of ICT-FaceKit") from None
    except (OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a readable .npz file: {error}") from None
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None
