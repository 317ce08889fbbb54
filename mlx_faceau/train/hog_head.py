"""Action units from gradients of the aligned face, of a net that learned OpenFace's labels.

A training with an auxiliary head (``--auxiliary-weight``) leaves in its checkpoint all that it
takes: the linear models of the labels, and a head that finds the landmarks and shape parameters
which these ask for. Together they are nearer to OpenFace's own numbers than the 17 outputs of the
net, which have to learn the gradients through the pixels.
"""

import numpy as np

from mlx_faceau.core.architectures import HOGHeadConfig, ModelConfig
from mlx_faceau.core.auxiliary_head import HEAD_NAME, auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, check_weights
from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.core.hog import UNIT, to_units
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.data.labels.openface_au_models import shape_scale
from mlx_faceau.errors import CheckpointError

from .batch_transforms import target_scale
from .run import au_models_of
from .target_statistics import TargetStatistics


def with_hog_head(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Settings and weights (MLX names and layout) of a checkpoint's net with a HOG head.

    CheckpointError is raised if it is no training of action units with an auxiliary head, or one
    of a version before the HOG head.
    """
    auxiliary = auxiliary_weights(checkpoint.arrays)
    models = au_models_of(checkpoint) if auxiliary else None
    if models is None:
        raise CheckpointError(
            f"{checkpoint.path}: lacks the labels' models that a HOG head takes; name a training "
            "of 'train au --auxiliary-weight', by this version or a later one"
        )
    points, modes = 2 * NUM_LANDMARKS, len(models.pdm.variances)
    statistics = TargetStatistics.from_json(
        checkpoint.metadata.get("target_statistics") or {},
        checkpoint.path,
        {"landmarks": (NUM_LANDMARKS, 2), "local_params": (modes,)},
    )
    # The auxiliary head's targets as landmarks in units, and as shape parameters among features.
    shape = shape_scale(models.pdm)
    first = np.concatenate(
        [
            to_units(statistics.means["landmarks"].ravel()),
            statistics.means["local_params"] * shape,
        ]
    )
    scale = np.concatenate(
        [
            statistics.deviations["landmarks"].ravel() * target_scale(points) / UNIT,
            statistics.deviations["local_params"] * shape * target_scale(modes),
        ]
    )
    weight = auxiliary[f"{HEAD_NAME}.layers.0.weight"][: points + modes]
    bias = auxiliary[f"{HEAD_NAME}.layers.0.bias"][: points + modes]
    linear = models.weights[:, :NUM_AUS]
    weights = {
        **{n: a for n, a in checkpoint.weights().items() if n.startswith("backbone.")},
        "geometry_head.layers.0.weight": weight * scale[:, None],
        "geometry_head.layers.0.bias": bias * scale + first,
        "hog_head.layers.0.weight": linear.T,
        "hog_head.layers.0.bias": models.means[:NUM_AUS] - models.centre @ linear,
        **{f"hog.{name}": array for name, array in models.alignment.items()},
    }
    config = HOGHeadConfig(checkpoint.config.width_mult, checkpoint.config.dropout)
    weights = {n: np.ascontiguousarray(a, np.float32) for n, a in weights.items()}
    check_weights(config, weights, checkpoint.path)
    return config, weights
