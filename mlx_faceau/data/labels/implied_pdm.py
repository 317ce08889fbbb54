"""The shape model behind a file's labels: landmarks and PDM parameters of many faces imply it.

Landmarks of a labeller that fits a PDM are its projections, which are linear in mean and basis.
"""

import numpy as np

from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import DatasetError

_LARGEST_MISS = 0.5  # px, rms: labels of a PDM miss by far less, of anything else by pixels
_ENOUGH = 4  # equations for each unknown
_LEAST_VARIANCE = 1e-9  # of a mode that never varies


def implied_pdm(landmarks: np.ndarray, global_params: np.ndarray, local_params: np.ndarray) -> PDM:
    """The PDM whose projections the landmarks are.

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
    if 2 * count < _ENOUGH * unknowns:
        raise DatasetError(
            f"{count} faces with usable PDM parameters are too few to find their shape model; "
            f"it takes {_ENOUGH * unknowns // 2}"
        )
    params = np.asarray(global_params, np.float64)
    views = params[:, :1, None] * np.stack(
        [euler_to_matrix(angles)[:2] for angles in params[:, 1:4]]
    )
    # Around their mean: of a mode that never varies, the mean shape has what there is of it.
    local = np.asarray(local_params, np.float64)
    usual = local.mean(axis=0)
    shapes = np.concatenate([np.ones((count, 1)), local - usual], axis=1)
    # (2 N, 3 (1 + K)): the projection of mean and modes along each axis
    seen = np.einsum("nia,nk->niak", views, shapes).reshape(2 * count, unknowns)
    wanted = (landmarks - params[:, None, 4:6]).transpose(0, 2, 1).reshape(2 * count, -1)
    found = np.linalg.lstsq(seen, wanted, rcond=None)[0]
    miss = float(np.sqrt(np.mean((seen @ found - wanted) ** 2)))
    if not miss < _LARGEST_MISS:
        raise DatasetError(
            f"landmarks miss the projection of their PDM parameters by {miss:.2g} px, so no shape "
            f"model is behind them (below {_LARGEST_MISS} px expected)"
        )
    model = found.T.reshape(-1, 3, 1 + modes)
    basis = np.ascontiguousarray(model[..., 1:])  # as a checkpoint gives it back, to the last bit
    variances = np.maximum(local.var(axis=0), _LEAST_VARIANCE)
    return PDM(model[..., 0] - basis @ usual, basis, variances)
