"""The point distribution model (PDM): OpenFace's text format, 3-d shapes, and fitting to landmarks.

A shape is ``mean + basis @ local_params`` in millimetres;
:func:`mlx_faceau.core.geometry.project` draws it. Users bring the file
(OpenFace's ``In-the-wild_aligned_PDM_68.txt`` or another of its kind).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError

from .atomic_io import atomic_file
from .geometry import euler_to_matrix, matrix_to_euler, project

_MAX_POINTS = 10_000
_MAX_MODES = 1_000
_MAX_BYTES = 64 << 20
_MOST_STEPS = 50  # of each stage of a fit
_DOUBLE = 6  # OpenCV's code of the only element type that the format uses


@dataclass(frozen=True)
class PDM:
    """A point distribution model.

    Args:
        mean: (P, 3) mm.
        basis: (P, 3, K) deformation modes, orthonormal over all 3 P coordinates.
        variances: (K,) of the modes' parameters, all positive.
    """

    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the numbers: of one model, however its text file is laid out."""
        parts = (self.mean, self.basis, self.variances)
        return hashlib.sha256(b"".join(part.astype("<f8").tobytes() for part in parts)).hexdigest()

    def shape(self, local_params: np.ndarray) -> np.ndarray:
        """(P, 3) mm of (K,) local parameters."""
        return np.asarray(self.mean + self.basis @ np.asarray(local_params, np.float64))


def read_pdm(path: Path | str) -> PDM:
    """Read a PDM in OpenFace's text format.

    Lines that start with ``#`` or are blank mean nothing. Three matrices follow each other: the
    mean (3 P x 1: all x, all y, all z), the basis (3 P x K) and the variances (1 x K); each begins
    with its rows, columns and OpenCV's element type (6, double).

    Raises:
        DatasetError: if the file is missing, too large, cut short, or its matrices do not belong
            together. Sizes are checked before anything is allocated.
    """
    path = Path(path)
    words = _words(_text(path))
    mean = _matrix(words, path, "mean", 3 * _MAX_POINTS, 1)
    if len(mean) % 3:
        raise DatasetError(f"{path}: the mean has {len(mean)} rows, no multiple of 3")
    basis = _matrix(words, path, "basis", len(mean), _MAX_MODES)
    variances = _matrix(words, path, "variances", 1, _MAX_MODES)
    if len(basis) != len(mean) or variances.shape != (1, basis.shape[1]):
        raise DatasetError(
            f"{path}: mean {mean.shape}, basis {basis.shape} and variances {variances.shape} "
            "do not belong together"
        )
    finite = all(np.isfinite(matrix).all() for matrix in (mean, basis, variances))
    if not finite or not (variances > 0).all():
        raise DatasetError(
            f"{path}: numbers that are not finite, or variances that are not positive"
        )
    points = len(mean) // 3
    return PDM(
        mean.reshape(3, points).T.copy(),
        basis.reshape(3, points, -1).transpose(1, 0, 2).copy(),
        variances[0],
    )


def write_pdm(path: Path | str, pdm: PDM) -> None:
    """Write a PDM in the format of :func:`read_pdm`."""
    blocks = {
        "mean, 3 P x 1": pdm.mean.T.reshape(-1, 1),
        "basis, 3 P x K": pdm.basis.transpose(1, 0, 2).reshape(-1, pdm.basis.shape[2]),
        "variances, 1 x K": pdm.variances[None],
    }
    lines = []
    for title, matrix in blocks.items():
        lines += [f"# {title}", str(matrix.shape[0]), str(matrix.shape[1]), str(_DOUBLE)]
        lines += [" ".join(repr(float(value)) for value in row) for row in matrix]
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DatasetError(f"{path}: {size} bytes is no PDM; they have about one million")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a text file") from None


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            yield from line.split()


def _matrix(words: Iterator[str], path: Path, name: str, rows: int, columns: int) -> np.ndarray:
    try:
        height, width, kind = (int(next(words)) for _ in range(3))
    except (RuntimeError, StopIteration, ValueError):
        raise DatasetError(f"{path}: no rows, columns and type before the {name}") from None
    if kind != _DOUBLE or not (0 < height <= rows and 0 < width <= columns):
        raise DatasetError(
            f"{path}: the {name} is said to be {height} x {width} of type {kind}, expected at "
            f"most {rows} x {columns} of type {_DOUBLE}"
        )
    values = []
    try:
        for _ in range(height * width):
            values.append(float(next(words)))
    except StopIteration:
        raise DatasetError(
            f"{path}: cut short: the {name} has {len(values)} of {height * width} numbers"
        ) from None
    except ValueError as error:
        raise DatasetError(f"{path}: the {name}: {error}") from None
    return np.array(values).reshape(height, width)


@dataclass(frozen=True)
class Fit:
    """PDM parameters of landmarks.

    Args:
        global_params: (6,) scale, rx, ry, rz, tx, ty.
        local_params: (K,).
        error: mean distance of the projection to the landmarks, px.
    """

    global_params: np.ndarray
    local_params: np.ndarray
    error: float


def fit_pdm(
    pdm: PDM, landmarks: np.ndarray, noise: float = 1.0, start: np.ndarray | None = None
) -> Fit:
    """PDM parameters whose projection meets the landmarks: regularised Gauss-Newton.

    Minimises the squared distances / noise^2 plus local^2 / variance: the most probable shape for
    landmarks with independent errors of ``noise`` pixels. Without a start the rigid part is solved
    first.

    Args:
        pdm: the model, of the same number of points.
        landmarks: (P, 2) px.
        noise: standard deviation of a landmark's coordinates, px; small values trust them more.
        start: (6,) global parameters near the answer, where they are known.

    Raises:
        ValueError: if the landmarks are not finite, all in one place, or of another number, or the
            start is not finite or has no positive scale.

    Reference:
        Baltrusaitis, Robinson, Morency, Constrained local neural fields for robust facial landmark
        detection in the wild, ICCV Workshops 2013 (the regularised update).
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (len(pdm.mean), 2):
        raise ValueError(f"landmarks have shape {points.shape}, expected ({len(pdm.mean)}, 2)")
    extent = np.ptp(points, axis=0)
    if not (np.isfinite(points).all() and extent.max() > 0):
        raise ValueError("landmarks are not finite, or all in one place")
    params = _first_guess(pdm, points) if start is None else _checked(start)
    local = np.zeros(len(pdm.variances))
    for modes in (0, len(local)) if start is None else (len(local),):
        params, local = _descend(pdm, points, params, local, modes, noise)
    found = project(pdm.mean, pdm.basis, params, local)
    error = float(np.linalg.norm(found - points, axis=1).mean())
    return Fit(params, local, error)


def _checked(start: np.ndarray) -> np.ndarray:
    params = np.asarray(start, np.float64)
    if params.shape != (6,) or not (np.isfinite(params).all() and params[0] > 0):
        raise ValueError(f"start is {params.tolist()}, expected six numbers, the first positive")
    return params


def _first_guess(pdm: PDM, points: np.ndarray) -> np.ndarray:
    """A frontal face of the right size, roll and place: the best similarity of the mean shape."""
    flat = pdm.mean[:, :2] - pdm.mean[:, :2].mean(axis=0)
    centred = points - points.mean(axis=0)
    a = float((flat * centred).sum())
    b = float((flat[:, 0] * centred[:, 1] - flat[:, 1] * centred[:, 0]).sum())
    scale, roll = np.hypot(a, b) / (flat**2).sum(), np.arctan2(b, a)
    start = np.array([scale, 0.0, 0.0, roll, 0.0, 0.0])
    drawn = project(pdm.mean, pdm.basis, start, np.zeros(len(pdm.variances)))
    start[4:] = points.mean(axis=0) - drawn.mean(axis=0)
    return start


def _descend(
    pdm: PDM, points: np.ndarray, params: np.ndarray, local: np.ndarray, modes: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton on the global and the first ``modes`` local parameters; each step descends."""
    damping = 1e-6
    prior = np.r_[np.zeros(6), noise**2 / pdm.variances[:modes]]
    cost = _cost(pdm, points, params, local, noise)
    for _ in range(_MOST_STEPS):
        residual = (points - project(pdm.mean, pdm.basis, params, local)).ravel()
        jacobian = _jacobian(pdm, params, local, modes)
        gradient = jacobian.T @ residual - prior * np.r_[np.zeros(6), local[:modes]]
        normal = jacobian.T @ jacobian + np.diag(prior)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
        new_params, new_local = _moved(params, local, step, modes)
        new_cost = _cost(pdm, points, new_params, new_local, noise)
        if new_params[0] <= 0 or new_cost > cost:
            damping *= 10
            if damping > 1e6:
                break
            continue
        converged = cost - new_cost <= 1e-12 * (cost + 1e-12)
        params, local, cost, damping = new_params, new_local, new_cost, damping / 10
        if converged:
            break
    return params, local


def _cost(
    pdm: PDM, points: np.ndarray, params: np.ndarray, local: np.ndarray, noise: float
) -> float:
    misses = points - project(pdm.mean, pdm.basis, params, local)
    return float((misses**2).sum() + noise**2 * (local**2 / pdm.variances).sum())


def _jacobian(pdm: PDM, params: np.ndarray, local: np.ndarray, modes: int) -> np.ndarray:
    """Derivatives (2 P, 6 + modes) of the projection; rotations are small turns after R."""
    scale, rotation = params[0], euler_to_matrix(params[1:4])
    turned = pdm.shape(local) @ rotation.T  # (P, 3)
    x, y, z = turned.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    columns = [
        np.stack([x, y], axis=1),
        scale * np.stack([zero, -z], axis=1),
        scale * np.stack([z, zero], axis=1),
        scale * np.stack([-y, x], axis=1),
        np.stack([one, zero], axis=1),
        np.stack([zero, one], axis=1),
    ]
    rigid = np.stack(columns, axis=-1).reshape(-1, 6)
    flexible = scale * np.einsum("ij,pjk->pik", rotation[:2], pdm.basis[:, :, :modes])
    return np.concatenate([rigid, flexible.reshape(len(rigid), modes)], axis=1)


def _moved(
    params: np.ndarray, local: np.ndarray, step: np.ndarray, modes: int
) -> tuple[np.ndarray, np.ndarray]:
    turn = euler_to_matrix(step[1:4])
    moved = params + np.r_[step[0], 0, 0, 0, step[4:6]]
    moved[1:4] = matrix_to_euler(turn @ euler_to_matrix(params[1:4]))
    shifted = local.copy()
    shifted[:modes] += step[6:]
    return moved, shifted
