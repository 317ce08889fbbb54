"""The weights that a training starts from: random, or another training's."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import HOGHeadConfig, initial_weights, output_biases
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.core.provenance import pdm_of, provenance
from mlx_faceau.errors import CheckpointError
from mlx_faceau.weights import builtin

from .config import TrainConfig
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)


def load_init(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint that ``--init`` names, or None: a file, a folder's best, the built-in net's.

    CheckpointError is raised if its net is not the one that is trained.
    """
    if config.init is None:
        return None
    is_builtin = builtin.is_builtin(config.init)
    checkpoint = load_checkpoint(builtin.checkpoint_of(config.kind) if is_builtin else config.init)
    given, wanted = checkpoint.config, config.model_config()  # their dropout may differ
    if given.kind != wanted.kind:
        raise CheckpointError(
            f"{checkpoint.path}: holds a net of kind {given.kind}, expected {wanted.kind}; "
            "name one of the same net with --init"
        )
    if isinstance(given, HOGHeadConfig):
        raise CheckpointError(
            f"{checkpoint.path}: a HOG head is not trained; name the training it was made from"
        )
    if given.width_mult != wanted.width_mult:
        raise CheckpointError(
            f"{checkpoint.path}: its net has width {given.width_mult:g}, this training's "
            f"{wanted.width_mult:g}; use --width-mult {given.width_mult:g}"
        )
    return checkpoint


def origin_of(init: Checkpoint | None) -> dict[str, Any] | None:
    """What checkpoints and the history record of the weights; None for random ones.

    The ``file`` that they come from, its ``hash``, and its own training's ``data``, ``training``
    and ``init`` (see core/provenance.py).
    """
    if init is None:
        return None
    return {**provenance(init.metadata), "file": str(init.path), "hash": init.hash}


def first_weights(
    config: TrainConfig,
    init: Checkpoint | None,
    statistics: TargetStatistics,
    pdm: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Random weights by the seed, or those of a checkpoint: averaged ones where it has any.

    Random weights predict nearly the mean targets before the first step.
    Shape parameters have a meaning only with the PDM of their labels: the local head of a net that
    was trained with another one than ``pdm`` (its ``name`` and ``hash``) starts anew.
    """
    net = config.trained_config()
    fresh = initial_weights(net, config.seed)
    biases = output_biases(net, statistics.means)
    if init is None:
        return {**fresh, **biases}
    auxiliary = {
        name: array
        for name, array in auxiliary_weights(init.arrays).items()
        if name in fresh and array.shape == fresh[name].shape
    }
    weights = {**fresh, **auxiliary, **init.weights()}
    before = pdm_of(init.metadata)
    if config.kind == "landmark_pose" and before and before != pdm:
        now = f"the {pdm['name']} one" if pdm else "none that is recorded"
        _LOG.warning(
            "%s was trained with the %s PDM, these labels come with %s: its local head starts "
            "from random weights",
            *(init.path, before["name"], now),
        )
        fresh |= biases
        weights |= {name: fresh[name] for name in fresh if name.startswith("local_head.")}
    return weights
