"""What a resumed training takes over from its checkpoint, and what must not differ."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlx_faceau.core.checkpoint import Checkpoint
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.errors import CheckpointError, DatasetError

from .checkpoints import TEACHER
from .config import TrainConfig, resolve
from .datasets import Faces
from .distributed import Ranks
from .initial_weights import load_init

_LOG = logging.getLogger(__name__)
# What tells the faces and their sides; older checkpoints record less about them besides.
_SAME_DATA = ("hash", "training", "validation", "split_by")


def run_settings(
    training: type[TrainConfig], given: Mapping[str, Any], checkpoint: Checkpoint | None
) -> TrainConfig:
    """Settings with the output folder filled in: the given one, the checkpoint's, or a default.

    Raises:
        ValueError: for a setting that is unknown or out of range.
        CheckpointError: if the checkpoint is of the other net, holds no training, or contradicts a
            given setting.
    """
    if checkpoint is None:
        config = resolve(training, given)
        return replace(config, output=config.output or f"runs/{training.model_name}")
    if checkpoint.config.kind != training.kind:
        raise CheckpointError(
            f"{checkpoint.path}: holds a {checkpoint.config.kind} net, expected {training.kind}; "
            "train it with the other command"
        )
    recorded = checkpoint.metadata.get("training")
    # Weights alone, which were exported, tell of their training but hold none of its state.
    if not isinstance(recorded, dict) or "progress" not in checkpoint.metadata:
        raise CheckpointError(f"{checkpoint.path}: holds weights but no training to continue")
    # Before the setting was recorded, half of the faces were mirrored.
    config = resolve(training, given, {"mirror": 0.5, **recorded})
    return replace(config, output=given.get("output") or str(checkpoint.path.parent))


def saved_teacher(config: TrainConfig, checkpoint: Checkpoint | None) -> OpenFaceAUModels | None:
    """The teacher of a resumed training, or that of the taught one which ``--init`` names.

    The auxiliary head that comes along answers that teacher's questions. None where there is no
    such teacher, or nobody asks.

    Raises:
        CheckpointError: if a checkpoint should hold it and does not.
    """
    if not config.taught:
        return None
    if checkpoint is None:
        if config.init is None:
            return None
        checkpoint = load_init(config)
        if not checkpoint.section(TEACHER):
            return None
        if config.relabels or config.composed:
            _LOG.info("faces without labels are labelled by %s's linear model", checkpoint.path)
    try:
        return OpenFaceAUModels.from_arrays(checkpoint.section(TEACHER))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path}: lacks {TEACHER}{error.args[0]}") from None


def check_same_data(checkpoint: Checkpoint, faces: Faces, config: TrainConfig) -> None:
    """Raise DatasetError unless both sides' faces are those the checkpoint was trained on."""
    recorded, here = checkpoint.metadata.get("data") or {}, faces.describe()
    if any(recorded.get(name) != here[name] for name in _SAME_DATA):
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
            f"{checkpoint.path}: was trained by {recorded} ranks together, this are {ranks.size}; "
            f"launch {recorded}, or start a new run"
        )


def announce(checkpoint: Checkpoint, config: TrainConfig, line: str | None) -> None:
    """Log what a resumed training does not have as before; ``line`` is the output folder's."""
    if line:
        _LOG.warning(line)
    recorded = checkpoint.metadata["training"]["framework"]
    if recorded != config.framework:
        _LOG.warning(
            "resuming a %s training in %s: dropout starts from the seed again, so the result "
            "differs a little from an uninterrupted one",
            *(recorded, config.framework),
        )
