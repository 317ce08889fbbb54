"""ICT-FaceKit, and the open PDM: 68 points and 34 modes, learned from sampled heads of it.

Users bring ICT-FaceKit, which is under the MIT licence, as one ``.npz`` file: a neutral head, its
identity components and its FACS-like expression shapes. Heads of random identity and expression are
sampled, aligned rigidly and decomposed (PCA). Nothing is fitted to labels of OpenFace; the choice
of vertices alone uses MediaPipe's points.

References:
    Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020.
    Cootes et al., Active shape models: their training and application, CVIU 1995.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core.landmarks import MIRROR, NUM_LANDMARKS
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import DatasetError

from .facs_reading import rotation_and_scale

NUM_MODES = 34
# Vertices of ICT-FaceKit that lie where MediaPipe puts the 68 points on photographs:
# found by a script of commit b175419, ``benchmarks/ict_vertices.py``.
OPEN_VERTICES = np.array(
    [
        *(1885, 1889, 1051, 376, 1900, 763, 1673, 801, 966),  # jaw
        *(3042, 3880, 3004, 4100, 2617, 3271, 4089, 4085),
        *(270, 287, 482, 1417, 2006, 4206, 3631, 2723, 2528, 2511),  # brows
        *(977, 1348, 4839, 4857, 1139, 2088, 4558, 4282, 3359),  # nose
        *(981, 688, 637, 891, 1518, 1552, 3132, 2878, 2929, 3201, 3766, 3732),  # eyes
        *(5708, 5692, 6043, 5525, 6547, 6197, 6213, 6375, 6480, 5518, 5976, 5870),  # outer mouth
        *(5597, 6037, 5526, 6541, 6102, 6513, 5517, 6009),  # inner mouth
    ]
)
# Temples, nose, corners of the eyes: heads are aligned by what neither expression nor chin moves.
STABLE_POINTS = np.array([0, 1, 15, 16, 27, 28, 29, 30, 31, 35, 36, 39, 42, 45])
_NEGATIVE = (20, 21, 25)  # modes whose largest entry of the right half is negative
_SAMPLES = 6000
_ALIGNMENTS = 3  # rounds, of which the last moves the mean by less than a micrometre
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
        raise DatasetError(f"{path}: not an .npz file of ICT-FaceKit: {error}") from None


def build_open_pdm(model: ICTFaceKit, vertices: np.ndarray = OPEN_VERTICES, seed: int = 0) -> PDM:
    """A PDM of sampled heads, rounded as its file stores it.

    6,000 heads and their mirror images. Identity coefficients are standard normal, expressions
    those of :func:`sample_expressions`. Every neutral head is turned and shifted, not scaled, onto
    the mean one by its temples, nose and eye corners; its expression turns with it. So the modes
    hold no pose, an open jaw does not nod the head, and rotation 0 is that of the mean head.

    It has 68 points in mm around their centre, exactly symmetric, one for each of the vertices
    (68,), and 34 modes by falling variance, each either even or odd under mirroring as far as their
    variances differ.
    """
    generator = np.random.default_rng(seed)
    coefficients = generator.normal(size=(_SAMPLES, len(model.identity)))
    amounts = sample_expressions(model.expression_names, _SAMPLES, generator)
    identity, expression = (
        np.tensordot(weights, shapes[:, vertices].astype(np.float64), 1)
        for weights, shapes in ((coefficients, model.identity), (amounts, model.expression))
    )
    neutral, expression = (
        np.concatenate([shapes, shapes[:, MIRROR] * [-1, 1, 1]])
        for shapes in (model.neutral[vertices] + identity, expression)
    )
    neutral -= neutral[:, STABLE_POINTS].mean(axis=1, keepdims=True)
    mean = neutral.mean(axis=0)
    for _ in range(_ALIGNMENTS):
        stable = mean[STABLE_POINTS] - mean[STABLE_POINTS].mean(axis=0)
        turns, _ = rotation_and_scale(neutral[:, STABLE_POINTS], stable)
        mean = (neutral @ turns).mean(axis=0)
    shapes = (neutral + expression) @ turns
    mean = shapes.mean(axis=0)
    spread = (shapes - mean).reshape(len(shapes), -1)
    variances, modes = np.linalg.eigh(spread.T @ spread / len(spread))
    variances, modes = variances[: -NUM_MODES - 1 : -1], modes[:, : -NUM_MODES - 1 : -1]
    modes = modes.reshape(NUM_LANDMARKS, 3, NUM_MODES)
    # Eigenvectors have no sign: the file's come from the largest entry of one half of the face,
    # since entries of mirror points are equally large.
    half = modes[np.arange(NUM_LANDMARKS) <= MIRROR].reshape(-1, NUM_MODES)
    signs = np.sign(half[np.abs(half).argmax(axis=0), np.arange(NUM_MODES)])
    signs[list(_NEGATIVE)] *= -1
    mean -= mean.mean(axis=0)
    return PDM(np.round(mean, 4), np.round(modes * signs, 6), np.round(variances, 4))


def sample_expressions(
    names: tuple[str, ...], count: int, generator: np.random.Generator
) -> np.ndarray:
    """Random amounts of ICT-FaceKit's expression shapes: sparse, non-negative, mostly symmetric.

    Each shape, or pair of left and right, takes part in a fifth of the heads with the square of a
    uniform amount; those of brows, lids, cheeks and nose, which are small beside the jaw's, in half
    of the heads with a uniform one. Of a pair, 15 % move on the left alone, 15 % on the right
    alone, the rest on both sides with amounts that differ by 20 % (standard deviation).
    ``mouthClose``, which closes the lips of an open jaw, is multiplied by ``jawOpen``. It returns
    (count, E) float64 in [0, 1] for the E names.
    """
    amounts = np.zeros((count, len(names)))
    pairs: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        pairs.setdefault(name.removesuffix("_L").removesuffix("_R"), []).append(column)
    for name, columns in pairs.items():
        amount = generator.uniform(size=count)
        if name.startswith(("brow", "eye", "cheekRaiser", "cheekSquint", "nose")):
            amount = amount * (generator.uniform(size=count) < 0.5)
        else:
            amount = amount**2 * (generator.uniform(size=count) < 0.2)
        amounts[:, columns] = amount[:, None]
        if len(columns) == 2:
            side = generator.uniform(size=count)
            tilt = generator.normal(0, 0.1, count)
            weights = np.stack([(1 + tilt) * (side > 0.15), (1 - tilt) * (side < 0.85)], axis=1)
            amounts[:, columns] = np.clip(amounts[:, columns] * weights, 0, 1)
    if "mouthClose" in names:
        amounts[:, names.index("mouthClose")] *= amounts[:, names.index("jawOpen")]
    return amounts
