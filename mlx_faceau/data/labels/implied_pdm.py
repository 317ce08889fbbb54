"""The shape model of a file's labels, recovered from landmarks and PDM parameters of many faces.

Landmarks of a labeller that fits a PDM are its projections, which are linear in mean and basis.
"""

import numpy as np

from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import DatasetError

_MAX_ERROR = 0.5  # px, rms: labels of a PDM have far less, any others have pixels
_EQUATIONS = 4  # for each unknown, at least
_MIN_VARIANCE = 1e-9  # of a constant mode


def implied_pdm(landmarks: np.ndarray, global_params: np.ndarray, local_params: np.ndarray) -> PDM:
    """Recover the PDM whose projections the landmarks are, by linear least squares.

    Args:
        landmarks: (N, 68, 2) px.
        global_params: (N, 6) scale, rx, ry, rz, tx, ty of the same faces.
        local_params: (N, 34).

    Returns:
        Mean and basis in mm; the variances are those of the faces' parameters.

    Raises:
        DatasetError: if the faces are too few, or their landmarks are no projections.
    """
    count, modes = local_params.shape
    unknowns = 3 * (1 + modes)
    if 2 * count < _EQUATIONS * unknowns:
        raise DatasetError(
            f"{count} faces with usable PDM parameters are too few to recover their shape model; "
            f"it takes {_EQUATIONS * unknowns // 2}"
        )
    params = np.asarray(global_params, np.float64)
    views = params[:, :1, None] * np.stack(
        [euler_to_matrix(angles)[:2] for angles in params[:, 1:4]]
    )
    # Around their mean: the mean shape absorbs a constant mode.
    local = np.asarray(local_params, np.float64)
    centre = local.mean(axis=0)
    shapes = np.concatenate([np.ones((count, 1)), local - centre], axis=1)
    # (2 N, 3 (1 + K)): the projection of mean and modes along each axis
    design = np.einsum("nia,nk->niak", views, shapes).reshape(2 * count, unknowns)
    observed = (landmarks - params[:, None, 4:6]).transpose(0, 2, 1).reshape(2 * count, -1)
    found = np.linalg.lstsq(design, observed, rcond=None)[0]
    error = float(np.sqrt(np.mean((design @ found - observed) ** 2)))
    if not error < _MAX_ERROR:
        raise DatasetError(
            f"landmarks differ from the projection of their PDM parameters by {error:.2g} px, so "
            f"they are of no shape model (below {_MAX_ERROR} px expected)"
        )
    model = found.T.reshape(-1, 3, 1 + modes)
    basis = np.ascontiguousarray(model[..., 1:])  # as a checkpoint restores it, bit for bit
    variances = np.maximum(local.var(axis=0), _MIN_VARIANCE)
    return PDM(model[..., 0] - basis @ centre, basis, variances)
