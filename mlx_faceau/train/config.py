"""Settings of a training: defaults and help texts live here, the command line follows from them.

Nothing heavy is imported before a training starts, so that ``--help`` answers at once.
"""

import math
import platform
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.setting_names import current_settings
from mlx_faceau.errors import CheckpointError, UsageError

from .option_fields import checked_value, flag, option, read_object

if TYPE_CHECKING:
    from mlx_faceau.core.architectures import ModelConfig

FRAMEWORKS = ("mlx", "torch")
DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")
IMAGE_SIZES = (48, 64, 80, 96, 112)  # px, in steps of half the nets' whole stride
AUGMENTATIONS = ("none", "light", "strong")  # the levels of data/loading/augment.py
# Settings that most users need: ``--help`` lists them first.
BASIC = (
    *("data", "val_data", "output", "init", "epochs", "batch_size", "lr", "ema", "width_mult"),
    *("val_split", "patience", "augment", "framework", "device"),
)
# Settings that a resumed run may be given anew.
CHANGEABLE = (
    *("data", "val_data", "output", "epochs", "patience", "framework", "device", "save_every"),
    *("save_every_minutes", "keep", "mixed_labels", "num_workers", "num_processes"),
    *("rank_timeout", "tensorboard", "no_export"),
)


def default_framework() -> str:
    """mlx on Apple Silicon, and elsewhere if it is installed and torch is not; else torch."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    mlx_alone = find_spec("torch") is None and find_spec("mlx") is not None
    return "mlx" if apple or mlx_alone else "torch"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings that both nets' trainings share."""

    kind: ClassVar[str]  # the net's, in architectures.py
    model_name: ClassVar[str]  # on the command line

    data: tuple[str, ...] = option(MISSING, "HDF5 files with labelled faces")
    val_data: tuple[str, ...] = option(
        (),
        "HDF5 files with other people to validate on, instead of a share of --data",
    )
    output: str | None = option(
        None, "folder for checkpoints, history, curves and exports (default: runs/NET)"
    )
    init: str | None = option(None, "fine-tune this checkpoint, folder or 'builtin'")
    epochs: int = option(100, "total number of epochs, also on resume", least=1)
    batch_size: int = option(32, "faces in one forward pass", least=2)
    lr: float = option(0.001, "peak learning rate, after the warm-up", least=0.0)
    ema: float = option(
        0.0,
        "decay of a moving average of the weights to export, such as 0.999; 0 keeps none",
        least=0.0,
        below=1.0,
    )
    width_mult: float = option(1.0, "factor on every channel count", least=0.0)
    val_split: float = option(
        0.1, "share of the people (else videos) to validate on", least=0.0, below=1.0
    )
    patience: int = option(30, "epochs without a better validation loss before stopping", least=1)
    # Not "none": training crops are cut from the labels themselves, so every face fills its crop
    # alike, which the crops of a detector's boxes never do.
    augment: str = option("light", "strength of the data augmentation", choices=AUGMENTATIONS)
    framework: str = option(default_framework, "framework to train with", choices=FRAMEWORKS)
    device: str = option("auto", "device to train on", choices=DEVICES)

    accumulate: int = option(
        1,
        "batches per optimizer step (gradient accumulation); BatchNorm and concordance still see "
        "one batch at a time",
        least=1,
    )
    dropout: float = option(
        0.2,
        "dropout in the heads; it pulls predictions towards their means, which a few last epochs "
        "without it correct",
        least=0.0,
        below=1.0,
    )
    weight_decay: float = option(
        0.0001, "weight decay (biases and BatchNorm do not decay)", least=0.0
    )
    horizontal_flip: float = option(
        0.5, "probability that augmentation mirrors a face", least=0.0, below=1.0
    )
    initial_image_size: int = option(
        112,
        "image size of the first epoch in pixels; it grows to 112 in steps of 16 (progressive "
        "resizing), which takes less time",
        choices=IMAGE_SIZES,
    )
    save_every: int = option(10, "epochs between numbered checkpoints", least=1)
    save_every_minutes: float = option(
        10.0, "minutes between saves within an epoch; 0 saves after whole epochs only", least=0.0
    )
    keep: int = option(0, "newest numbered checkpoints to keep; 0 keeps all", least=0)
    keep_outside: bool = option(False, "keep faces with a landmark outside the crop")
    mixed_labels: bool = option(False, "allow files whose labellers or shape models (PDMs) differ")
    overfit: int = option(
        0,
        "train and validate on this many faces without augmentation, to check that net and labels "
        "work; 0 trains normally",
        least=0,
    )
    num_workers: int = option(2, "threads that read and augment data", least=0)
    num_processes: int = option(
        0,
        "processes that augment faces instead of the threads, for a GPU that waits for data",
        least=0,
    )
    rank_timeout: float = option(
        300.0, "distributed training: seconds without a step after which a rank gives up", least=1.0
    )
    seed: int = option(42, "seed of weights, split, data order and dropout", least=0, below=2**63)
    precision: str = option(
        "float32",
        "arithmetic of the backbone; weights, heads and losses stay float32. bfloat16: on a GPU, "
        "with torch also on a CPU that has it; float16: torch on a GPU",
        choices=PRECISIONS,
    )
    tensorboard: bool = option(False, "write TensorBoard event files into the output folder")
    no_export: bool = option(False, "do not export the best checkpoint at the end")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = checked_value(item, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        if self.num_processes and not self.num_workers:
            raise UsageError("--num-processes needs --num-workers of at least 1 to feed them")
        if self.overfit and self.val_data:
            raise UsageError("--overfit validates on its training faces; leave --val-data out")
        self.model_config()

    def model_config(self) -> "ModelConfig":
        """Settings of the net that is exported."""
        from mlx_faceau.core.architectures import CONFIGS

        return CONFIGS[self.kind](width_mult=self.width_mult, dropout=self.dropout)

    def trained_config(self) -> "ModelConfig":
        """Settings of the net during training, with the heads that exports drop."""
        return self.model_config()

    def loss_options(self) -> dict[str, float]:
        """Arguments of the net's loss."""
        raise NotImplementedError

    @property
    def standardised_outputs(self) -> tuple[str, ...]:
        """Outputs whose loss is computed on standardised values."""
        return ()


@dataclass(frozen=True, kw_only=True)
class LandmarkPoseTrainConfig(TrainConfig):
    """Train UnifiedLandmarkPoseNet: landmarks, head pose and face shape."""

    kind: ClassVar[str] = "landmark_pose"
    model_name: ClassVar[str] = "landmark-pose"

    lm_weight: float = option(1.0, "weight of the landmarks' wing loss", least=0.0)
    gp_weight: float = option(0.1, "weight of the global parameters' squared error", least=0.0)
    lp_weight: float = option(0.01, "weight of the local parameters' absolute error", least=0.0)
    raw_params: bool = option(False, "do not standardise the parameters for their losses")

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
class AUTrainConfig(TrainConfig):
    """Train AUPredictionNet: intensities of 17 facial action units."""

    kind: ClassVar[str] = "au_prediction"
    model_name: ClassVar[str] = "au"

    l1_weight: float = option(1.0, "weight of the smooth L1 loss", least=0.0)
    ccc_weight: float = option(0.5, "weight of the concordance loss", least=0.0)
    auxiliary_weight: float = option(
        0.0,
        "weight of an auxiliary head's loss: it predicts the features that OpenFace's labels are "
        "computed from ('export --hog-head' uses it); 0 leaves it out",
        least=0.0,
    )
    hog_weight: float = option(
        0.0,
        "weight of the loss of the intensities that 'export --hog-head' computes from the "
        "auxiliary head's outputs; needs --auxiliary-weight and images of full size",
        least=0.0,
    )
    horizontal_flip: float = option(
        0.0,
        "probability that augmentation mirrors a face; for labels that treat both sides of a face "
        "alike, which OpenFace's do not",
        least=0.0,
        below=1.0,
    )
    relabel_flipped: bool = option(
        False,
        "relabel mirrored faces with the linear model that --auxiliary-weight fits to OpenFace's "
        "labels",
    )
    dropout: float = option(0.3, "dropout in the head", least=0.0, below=1.0)
    au_weights: str | None = option(
        None,
        'JSON file of weights of the action units in both losses, such as {"AU09_r": 2}; 0 for '
        "a unit that the labels lack",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        auxiliary = self.auxiliary_weight > 0
        if self.hog_weight and not (auxiliary and self.initial_image_size == IMAGE_SIZES[-1]):
            raise UsageError(
                "--hog-weight needs --auxiliary-weight above 0, and no --initial-image-size"
            )
        if self.relabel_flipped and not (auxiliary and self.horizontal_flip):
            raise UsageError(
                "--relabel-flipped needs --horizontal-flip and --auxiliary-weight above 0"
            )
        if self.relabel_flipped and (self.overfit or self.augment == "none"):
            raise UsageError(
                "--relabel-flipped: --overfit and --augment none mirror no face; leave it out"
            )

    def trained_config(self) -> "ModelConfig":
        from mlx_faceau.core.auxiliary_head import AuxiliaryAUConfig

        if not self.auxiliary_weight:
            return self.model_config()
        return AuxiliaryAUConfig(width_mult=self.width_mult, dropout=self.dropout)

    def loss_options(self) -> dict[str, float]:
        options = {"smooth_l1_weight": self.l1_weight, "ccc_weight": self.ccc_weight}
        if self.auxiliary_weight:
            options["auxiliary_weight"] = self.auxiliary_weight
            options["hog_weight"] = self.hog_weight
        return options


TRAIN_CONFIGS: tuple[type[TrainConfig], ...] = (LandmarkPoseTrainConfig, AUTrainConfig)


def read_settings(path: Path | str) -> dict[str, Any]:
    """Settings from a JSON file of field names and values, those of older versions included."""
    return current_settings(read_object(path, {"epochs": 100}))


def read_au_weights(path: Path | str) -> dict[str, float]:
    """Weights from a JSON object of names and numbers; action units it leaves out weigh 1."""
    return checked_au_weights(read_object(path, {"AU09_r": 2}), path)


def checked_au_weights(given: Mapping[str, Any], path: Path | str) -> dict[str, float]:
    """The weight of every action unit; UsageError for unknown ones, and what is no weight."""
    if unknown := sorted(set(given) - set(AU_NAMES)):
        raise UsageError(
            f"{path}: unknown action unit {', '.join(unknown)}; known: {', '.join(AU_NAMES)}"
        )
    for name, weight in given.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise UsageError(f"{path}: the weight of {name} is {weight!r}, expected a number >= 0")
    weights = {name: float(given.get(name, 1.0)) for name in AU_NAMES}
    if not any(weights.values()):
        raise UsageError(f"{path}: all action units weigh 0, so there is nothing to learn")
    return weights


def resolve(
    training: type[TrainConfig], given: Mapping[str, Any], resumed: Mapping[str, Any] | None = None
) -> TrainConfig:
    """The settings of a run from what was given and what a resumed checkpoint recorded.

    CheckpointError is raised if a given value contradicts the checkpoint's and may not change.
    """
    known = {item.name: item for item in fields(training)}
    for source in (given, resumed or {}):
        if unknown := sorted(set(source) - known.keys()):
            raise UsageError(
                f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
    for name, value in given.items():
        if resumed is None or name in CHANGEABLE:
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
