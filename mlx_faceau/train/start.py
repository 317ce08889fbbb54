"""The weights that a training starts from: drawn at random, or another training's."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import ModelConfig, initial_weights, output_biases
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.core.provenance import provenance
from mlx_faceau.errors import CheckpointError

from .config import TrainConfig
from .options import flag
from .targets import TargetStatistics


@dataclass(frozen=True)
class Start:
    """A net before its first step.

    Attributes:
        weights: in MLX names and layout.
        origin: the ``file`` they come from, its ``hash``, and its own training's ``data``,
            ``training`` and ``init`` where it records them (see
            :mod:`mlx_faceau.core.provenance`): what checkpoints and the history record. None for
            weights drawn at random.
    """

    weights: dict[str, np.ndarray]
    origin: dict[str, Any] | None = None


def first_weights(config: TrainConfig, statistics: TargetStatistics) -> Start:
    """Weights by the seed, or those that ``--init`` names: averaged ones where it has any.

    Raises:
        CheckpointError: if that file is no checkpoint, or of another net or width.
    """
    net = config.trained_config()
    if config.init is None:
        return Start(starting_weights(net, config.seed, statistics))
    checkpoint = load_checkpoint(config.init)
    _check_same_net(checkpoint, config)
    file = {"file": str(checkpoint.path), "hash": checkpoint.hash}
    origin = {**provenance(checkpoint.metadata), **file}
    drawn, apart = initial_weights(net, config.seed), auxiliary_weights(checkpoint.arrays)
    fits = drawn.keys() & apart.keys()
    head = {name: apart[name] for name in fits if apart[name].shape == drawn[name].shape}
    return Start({**drawn, **head, **checkpoint.weights()}, origin)


def starting_weights(
    config: ModelConfig, seed: int, statistics: TargetStatistics
) -> dict[str, np.ndarray]:
    """Weights of a net that predicts nearly the mean target before it has learned anything."""
    return {**initial_weights(config, seed), **output_biases(config, statistics.means)}


def _check_same_net(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """A net's dropout may differ: it has no weights."""
    wanted: Any = config.model_config()
    given: Any = checkpoint.config
    if given.kind != wanted.kind:
        raise CheckpointError(
            f"{checkpoint.path}: holds a {given.kind} net, expected {wanted.kind}; "
            "name one of the same net with --init"
        )
    if given.width_mult != wanted.width_mult:
        raise CheckpointError(
            f"{checkpoint.path}: its net has width {given.width_mult:g}, this training's "
            f"{wanted.width_mult:g}; say {flag('width_mult')} {given.width_mult:g}"
        )
