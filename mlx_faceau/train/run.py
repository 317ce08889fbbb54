"""A whole training: settings and data in; checkpoints, history, curves and exports out."""

import logging
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import HOGHeadConfig, initial_weights, output_biases
from mlx_faceau.core.auxiliary_head import auxiliary_weights, without_auxiliary_prefix
from mlx_faceau.core.checkpoint import Checkpoint, describe, load_checkpoint, section
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.provenance import pdm_of, provenance
from mlx_faceau.core.setting_names import current_settings
from mlx_faceau.core.trainer import Ranks, Trainer, TrainerSettings
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.errors import CheckpointError, DatasetError, UsageError
from mlx_faceau.weights import builtin

from . import history
from .checkpoints import AU_MODELS, RunFolder, TrainingState, find_resumable
from .config import AUTrainConfig, TrainConfig, checked_au_weights, read_au_weights, resolve
from .datasets import TrainingData, open_data
from .exports import export_best
from .hog_head import au_models_of, hog_head
from .loop import TrainingLoop, averaging_decay
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)


def run_training(
    training: type[TrainConfig],
    given: Mapping[str, Any],
    resume: Path | str | None = None,
    show_progress: bool = False,
) -> TrainingLoop:
    """Train a net, from the start or from a checkpoint; a folder means its last one.

    Settings are given by field name; the rest comes from the checkpoint or defaults. What cannot be
    used (settings, data, checkpoint, folder, device, framework) raises FaceauError before anything
    is written. Returned is the loop as it ended.
    """
    checkpoint = None if resume is None else find_resumable(resume)
    config = run_settings(training, given, checkpoint)
    if config.tensorboard:
        history.load_tensorboard()
    ranks = join_ranks(config)
    if ranks.rank:
        logging.getLogger("mlx_faceau.train").setLevel(logging.ERROR)
    folder = RunFolder(Path(config.output or ""), config.keep, writes=ranks.rank == 0)
    with folder.locked():
        if checkpoint is None or checkpoint.path.parent.resolve() != folder.path.resolve():
            folder.refuse_if_used()
        else:
            folder.refuse_earlier(checkpoint)
        loop = prepare(config, folder, ranks, checkpoint)
        loop.show_progress = show_progress
        described = loop.metadata["data"]
        _LOG.info(
            "training on %d faces, validating on %d (split by %s); %s",
            *(described["training"], described["validation"], described["split_by"]),
            ", ".join(f"{name} {value}" for name, value in loop.trainer.describe().items()),
        )
        if config.tensorboard and folder.writes:
            loop.writer = history.open_tensorboard(
                folder.path / history.TENSORBOARD_FOLDER, loop.state.epoch + 1
            )
        with closing(loop.writer) if loop.writer else nullcontext():
            loop.run()
        if folder.writes:
            history.draw_curves(loop.state.epochs, folder.path)
            if loop.stopped != "interrupted" and not config.no_export:
                loop.exports = export_best(folder.path, config.kind)
                loop.write_history()
    return loop


def run_settings(
    training: type[TrainConfig], given: Mapping[str, Any], checkpoint: Checkpoint | None
) -> TrainConfig:
    """Settings with the output folder filled in: the given one, the checkpoint's, or a default."""
    output = f"runs/{training.model_name}"
    recorded: dict[str, Any] | None = None
    if checkpoint is not None:
        if checkpoint.config.kind != training.kind:
            raise CheckpointError(
                f"{checkpoint.path}: holds a net of kind {checkpoint.config.kind}, expected "
                f"{training.kind}; train it with the other command"
            )
        recorded = checkpoint.metadata.get("training")
        # Exported weights record their training's settings, but none of its state.
        if not recorded or not checkpoint.metadata.get("progress"):
            raise CheckpointError(f"{checkpoint.path}: holds weights but no training to resume")
        # Before the setting was recorded, half of the faces were mirrored.
        recorded = {"horizontal_flip": 0.5, **current_settings(recorded)}
        output = str(checkpoint.path.parent)
    config = resolve(training, given, recorded)
    # Resuming does not need the file; where it is there, it must say the same.
    path = given.get("au_weights") if checkpoint else None
    if path and Path(path).is_file() and read_au_weights(path) != _au_weights(config, checkpoint):
        raise CheckpointError(
            f"{path}: not the weights that {output} was trained with; leave --au-weights out, "
            "or start a new run"
        )
    return replace(config, output=given.get("output") or output)


def prepare(
    config: TrainConfig, folder: RunFolder, ranks: Ranks, checkpoint: Checkpoint | None = None
) -> TrainingLoop:
    """The loop of a new training, or of one that continues from a checkpoint.

    Faults of all else are told before the data are read, which may take minutes.
    """
    state, init = TrainingState(), None
    if checkpoint is None:
        init = load_init(config)
        origin = origin_of(init)
    else:
        check_same_ranks(checkpoint, ranks.size)
        state, origin = TrainingState.from_checkpoint(checkpoint), checkpoint.metadata.get("init")
    au_weights = _au_weights(config, checkpoint)
    au_models = saved_au_models(config, checkpoint, init)
    data = open_data(config, (ranks.rank, ranks.size), au_models)
    described = data.describe()
    if checkpoint is None:
        weights = first_weights(config, init, data.statistics, pdm_of({"data": described}))
    else:
        check_same_data(checkpoint, described, config)
        arrays = without_auxiliary_prefix(checkpoint.arrays)
        weights = section(arrays, "model.")
    trainer = build_trainer(config, data, weights, au_weights, ranks)
    if checkpoint is not None:
        try:
            trainer.restore(arrays)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.path}: {error}") from None
        folder.clear_unfinished()
        folder.adopt_best(checkpoint.path, state.best_epoch)
        recorded = checkpoint.metadata["training"].get("framework")
        if recorded != config.framework:
            _LOG.warning(
                "resuming a %s training in %s: dropout starts from the seed again, so the result "
                "differs slightly from an uninterrupted one",
                *(recorded, config.framework),
            )
    metadata = describe(
        config.model_config(),
        target_statistics=data.statistics.to_json(),
        training=asdict(config),
        data=described,
        versions={**history.environment(), **trainer.describe()},
        au_weights=au_weights,
        init=origin,
        ranks=ranks.size,
    )
    return TrainingLoop(trainer, data, config, folder, state, metadata)


def saved_au_models(
    config: TrainConfig, checkpoint: Checkpoint | None, init: Checkpoint | None
) -> OpenFaceAUModels | None:
    """The labels' linear models of a resumed training, or of the checkpoint that it starts from.

    They give the targets of the auxiliary head. None where there are none, or none are needed.
    """
    source = checkpoint or init
    if not isinstance(config, AUTrainConfig) or not config.auxiliary_weight or source is None:
        return None
    if source is init and not source.section(AU_MODELS):
        return None
    models = au_models_of(source)
    if models is None:
        _LOG.warning(
            "%s: has linear models of another version: they are fitted anew to these labels, "
            "and 256 of the auxiliary head's outputs learn other components",
            source.path,
        )
    elif source is init and config.relabel_flipped:
        _LOG.info("faces without labels are labelled by %s's linear model", source.path)
    return models


def check_same_data(checkpoint: Checkpoint, here: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise DatasetError unless both sides' faces are those the checkpoint was trained on."""
    recorded = checkpoint.metadata.get("data") or {}
    same = ("hash", "training", "validation", "split_by")  # all that older checkpoints record
    if any(recorded.get(name) != here[name] for name in same):
        files = [", ".join(paths) for paths in (config.data, config.val_data) if paths]
        raise DatasetError(
            f"{'; '.join(files)}: not the data that {checkpoint.path} was trained and validated "
            "on; name those files with --data and --val-data (--refit), or start a new run"
        )


def check_same_ranks(checkpoint: Checkpoint, ranks: int) -> None:
    """Raise CheckpointError unless as many ranks train as before."""
    recorded = checkpoint.metadata.get("ranks") or 1
    if recorded != ranks:
        raise CheckpointError(
            f"{checkpoint.path}: was trained by {recorded} ranks, not {ranks}; "
            f"launch {recorded}, or start a new run"
        )


def build_trainer(
    config: TrainConfig,
    data: TrainingData,
    weights: Mapping[str, np.ndarray],
    au_weights: Mapping[str, float] | None = None,
    ranks: Ranks | None = None,
) -> Trainer:
    """The framework's trainer of a net with these first weights, in MLX names and layout.

    Action units weigh alike in the loss without ``au_weights``; without ``ranks`` it trains alone.
    """
    loss_options: dict[str, Any] = config.loss_options()
    if au_weights is not None:
        loss_options["au_weights"] = [au_weights[name] for name in AU_NAMES]
    head = None
    if isinstance(config, AUTrainConfig) and config.hog_weight and data.au_models is not None:
        head = hog_head(data.au_models, data.statistics)
    settings = TrainerSettings(
        config.trained_config(),
        weights,
        loss_options=loss_options,
        scaling=data.statistics.scaling(config.standardised_outputs),
        weight_decay=config.weight_decay,
        seed=config.seed,
        accumulate=config.accumulate,
        averaging=partial(averaging_decay, decay=config.ema) if config.ema else None,
        precision=config.precision,
        device=config.device,
        hog_head=head,
    )
    return trainer_class(config.framework)(settings, ranks)


def trainer_class(framework: str) -> type[Trainer]:
    """The class of a framework's trainer."""
    if framework == "mlx":
        from .mlx_trainer import MLXTrainer

        return MLXTrainer
    from mlx_faceau.torch_fallback.trainer import TorchTrainer

    return TorchTrainer


def join_ranks(config: TrainConfig) -> Ranks:
    """Meet the processes that a launcher started with this one, before any long work."""
    trainer = trainer_class(config.framework)
    return trainer.join(config.device, config.precision, config.rank_timeout)


def _au_weights(config: TrainConfig, checkpoint: Checkpoint | None) -> dict[str, float] | None:
    """The action units' weights; a resumed training keeps those it recorded."""
    if not isinstance(config, AUTrainConfig) or config.au_weights is None:
        return None
    if checkpoint is not None:
        if not (recorded := checkpoint.metadata.get("au_weights")):
            raise CheckpointError(f"{checkpoint.path}: lacks its au_weights; start a new run")
        try:
            return checked_au_weights(recorded, checkpoint.path)
        except UsageError as error:
            raise CheckpointError(str(error)) from None
    return read_au_weights(config.au_weights)


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
