"""What a resumed training takes over from its checkpoint, and what must not differ."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlx_faceau.core.checkpoint import Checkpoint
from mlx_faceau.core.setting_names import current_settings
from mlx_faceau.core.trainer import Ranks
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.errors import CheckpointError, DatasetError

from .checkpoints import AU_MODELS
from .config import AUTrainConfig, TrainConfig, resolve
from .datasets import TrainingData
from .initial_weights import load_init

_LOG = logging.getLogger(__name__)


def run_settings(
    training: type[TrainConfig], given: Mapping[str, Any], checkpoint: Checkpoint | None
) -> TrainConfig:
    """Settings with the output folder filled in: the given one, the checkpoint's, or a default.

    Raises:
        UsageError: for a setting that is unknown or out of range.
        CheckpointError: if the checkpoint is of the other net, holds no training, or contradicts a
            given setting.
    """
    output = f"runs/{training.model_name}"
    recorded: dict[str, Any] | None = None
    if checkpoint is not None:
        if checkpoint.config.kind != training.kind:
            raise CheckpointError(
                f"{checkpoint.path}: holds a {checkpoint.config.kind} net, expected "
                f"{training.kind}; train it with the other command"
            )
        recorded = checkpoint.metadata.get("training")
        # Exported weights record their training's settings, but none of its state.
        if not isinstance(recorded, dict) or "progress" not in checkpoint.metadata:
            raise CheckpointError(f"{checkpoint.path}: holds weights but no training to resume")
        # Before the setting was recorded, half of the faces were mirrored.
        recorded = {"horizontal_flip": 0.5, **current_settings(recorded)}
        output = str(checkpoint.path.parent)
    config = resolve(training, given, recorded)
    return replace(config, output=given.get("output") or output)


def saved_au_models(config: TrainConfig, checkpoint: Checkpoint | None) -> OpenFaceAUModels | None:
    """The labels' linear models of a resumed training, or of the checkpoint that ``--init`` names.

    They give the targets of the auxiliary head. None where there are none, or none are needed.

    Raises:
        CheckpointError: if a checkpoint should hold it and does not.
    """
    if not isinstance(config, AUTrainConfig) or not config.auxiliary_weight:
        return None
    if checkpoint is None:
        if config.init is None:
            return None
        checkpoint = load_init(config)
        if not checkpoint.section(AU_MODELS):
            return None
        if config.relabel_flipped or config.cutmix_faces:
            _LOG.info("faces without labels are labelled by %s's linear model", checkpoint.path)
    try:
        return OpenFaceAUModels.from_arrays(checkpoint.section(AU_MODELS))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: lacks {AU_MODELS}{error.args[0]}") from None


def check_same_data(checkpoint: Checkpoint, data: TrainingData, config: TrainConfig) -> None:
    """Raise DatasetError unless both sides' faces are those the checkpoint was trained on."""
    recorded, here = checkpoint.metadata.get("data") or {}, data.describe()
    same = ("hash", "training", "validation", "split_by")  # all that older checkpoints record
    if any(recorded.get(name) != here[name] for name in same):
        files = [", ".join(paths) for paths in (config.data, config.val_data) if paths]
        raise DatasetError(
            f"{'; '.join(files)}: not the data that {checkpoint.path} was trained and validated "
            "on; name those files with --data and --val-data, or start a new run"
        )


def check_same_ranks(checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Raise CheckpointError unless as many ranks train as before."""
    recorded = checkpoint.metadata.get("ranks", 1)
    if recorded != ranks.size:
        raise CheckpointError(
            f"{checkpoint.path}: was trained by {recorded} ranks, not {ranks.size}; "
            f"launch {recorded}, or start a new run"
        )
