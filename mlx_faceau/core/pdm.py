"""The point distribution model (PDM): OpenFace's text format, 3-d shapes, and fitting to landmarks.

A shape is ``mean + basis @ local_params`` in millimetres;
:func:`mlx_faceau.core.geometry.project` draws it. The package has the open PDM; users bring
others (OpenFace's ``In-the-wild_aligned_PDM_68.txt``).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError, UsageError

from .atomic_io import atomic_file
from .geometry import euler_to_matrix, matrix_to_euler, project

# 68 points and 34 modes of ICT-FaceKit's heads: mlx_faceau.data.labels.open_pdm builds it.
OPEN_PDM = Path(__file__).parents[1] / "weights" / "open_pdm.txt"
# Pixels of the 112 px crop: the noise at which the open PDM's fit to MediaPipe's points leaves that
# much and shapes vary as the variances say (benchmarks/results/open-pdm.csv).
OPEN_PDM_NOISE = 0.5

_MAX_POINTS = 10_000
_MAX_MODES = 1_000
_MAX_BYTES = 64 << 20
_MOST_STEPS = 50  # of each stage of a fit
_MOST_DAMPING = 1e6  # a face that no step improves ends here
_CONVERGED = 1e-12  # of the cost
_FACES_AT_ONCE = 256  # whose derivatives take 11 MB
_DOUBLE = 6  # OpenCV's code of the only element type that the format uses


@dataclass(frozen=True)
class PDM:
    """A point distribution model."""

    mean: np.ndarray  # (P, 3) mm
    basis: np.ndarray  # (P, 3, K) deformation modes, orthonormal over all 3 P coordinates
    variances: np.ndarray  # (K,) of the modes' parameters, all positive

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
    with its rows, columns and OpenCV's element type (6, double). Sizes are checked before anything
    is allocated; a file that is no PDM raises DatasetError.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DatasetError(f"{path}: {size} bytes, too many for a PDM (about one million)")
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a text file") from None
    words = (w for line in lines if not line.lstrip().startswith("#") for w in line.split())
    mean = _matrix(words, path, "mean", 3 * _MAX_POINTS, 1)
    if len(mean) % 3:
        raise DatasetError(f"{path}: the mean has {len(mean)} rows, not a multiple of 3")
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


def _matrix(words: Iterator[str], path: Path, name: str, rows: int, columns: int) -> np.ndarray:
    try:
        height, width, kind = (int(next(words)) for _ in range(3))
    except (RuntimeError, StopIteration, ValueError):
        raise DatasetError(f"{path}: no rows, columns and type before the {name}") from None
    if kind != _DOUBLE or not (0 < height <= rows and 0 < width <= columns):
        raise DatasetError(
            f"{path}: the {name} is declared as {height} x {width} of type {kind}, expected at "
            f"most {rows} x {columns} of type {_DOUBLE}"
        )
    size = height * width
    values = list(islice(words, size))
    if len(values) < size:
        raise DatasetError(f"{path}: cut short: the {name} has {len(values)} of {size} numbers")
    try:
        return np.array(values, np.float64).reshape(height, width)
    except ValueError as error:
        raise DatasetError(f"{path}: the {name}: {error}") from None


@dataclass(frozen=True)
class Fit:
    """PDM parameters of landmarks."""

    global_params: np.ndarray  # (..., 6) scale, rx, ry, rz, tx, ty
    local_params: np.ndarray  # (..., K)
    error: np.ndarray  # (...) mean distance of the projection to the landmarks, px


def fit_pdm(
    pdm: PDM, landmarks: np.ndarray, noise: float = 1.0, start: np.ndarray | None = None
) -> Fit:
    """PDM parameters whose projection meets the landmarks: regularised Gauss-Newton.

    Minimises the squared distances / noise^2 plus local^2 / variance: the most probable shape for
    landmarks with independent errors of ``noise`` pixels. Without a start the rigid part is solved
    first. Many faces at once take a sixth of the time that they take one by one.

    Args:
        pdm: the model.
        landmarks: (..., P, 2) px.
        noise: standard deviation of a landmark's coordinates, px; small values trust them more.
        start: (..., 6) initial global parameters, where they are known.

    Raises:
        ValueError: if the landmarks are not finite, all in one place or of another number, or the
            start is not finite or has no positive scale.

    Reference:
        Baltrusaitis, Robinson, Morency, Constrained local neural fields for robust facial landmark
        detection in the wild, ICCV Workshops 2013 (the regularised update).
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape[-2:] != (len(pdm.mean), 2):
        raise UsageError(f"landmarks have shape {points.shape}, expected ({len(pdm.mean)}, 2)")
    if not (np.isfinite(points).all() and (np.ptp(points, axis=-2).max(axis=-1) > 0).all()):
        raise UsageError("landmarks are not finite, or all in one place")
    leading = points.shape[:-2]
    points = points.reshape(-1, *points.shape[-2:])
    if start is None:
        params = _first_guess(pdm, points)
    else:
        params = np.array(start, np.float64)
        usable = np.isfinite(params).all() and (params[..., :1] > 0).all()
        if params.shape != (*leading, 6) or not usable:
            raise UsageError(
                f"start is {params.tolist()}, expected six numbers, the first positive"
            )
        params = params.reshape(-1, 6)
    local = np.zeros((len(points), len(pdm.variances)))
    for modes in (0, len(pdm.variances)) if start is None else (len(pdm.variances),):
        for first in range(0, len(points), _FACES_AT_ONCE):
            part = slice(first, first + _FACES_AT_ONCE)
            _descend(pdm, points[part], params[part], local[part], modes, noise)
    found = project(pdm.mean, pdm.basis, params, local)
    error = np.linalg.norm(found - points, axis=-1).mean(axis=-1)
    return Fit(
        params.reshape(*leading, 6),
        local.reshape(*leading, local.shape[1]),
        error.reshape(leading)[()],
    )


def _first_guess(pdm: PDM, points: np.ndarray) -> np.ndarray:
    """Frontal faces of the right size, roll and place: the mean shape's best similarities."""
    flat = pdm.mean[:, :2] - pdm.mean[:, :2].mean(axis=0)
    centred = points - points.mean(axis=1, keepdims=True)
    a = (flat * centred).sum(axis=(1, 2))
    b = (flat[:, 0] * centred[..., 1] - flat[:, 1] * centred[..., 0]).sum(axis=1)
    start = np.zeros((len(points), 6))
    start[:, 0] = np.hypot(a, b) / (flat**2).sum()
    start[:, 3] = np.arctan2(b, a)
    drawn = project(pdm.mean, pdm.basis, start, np.zeros((len(points), len(pdm.variances))))
    start[:, 4:] = (points - drawn).mean(axis=1)
    return start


def _descend(
    pdm: PDM, points: np.ndarray, params: np.ndarray, local: np.ndarray, modes: int, noise: float
) -> None:
    """Gauss-Newton on the global and the first ``modes`` local parameters, which it changes.

    Every face has its own damping (Levenberg 1944) and ends by itself; each step descends.
    """
    cost = _cost(pdm, points, params, local, noise)
    damping = np.full(len(points), 1e-6)
    active = np.arange(len(points))
    prior = np.r_[np.zeros(6), noise**2 / pdm.variances[:modes]]
    diagonal = np.arange(6 + modes)
    for _ in range(_MOST_STEPS):
        seen, old, shape = points[active], params[active], local[active]
        residual = (seen - project(pdm.mean, pdm.basis, old, shape)).reshape(len(active), -1, 1)
        jacobian = _jacobian(pdm, old, shape, modes)
        transposed = jacobian.transpose(0, 2, 1)
        gradient = transposed @ residual
        gradient[:, 6:, 0] -= prior[6:] * shape[:, :modes]
        normal = transposed @ jacobian
        normal[:, diagonal, diagonal] += prior
        normal[:, diagonal, diagonal] *= 1 + damping[active, None]
        step = np.linalg.solve(normal, gradient)[..., 0]
        new, new_shape = old.copy(), shape.copy()
        new[:, [0, 4, 5]] += step[:, [0, 4, 5]]
        turn = euler_to_matrix(step[:, 1:4])
        new[:, 1:4] = matrix_to_euler(turn @ euler_to_matrix(old[:, 1:4]))
        new_shape[:, :modes] += step[:, 6:]
        new_cost = _cost(pdm, seen, new, new_shape, noise)
        better = (new[:, 0] > 0) & (new_cost <= cost[active])
        converged = better & (cost[active] - new_cost <= _CONVERGED * (cost[active] + _CONVERGED))
        moved = active[better]
        params[moved], local[moved], cost[moved] = new[better], new_shape[better], new_cost[better]
        damping[active] *= np.where(better, 0.1, 10.0)
        active = active[~converged & (damping[active] <= _MOST_DAMPING)]
        if not len(active):
            break


def _cost(
    pdm: PDM, points: np.ndarray, params: np.ndarray, local: np.ndarray, noise: float
) -> np.ndarray:
    misses = points - project(pdm.mean, pdm.basis, params, local)
    prior = (local**2 / pdm.variances).sum(axis=1)
    return np.asarray((misses**2).sum(axis=(1, 2)) + noise**2 * prior)


def _jacobian(pdm: PDM, params: np.ndarray, local: np.ndarray, modes: int) -> np.ndarray:
    """Derivatives (N, 2 P, 6 + modes) of the projection; rotations are small turns after R."""
    scale, rotation = params[:, :1], euler_to_matrix(params[:, 1:4])
    shape = pdm.mean + np.tensordot(local, pdm.basis, (1, 2))
    x, y, z = np.moveaxis(shape @ rotation.transpose(0, 2, 1), 2, 0)  # (N, P) each
    points = x.shape[1]
    jacobian = np.zeros((len(params), points, 2, 6 + modes))
    jacobian[..., 0] = np.stack([x, y], axis=2)
    jacobian[:, :, 1, 1] = -scale * z
    jacobian[:, :, 0, 2] = scale * z
    jacobian[..., 3] = scale[..., None] * np.stack([-y, x], axis=2)
    jacobian[:, :, 0, 4] = jacobian[:, :, 1, 5] = 1
    basis = pdm.basis[:, :, :modes].transpose(1, 0, 2).reshape(3, -1)
    turned = (scale[..., None] * rotation[:, :2] @ basis).reshape(len(params), 2, points, modes)
    jacobian[..., 6:] = turned.transpose(0, 2, 1, 3)
    return jacobian.reshape(len(params), 2 * points, 6 + modes)
