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
from mlx_faceau.data.labels.openface_au_models import VERSION, OpenFaceAUModels, shape_scale
from mlx_faceau.errors import CheckpointError

from .checkpoints import AU_MODELS
from .datasets import target_scale
from .target_statistics import TargetStatistics


def with_hog_head(checkpoint: Checkpoint) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Settings and weights (MLX names and layout) of a checkpoint's net with a HOG head.

    CheckpointError is raised if it is no training of action units with an auxiliary head, or one
    of a version whose models read other gradients.
    """
    models = required_models(checkpoint)
    auxiliary = auxiliary_weights(checkpoint.arrays)
    statistics = TargetStatistics.from_json(
        checkpoint.metadata.get("target_statistics") or {},
        checkpoint.path,
        {"landmarks": (NUM_LANDMARKS, 2), "local_params": (len(models.pdm.variances),)},
    )
    head = hog_head(models, statistics)
    outputs = len(head["scale"])
    weight = auxiliary[f"{HEAD_NAME}.layers.0.weight"][:outputs]
    bias = auxiliary[f"{HEAD_NAME}.layers.0.bias"][:outputs]
    weights = {
        **{n: a for n, a in checkpoint.weights().items() if n.startswith("backbone.")},
        "geometry_head.layers.0.weight": weight * head["scale"][:, None],
        "geometry_head.layers.0.bias": bias * head["scale"] + head["first"],
        "hog_head.layers.0.weight": head["linear.weight"].T,
        "hog_head.layers.0.bias": head["linear.bias"],
        **{f"hog.{name}": head[name] for name in models.alignment},
    }
    config = HOGHeadConfig(checkpoint.config.width_mult, checkpoint.config.dropout)
    weights = {n: np.ascontiguousarray(a, np.float32) for n, a in weights.items()}
    check_weights(config, weights, checkpoint.path)
    return config, weights


def required_models(checkpoint: Checkpoint) -> OpenFaceAUModels:
    """The labels' linear models of a checkpoint; CheckpointError as of :func:`with_hog_head`."""
    auxiliary = auxiliary_weights(checkpoint.arrays)
    models = au_models_of(checkpoint) if auxiliary else None
    if models is None:
        found = "has models of another version" if auxiliary else "lacks the labels' models"
        raise CheckpointError(
            f"{checkpoint.path}: {found}, which a HOG head takes; name a training of 'train au "
            "--auxiliary-weight', such as another epoch with --init"
        )
    return models


def hog_head(models: OpenFaceAUModels, statistics: TargetStatistics) -> dict[str, np.ndarray]:
    """What reads intensities off an auxiliary head's outputs and a face's gradients, by name.

    ``scale`` and ``first`` (170,) make the head's first outputs, standardised by ``statistics``,
    landmarks in units of core/hog.py and shape parameters as they are among the features;
    ``linear.weight`` (4464 + 34, 17) and ``linear.bias`` (17,) make features intensities;
    ``template``, ``shift.weight`` and ``shift.bias`` align the face.
    """
    points, modes = 2 * NUM_LANDMARKS, len(models.pdm.variances)
    shape = shape_scale(models.pdm)
    first = [
        to_units(statistics.means["landmarks"].ravel()),
        statistics.means["local_params"] * shape,
    ]
    scale = [
        statistics.deviations["landmarks"].ravel() * target_scale(points) / UNIT,
        statistics.deviations["local_params"] * shape * target_scale(modes),
    ]
    linear = models.weights[:, :NUM_AUS]
    arrays = {
        "first": np.concatenate(first),
        "scale": np.concatenate(scale),
        "linear.weight": linear,
        "linear.bias": models.means[:NUM_AUS] - models.centre @ linear,
        **models.alignment,
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def au_models_of(checkpoint: Checkpoint) -> OpenFaceAUModels | None:
    """The labels' linear models of a training; None for those that read other features.

    CheckpointError is raised if it has none, or not all arrays.
    """
    arrays = checkpoint.section(AU_MODELS)
    if "centre" in arrays and not np.array_equal(arrays.get("version", []), [VERSION]):
        return None
    try:
        return OpenFaceAUModels.from_arrays(arrays)
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: lacks {AU_MODELS}{error.args[0]}") from None
