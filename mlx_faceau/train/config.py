"""Settings of a training: defaults and help texts live here, the command line follows from them.

Nothing heavy is imported before a training starts, so that ``--help`` answers at once.
"""

import platform
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlx_faceau.errors import CheckpointError, UsageError

from .option_fields import as_option, check_option, flag, option, read_object

if TYPE_CHECKING:
    from mlx_faceau.core.architectures import ModelConfig

FRAMEWORKS = ("mlx", "torch")
DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")
SIDES = (48, 64, 80, 96, 112)  # of images, px: half the nets' whole stride apart
AUGMENTATIONS = ("none", "light", "strong")  # the levels of data/loading/augment.py


def default_framework() -> str:
    """mlx on Apple Silicon, and elsewhere if it is installed and torch is not; else torch."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    mlx_alone = find_spec("torch") is None and find_spec("mlx") is not None
    return "mlx" if apple or mlx_alone else "torch"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What both nets' trainings are told."""

    kind: ClassVar[str]  # the net's, in architectures.py
    model_name: ClassVar[str]  # on the command line

    data: tuple[str, ...] = option(MISSING, "HDF5 files with labelled faces", may_change=True)
    val_data: tuple[str, ...] = option(
        (),
        "HDF5 files with labelled faces of other people to validate on, instead of a share of "
        "--data",
        may_change=True,
    )
    output: str | None = option(
        None, "folder for checkpoints, history, curves and exports", may_change=True
    )
    init: str | None = option(
        None,
        "checkpoint, folder with one, or builtin, whose weights are trained on: for fine tuning, "
        "with a new optimizer and schedule",
    )
    epochs: int = option(100, "total number of epochs, also on resume", least=1, may_change=True)
    batch_size: int = option(32, "faces that go through the net together", least=2)
    accumulate: int = option(
        1,
        "batches in one optimizer step, which their mean gradient takes; BatchNorm and concordance "
        "still see one batch at a time",
        least=1,
    )
    lr: float = option(0.001, "learning rate at the end of the warm-up", least=0.0)
    weight_decay: float = option(0.0001, "decay of weights (not of biases, BatchNorm)", least=0.0)
    ema: float = option(
        0.0,
        "decay of a running average of the weights, such as 0.999, which is then evaluated, chosen "
        "as best and exported; 0 keeps none",
        least=0.0,
        below=1.0,
    )
    width_mult: float = option(1.0, "factor on every channel count of the backbone", least=0.0)
    val_split: float = option(
        0.1, "share of the people (else videos) kept for validation", least=0.0, below=1.0
    )
    patience: int = option(
        30, "epochs without a better validation loss before stopping", least=1, may_change=True
    )
    save_minutes: float = option(
        10.0,
        "minutes of an epoch after which the running one is saved; 0 saves only whole ones",
        least=0.0,
        may_change=True,
    )
    save_every: int = option(10, "epochs between numbered checkpoints", least=1, may_change=True)
    keep: int = option(
        0, "newest numbered checkpoints to keep; 0 keeps all", least=0, may_change=True
    )
    keep_outside: bool = option(False, "keep faces with a landmark outside the crop")
    mixed_labels: bool = option(
        False, "allow files whose labellers or shape models (PDMs) differ", may_change=True
    )
    # Not "none": training crops are cut from the labels themselves, so every face fills its crop
    # alike, which the crops of a detector's boxes never do.
    augment: str = option(
        "light", "how far training faces are varied; validation never is", choices=AUGMENTATIONS
    )
    mirror: float = option(
        0.5, "share of the varied training faces that are mirrored", least=0.0, below=1.0
    )
    first_side: int = option(
        112,
        "side of the images of the first epoch, in pixels: they grow to 112 by steps of 16, each "
        "for as many epochs, which takes less time",
    )
    overfit: int = option(
        0,
        "train and validate on this many faces alone, unvaried: a net and a recipe that work learn "
        "them by heart; 0 trains properly",
        least=0,
    )
    rank_timeout: float = option(
        300.0,
        "seconds without a step after which a rank of several gives up: another is dead or hangs",
        least=1.0,
        may_change=True,
    )
    num_workers: int = option(2, "threads that read and vary data", least=0, may_change=True)
    num_processes: int = option(
        0,
        "processes that vary training faces in place of the threads, for a GPU that waits for them",
        least=0,
        may_change=True,
    )
    seed: int = option(42, "of weights, split, data order and dropout", least=0)
    framework: str = option(default_framework, "what trains", choices=FRAMEWORKS, may_change=True)
    device: str = option("auto", "where it trains", choices=DEVICES, may_change=True)
    precision: str = option(
        "float32",
        "of the net's arithmetic on a GPU (float16: torch alone); weights and losses stay float32",
        choices=PRECISIONS,
    )
    sync_bn: bool = option(False, "BatchNorm over the faces of all ranks (torch on CUDA)")
    tensorboard: bool = option(
        False, "write event files for TensorBoard into the output folder", may_change=True
    )
    no_export: bool = option(False, "do not export the best checkpoint at the end", may_change=True)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = as_option(getattr(self, item.name), item.type)
            object.__setattr__(self, item.name, value)
            check_option(item.name, value, item.type, item.metadata)
        if self.num_processes and not self.num_workers:
            raise UsageError("--num-processes needs --num-workers, at least 1, that feed them")
        if self.first_side not in SIDES:
            raise UsageError(
                f"--first-side is {self.first_side}, expected one of {', '.join(map(str, SIDES))}"
            )
        if self.overfit and self.balanced:
            raise UsageError("--overfit shows every face alike; leave --balance-aus out")
        if self.overfit and self.val_data:
            raise UsageError("--overfit validates on what it trains on; leave --val-data out")
        self.model_config()

    def model_config(self) -> "ModelConfig":
        """Settings of the net that is trained."""
        raise NotImplementedError

    def trained_config(self) -> "ModelConfig":
        """Settings of the net in training, with what is left behind afterwards."""
        return self.model_config()

    def loss_options(self) -> dict[str, float]:
        """Arguments of the net's loss."""
        raise NotImplementedError

    @property
    def step_size(self) -> int:
        """Faces in one optimizer step."""
        return self.batch_size * self.accumulate

    @property
    def standardised_outputs(self) -> tuple[str, ...]:
        """Outputs whose loss is taken on standardised values."""
        return ()

    @property
    def balanced(self) -> bool:
        """Whether faces with rare action units are shown more often."""
        return False

    @property
    def taught(self) -> bool:
        """Whether the net also learns what its labels' teacher looked at."""
        return False

    @property
    def relabels(self) -> bool:
        """Whether mirrored faces get intensities of their own."""
        return False

    @property
    def composed(self) -> int:
        """How many composed faces join the training side."""
        return 0

    @property
    def shows_aus(self) -> bool:
        """Whether a table of the action units follows each epoch's line."""
        return False


@dataclass(frozen=True, kw_only=True)
class LandmarkPoseTraining(TrainConfig):
    """Train UnifiedLandmarkPoseNet: landmarks, head pose and face shape."""

    kind: ClassVar[str] = "landmark_pose"
    model_name: ClassVar[str] = "landmark-pose"

    lm_weight: float = option(1.0, "weight of the landmarks' wing loss", least=0.0)
    gp_weight: float = option(0.1, "weight of the global parameters' squared error", least=0.0)
    lp_weight: float = option(0.01, "weight of the local parameters' absolute error", least=0.0)
    raw_params: bool = option(False, "take the parameters' losses without standardising them")
    dropout: float = option(
        0.2,
        "dropout in the heads; numbers come out too near their means for it, which epochs without "
        "it at the end undo",
        least=0.0,
        below=1.0,
    )

    def model_config(self) -> "ModelConfig":
        from mlx_faceau.core.architectures import LandmarkPoseConfig

        return LandmarkPoseConfig(width_mult=self.width_mult, dropout=self.dropout)

    def loss_options(self) -> dict[str, float]:
        return {
            "landmark_weight": self.lm_weight,
            "global_params_weight": self.gp_weight,
            "local_params_weight": self.lp_weight,
        }

    @property
    def standardised_outputs(self) -> tuple[str, ...]:
        return () if self.raw_params else ("global_params", "local_params")


@dataclass(frozen=True, kw_only=True)
class AUTraining(TrainConfig):
    """Train AUPredictionNet: intensities of 17 facial action units."""

    kind: ClassVar[str] = "au_prediction"
    model_name: ClassVar[str] = "au"

    l1_weight: float = option(1.0, "weight of the smooth L1 loss", least=0.0)
    ccc_weight: float = option(0.5, "weight of the concordance loss", least=0.0)
    auxiliary_weight: float = option(
        0.0,
        "weight of a loss that is dropped with its head after the training: from each face the net "
        "also learns its landmarks, its shape, its action units beyond 0 and 5 and its gradients, "
        "which OpenFace's labels are made of; 0 leaves it out",
        least=0.0,
    )
    mirror: float = option(
        0.0,
        "share of the varied training faces that are mirrored; they keep their intensities, which "
        "is right for labels that treat both sides of a face alike, as OpenFace's do not",
        least=0.0,
        below=1.0,
    )
    relabel_mirrored: bool = option(
        False,
        "give mirrored faces other intensities: those that the linear model has for them which "
        "--auxiliary-weight fits to OpenFace's labels",
    )
    compose: int = option(
        0,
        "number of faces to add that are composed of two training people's each, with intensities "
        "of the same linear model",
        least=0,
    )
    dropout: float = option(0.3, "dropout in the head", least=0.0, below=1.0)
    au_weights: str | None = option(
        None,
        "weights of the action units in both losses: 'auto' weighs rare ones more, a JSON file "
        'names them, such as {"AU09_r": 2}',
    )

    au_table: bool = option(
        False, "show every action unit's metrics after each epoch", may_change=True
    )
    balance_aus: bool = option(
        False, "show faces with rare action units more often, in epochs of the same length"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relabel_mirrored and not (self.taught and self.mirror):
            raise UsageError("--relabel-mirrored needs --mirror and --auxiliary-weight above 0")
        if self.relabel_mirrored and (self.overfit or self.augment == "none"):
            raise UsageError(
                "--relabel-mirrored: --overfit and --augment none mirror no face; leave it out"
            )
        if self.compose and (self.overfit or not self.taught):
            raise UsageError("--compose needs --auxiliary-weight above 0, and no --overfit")

    def model_config(self) -> "ModelConfig":
        from mlx_faceau.core.architectures import AUPredictionConfig

        return AUPredictionConfig(width_mult=self.width_mult, dropout=self.dropout)

    def trained_config(self) -> "ModelConfig":
        from mlx_faceau.core.auxiliary_head import TaughtAUConfig

        if not self.taught:
            return self.model_config()
        return TaughtAUConfig(width_mult=self.width_mult, dropout=self.dropout)

    def loss_options(self) -> dict[str, float]:
        auxiliary = {"auxiliary_weight": self.auxiliary_weight} if self.taught else {}
        return {"smooth_l1_weight": self.l1_weight, "ccc_weight": self.ccc_weight, **auxiliary}

    @property
    def taught(self) -> bool:
        return self.auxiliary_weight > 0

    @property
    def balanced(self) -> bool:
        return self.balance_aus

    @property
    def relabels(self) -> bool:
        return self.relabel_mirrored

    @property
    def composed(self) -> int:
        return self.compose

    @property
    def shows_aus(self) -> bool:
        return self.au_table


TRAININGS: tuple[type[TrainConfig], ...] = (LandmarkPoseTraining, AUTraining)


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """All settings as JSON values, as checkpoints and histories record them."""
    return asdict(config)


def read_settings(path: Path | str) -> dict[str, Any]:
    """Settings from a JSON file of field names and values.

    Raises:
        ValueError: if it is no JSON object.
        OSError: if it cannot be read.
    """
    return read_object(path, {"epochs": 100})


def resolve(
    training: type[TrainConfig],
    given: Mapping[str, Any],
    resumed: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The settings of a run from what was given and what a resumed checkpoint recorded.

    Args:
        training: which net's settings.
        given: explicit values by field name.
        resumed: the checkpoint's, by field name; None for a new run.

    Raises:
        ValueError: for an unknown name or a value out of range.
        CheckpointError: if a given value contradicts the checkpoint's and may not change.
    """
    known = {item.name: item for item in fields(training)}
    for source in (given, resumed or {}):
        if unknown := sorted(set(source) - known.keys()):
            raise UsageError(
                f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
    for name, value in given.items():
        if resumed is None or known[name].metadata["may_change"]:
            continue
        recorded = resumed.get(name, known[name].default)  # older ones lack newer settings
        if recorded != value:
            raise CheckpointError(
                f"{flag(name)} {value} contradicts the checkpoint's {recorded}; "
                "leave it out, or start a new run"
            )
    settings = {**(resumed or {}), **given}
    if not settings.get("data"):
        raise UsageError("--data is missing: name an HDF5 file with labelled faces")
    return training(**settings)
