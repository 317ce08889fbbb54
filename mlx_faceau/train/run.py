"""A whole training: settings and data in; checkpoints, history, curves and exports out."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.auxiliary_head import put_back
from mlx_faceau.core.checkpoint import Checkpoint, describe
from mlx_faceau.core.facs import AU_NAMES

from .checkpoints import Progress, RunFolder, find_resumable
from .class_balance import read_weights, weights_by_rarity
from .config import AUTraining, TrainConfig, settings_of
from .datasets import Faces, open_faces
from .distributed import Ranks
from .exports import export_best
from .history import environment
from .initial_weights import Start, first_weights
from .loop import Outcome, Trainer, TrainingLoop
from .plots import draw_curves
from .resume import announce, check_same_data, check_same_ranks, run_settings, saved_teacher
from .schedule import averaging_decay
from .tensorboard import FOLDER_NAME, Board, NoBoard

_LOG = logging.getLogger(__name__)


OVERFIT_SHARE = 0.1  # of a constant predictor's loss: what is near zero


@dataclass(frozen=True)
class Session:
    """A finished or interrupted training and its folder.

    Attributes:
        config: its settings.
        folder: where its files are.
        outcome: how it ended.
        constant_loss: validation loss of a predictor that knows the training means alone.
        rank: of this process among those that trained together; the first one tells.
        best: the history's entry of the best epoch; empty before the first.
    """

    config: TrainConfig
    folder: Path
    outcome: Outcome
    constant_loss: float
    rank: int
    best: Mapping[str, Any]

    @property
    def learned_by_heart(self) -> bool:
        """Whether the best loss is near zero, as it must be with ``--overfit``."""
        best = self.outcome.best_loss
        return best is not None and best < OVERFIT_SHARE * self.constant_loss


def run_training(
    training: type[TrainConfig],
    given: Mapping[str, Any],
    resume: Path | str | None = None,
    show_progress: bool = False,
) -> Session:
    """Train a net, from the start or from a checkpoint.

    Args:
        training: ``LandmarkPoseTraining`` or ``AUTraining``.
        given: explicit settings by field name; the rest comes from the checkpoint or defaults.
        resume: a checkpoint, or a folder whose last one is meant.
        show_progress: draw a progress bar for each epoch.

    Returns:
        How it ended, and where the files are.

    Raises:
        ValueError: for a setting that is unknown or out of range.
        DatasetError: if the file cannot be trained on.
        CheckpointError: if the checkpoint is of the other net, contradicts a given setting, was
            trained on other data, or the output folder already holds a run.
        BackendError: if the device is not there.
        MissingDependency: if the framework is not installed.
    """
    checkpoint = None if resume is None else find_resumable(resume)
    config = run_settings(training, given, checkpoint)
    ranks = join_ranks(config)
    if ranks.rank:
        logging.getLogger("mlx_faceau.train").setLevel(logging.ERROR)
    folder = RunFolder(config.output or "", config.keep, writes=ranks.rank == 0)
    with folder.locked():
        return _run(config, checkpoint, ranks, folder, show_progress)


def _run(
    config: TrainConfig,
    checkpoint: Checkpoint | None,
    ranks: Ranks,
    folder: RunFolder,
    show_progress: bool,
) -> Session:
    if checkpoint is None or checkpoint.path.parent.resolve() != folder.path.resolve():
        folder.refuse_if_used()
    faces = open_faces(config, (ranks.rank, ranks.size), saved_teacher(config, checkpoint))
    if checkpoint is not None:
        check_same_data(checkpoint, faces, config)
        check_same_ranks(checkpoint, ranks)
    au_weights = _au_weights(config, faces, checkpoint)
    start = _start(config, faces, checkpoint)
    trainer = build_trainer(config, faces, start.weights, au_weights, ranks)
    progress = Progress()
    if checkpoint is not None:
        progress = Progress.of(checkpoint)
        trainer.restore(put_back(checkpoint.arrays))
        folder.clear_unfinished()
        announce(checkpoint, config, folder.adopt_best(checkpoint.path, progress))
    more = {"au_weights": au_weights, "init": start.origin}
    return _train(config, faces, trainer, folder, progress, more, show_progress)


def build_trainer(
    config: TrainConfig,
    faces: Faces,
    weights: Mapping[str, np.ndarray],
    au_weights: Mapping[str, float] | None = None,
    ranks: Ranks | None = None,
) -> Trainer:
    """The framework's trainer of a new net.

    Args:
        config: the settings.
        faces: by whose statistics losses are standardised.
        weights: the net's first ones, in MLX names and layout.
        au_weights: of every action unit in the loss; None weighs them alike.
        ranks: the framework's, from :func:`join_ranks`; None trains alone.

    Raises:
        BackendError: if the device is not there.
        MissingDependency: if the framework is not installed.
    """
    loss_options: dict[str, Any] = config.loss_options()
    if au_weights is not None:
        loss_options["au_weights"] = [au_weights[name] for name in AU_NAMES]
    trainer: Trainer = _trainer_class(config.framework)(
        config.trained_config(),
        weights,
        loss_options=loss_options,
        scaling=faces.statistics.scaling(config.standardised_outputs),
        weight_decay=config.weight_decay,
        accumulate=config.accumulate,
        precision=config.precision,
        sync_bn=config.sync_bn,
        averaging=partial(averaging_decay, decay=config.ema) if config.ema else None,
        seed=config.seed,
        device=config.device,
        ranks=ranks,
    )
    return trainer


def join_ranks(config: TrainConfig) -> Ranks:
    """Meet the processes that a launcher started with this one.

    Raises:
        MissingDependency: if the framework is not installed.
    """
    if config.framework == "mlx":
        from .mlx_distributed import MLXRanks

        return MLXRanks()
    from mlx_faceau.torch_fallback.distributed import TorchRanks

    ranks: Ranks = TorchRanks.join(config.rank_timeout)
    return ranks


def _trainer_class(framework: str) -> Callable[..., Any]:
    if framework == "mlx":
        from .mlx_trainer import MLXTrainer

        return MLXTrainer
    from mlx_faceau.torch_fallback.trainer import TorchTrainer

    trainer: Callable[..., Any] = TorchTrainer
    return trainer


def _au_weights(
    config: TrainConfig, faces: Faces, checkpoint: Checkpoint | None
) -> dict[str, float] | None:
    """The action units' weights; a resumed training keeps those it recorded."""
    if not isinstance(config, AUTraining) or config.au_weights is None:
        return None
    if checkpoint is not None:
        return dict(checkpoint.metadata["au_weights"])
    if config.au_weights != "auto":
        return read_weights(config.au_weights)
    return weights_by_rarity(faces.dataset.labels["au_intensities"][faces.split.train])


def _start(config: TrainConfig, faces: Faces, checkpoint: Checkpoint | None) -> Start:
    """What a new training starts from; a resumed one restores its own weights over any."""
    if checkpoint is None:
        return first_weights(config, faces.statistics, faces.pdm)
    drawn = first_weights(replace(config, init=None), faces.statistics)
    return replace(drawn, origin=checkpoint.metadata.get("init"))


def _train(
    config: TrainConfig,
    faces: Faces,
    trainer: Trainer,
    folder: RunFolder,
    progress: Progress,
    more: Mapping[str, Any],
    show_progress: bool,
) -> Session:
    metadata = _metadata(config, faces, trainer, more)
    history = _new_history(metadata, more)
    shown = config.tensorboard and folder.writes
    board = Board(folder.path / FOLDER_NAME, progress.epoch + 1) if shown else NoBoard()
    loop = TrainingLoop(
        trainer, faces, config, folder, progress, metadata, history, board, show_progress
    )
    data = metadata["data"]
    _LOG.info(
        "training on %d faces%s, validating on %d (split by %s); %s",
        data["training"],
        f" and {config.composed} composed ones" if config.composed else "",
        *(data["validation"], data["split_by"]),
        ", ".join(f"{name} {value}" for name, value in trainer.describe().items()),
    )
    with closing(board):
        outcome = loop.run()
    if folder.writes:
        draw_curves(progress.epochs, folder.path)
    if folder.writes and outcome.stopped != "interrupted" and not config.no_export:
        history["exports"] = export_best(folder.path, config.kind)
        loop.write_history(outcome.stopped)
    constant = trainer.losses(faces.constant_predictions(), faces.validation_targets())
    best = progress.epochs[outcome.best_epoch - 1] if outcome.best_epoch else {}
    return Session(config, folder.path, outcome, constant["loss"], trainer.ranks.rank, best)


def _metadata(
    config: TrainConfig, faces: Faces, trainer: Trainer, more: Mapping[str, Any]
) -> dict[str, Any]:
    """What every checkpoint records."""
    return describe(
        config.model_config(),
        target_statistics=faces.statistics.to_json(),
        training=settings_of(config),
        data=faces.describe(),
        versions={**environment(), **trainer.describe()},
        **more,
        ranks=trainer.ranks.size,
    )


def _new_history(metadata: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The history of a training, without its epochs."""
    return {
        "config": metadata["training"],
        "net": {"kind": metadata["kind"], **metadata["model"]},
        "data": metadata["data"],
        "environment": metadata["versions"],
        **more,
        "exports": {},
    }
