"""The two networks as data: one settings table a backbone, from which MLX and torch build.

Nothing here imports a framework. Names and shapes of all weights follow from the tables, in MLX
names and layout (convolutions are (out, height, width, in / groups)).

References:
    Sandler et al., MobileNetV2, CVPR 2018. Tan and Le, EfficientNet, ICML 2019.
    He et al., Delving Deep into Rectifiers, ICCV 2015 (initialisation).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from mlx_faceau.errors import UsageError

from .facs import NUM_AUS
from .hog import HOG_SIZE
from .landmarks import NUM_LANDMARKS

BN_EPS = 1e-5
BN_MOMENTUM = 0.1
IMAGE_SIZE = 112
NUM_LOCAL_PARAMS = 34


@dataclass(frozen=True)
class Stage:
    """One row of a backbone's table: like blocks, one after another."""

    expand: int  # hidden width / input width
    channels: int  # output width
    repeats: int  # blocks in the stage
    stride: int  # of the first block; the others keep 1
    squeeze: bool = False  # squeeze-and-excitation on the hidden width


@dataclass(frozen=True)
class Block:
    """One inverted residual block: [expand 1x1] -> depthwise 3x3 -> [squeeze] -> project 1x1."""

    in_channels: int
    hidden: int
    out_channels: int
    stride: int
    expand: bool  # whether the 1x1 expansion exists
    squeeze: int  # squeeze width; 0: no squeeze-and-excitation

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Backbone:
    """A backbone's table; ``width_mult`` is a factor on every channel count but the head's."""

    activation: str  # "relu6" or "silu"
    stem: int  # channels of the first 3x3 stride 2 convolution
    head: int  # channels of the last 1x1 convolution
    stages: tuple[Stage, ...]

    def head_channels(self, width_mult: float) -> int:
        """Channels after the last convolution, which grow with wider nets alone."""
        return int(self.head * max(1.0, width_mult))

    def blocks(self, width_mult: float) -> Iterator[Block]:
        """All blocks in order, with their channel counts."""
        channels = int(self.stem * width_mult)
        for stage in self.stages:
            out = int(stage.channels * width_mult)
            for index in range(stage.repeats):
                hidden = round(channels * stage.expand)
                yield Block(
                    in_channels=channels,
                    hidden=hidden,
                    out_channels=out,
                    stride=stage.stride if index == 0 else 1,
                    expand=stage.expand != 1,
                    squeeze=max(1, hidden // 4) if stage.squeeze else 0,
                )
                channels = out


# Sandler et al. 2018, table 2, for a 112 x 112 input.
MOBILENET_V2 = Backbone(
    activation="relu6",
    stem=32,
    head=1280,
    stages=(
        #     expand channels repeats stride
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 2),
        Stage(6, 32, 3, 2),
        Stage(6, 64, 4, 2),
        Stage(6, 96, 3, 1),
        Stage(6, 160, 3, 2),
        Stage(6, 320, 1, 1),
    ),
)

# Tan and Le 2019, table 1, all depthwise kernels 3x3, squeeze-and-excitation from the third stage.
EFFICIENTNET_3X3 = Backbone(
    activation="silu",
    stem=32,
    head=1280,
    stages=(
        #     expand channels repeats stride squeeze
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 2),
        Stage(6, 40, 2, 2, True),
        Stage(6, 80, 3, 2, True),
        Stage(6, 112, 3, 1, True),
        Stage(6, 192, 4, 2, True),
        Stage(6, 320, 1, 1, True),
    ),
)


@dataclass(frozen=True)
class Head:
    """A stack of linear layers with ReLU between; ``dropouts[i]`` follows hidden layer ``i``."""

    name: str  # attribute of the net
    output: str  # key of the prediction
    hidden: tuple[int, ...]
    outputs: int
    dropouts: tuple[float, ...]
    inputs: int = 0  # numbers that it reads; 0: the backbone's features


@dataclass(frozen=True)
class LandmarkPoseConfig:
    """Settings of ``UnifiedLandmarkPoseNet``."""

    kind: ClassVar[str] = "landmark_pose"
    backbone: ClassVar[Backbone] = MOBILENET_V2

    width_mult: float = 1.0
    num_landmarks: int = NUM_LANDMARKS
    num_local_params: int = NUM_LOCAL_PARAMS
    image_size: int = IMAGE_SIZE
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _check(self)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The stacks of linear layers on the features, in the order of the outputs."""
        drop = (self.dropout, 0.0)
        return (
            Head("landmark_head", "landmarks", (512, 256), 2 * self.num_landmarks, drop),
            Head("global_head", "global_params", (256, 128), 6, drop),
            Head("local_head", "local_params", (256, 128), self.num_local_params, drop),
        )

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each prediction of one face, in output order."""
        return {
            "landmarks": (self.num_landmarks, 2),
            "global_params": (6,),
            "local_params": (self.num_local_params,),
        }


@dataclass(frozen=True)
class AUPredictionConfig:
    """Settings of ``AUPredictionNet``."""

    kind: ClassVar[str] = "au_prediction"
    backbone: ClassVar[Backbone] = EFFICIENTNET_3X3
    image_size: ClassVar[int] = IMAGE_SIZE

    width_mult: float = 1.0
    dropout: float = 0.3

    def __post_init__(self) -> None:
        _check(self)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The stacks of linear layers on the features, in the order of the outputs."""
        drop = (self.dropout, self.dropout)
        return (Head("au_head", "au_intensities", (256, 128), NUM_AUS, drop),)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each prediction of one face, in output order."""
        return {"au_intensities": (NUM_AUS,)}


@dataclass(frozen=True)
class HOGHeadConfig(AUPredictionConfig):
    """Settings of an action unit net that reads gradients of the aligned face.

    The backbone finds landmarks and shape parameters; intensities are linear in them and in the
    features of core/hog.py. Such a net is made of a trained one (see train/hog_head.py).
    """

    hog_head: int = 2  # its version, by which a file's metadata tell the net

    @property
    def heads(self) -> tuple[Head, ...]:
        """The landmarks and shape parameters, in units of the features; then the intensities."""
        return (
            Head("geometry_head", "geometry", (), 2 * NUM_LANDMARKS + NUM_LOCAL_PARAMS, ()),
            Head("hog_head", "au_intensities", (), NUM_AUS, (), HOG_SIZE + NUM_LOCAL_PARAMS),
        )


ModelConfig = LandmarkPoseConfig | AUPredictionConfig
CONFIGS: dict[str, type[LandmarkPoseConfig] | type[AUPredictionConfig]] = {
    config.kind: config for config in (LandmarkPoseConfig, AUPredictionConfig)
}


def _check(config: ModelConfig) -> None:
    if not np.isfinite(config.width_mult) or not 0 < config.width_mult <= 8:
        raise UsageError(f"width_mult is {config.width_mult}, expected a number in (0, 8]")
    narrowest = min(s.channels for s in config.backbone.stages)
    if int(narrowest * config.width_mult) < 1:
        raise UsageError(f"width_mult {config.width_mult} leaves a stage without channels")
    if not 0.0 <= config.dropout < 1.0:
        raise UsageError(f"dropout is {config.dropout}, expected 0 <= dropout < 1")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type in (int, "int") and (not isinstance(value, int) or not 0 < value <= 4096):
            raise UsageError(f"{field.name} is {value!r}, expected a whole number in [1, 4096]")


def config_from_dict(kind: str, settings: Mapping[str, Any]) -> ModelConfig:
    """The net's settings from a file's metadata; UsageError for an unknown kind, key or value."""
    if kind not in CONFIGS:
        raise UsageError(f"unknown kind of net {kind!r}, expected one of {', '.join(CONFIGS)}")
    config = CONFIGS[kind]
    if kind == HOGHeadConfig.kind and "hog_head" in settings:
        config = HOGHeadConfig
        if settings["hog_head"] != config.hog_head:
            raise UsageError(
                f"has a HOG head of version {settings['hog_head']}, expected {config.hog_head}; "
                "update mlx-faceau, or train another epoch with --init and --auxiliary-weight"
            )
    unknown = set(settings) - {field.name for field in fields(config)}
    if unknown:
        raise UsageError(f"unknown setting of a {kind} net: {', '.join(sorted(unknown))}")
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{name} is {value!r}, expected a number")
    return config(**settings)


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and BatchNorm statistic, in MLX names and layout."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_norm(name: str, out: int, kernel: int, fan_in: int) -> None:
        shapes[f"{name}.conv.weight"] = (out, kernel, kernel, fan_in)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{part}"] = (out,)

    width, backbone = config.width_mult, config.backbone
    blocks = list(backbone.blocks(width))
    conv_norm("backbone.stem", blocks[0].in_channels, 3, 3)
    for index, block in enumerate(blocks):
        name = f"backbone.blocks.{index}"
        if block.expand:
            conv_norm(f"{name}.expand", block.hidden, 1, block.in_channels)
        conv_norm(f"{name}.depthwise", block.hidden, 3, 1)
        if block.squeeze:
            shapes[f"{name}.squeeze.reduce.weight"] = (block.squeeze, 1, 1, block.hidden)
            shapes[f"{name}.squeeze.reduce.bias"] = (block.squeeze,)
            shapes[f"{name}.squeeze.excite.weight"] = (block.hidden, 1, 1, block.squeeze)
            shapes[f"{name}.squeeze.excite.bias"] = (block.hidden,)
        conv_norm(f"{name}.project", block.out_channels, 1, block.hidden)
    features = backbone.head_channels(width)
    conv_norm("backbone.head", features, 1, blocks[-1].out_channels)
    for head in config.heads:
        widths = (head.inputs or features, *head.hidden, head.outputs)
        for index, (fan_in, out) in enumerate(pairwise(widths)):
            shapes[f"{head.name}.layers.{index}.weight"] = (out, fan_in)
            shapes[f"{head.name}.layers.{index}.bias"] = (out,)
    if isinstance(config, HOGHeadConfig):
        shapes["hog.template"] = (NUM_LANDMARKS, 2)
        shapes["hog.shift.weight"] = (2, 2 * NUM_LANDMARKS)
        shapes["hog.shift.bias"] = (2,)
    return shapes


def is_statistic(name: str) -> bool:
    """Whether a weight is a BatchNorm running statistic: saved, never trained."""
    return name.endswith((".running_mean", ".running_var"))


def count_parameters(config: ModelConfig) -> int:
    """Number of trainable parameters."""
    shapes = weight_shapes(config)
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if not is_statistic(name))


def initial_weights(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Weights of an untrained net, the same for both frameworks: all of :func:`weight_shapes`.

    Convolutions are He normal (fan-out), linear layers N(0, 0.01), BatchNorm gamma 1 and beta 0,
    biases 0; float32.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        if len(shape) == 4:
            deviation = np.sqrt(2.0 / (shape[0] * shape[1] * shape[2]))
            value = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        elif len(shape) == 2:
            value = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.01)
        elif name.endswith((".norm.weight", ".running_var")):
            value = np.ones(shape, np.float32)
        else:
            value = np.zeros(shape, np.float32)
        weights[name] = value
    return weights


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights for checks of equality: every pixel, weight and layer matters to the outputs.

    Signals stay of order one through all layers; BatchNorm statistics are random too. An untrained
    net's output hardly depends on the face, so that a swapped channel would not show.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        if len(shape) > 1:
            value = rng.normal(0, np.sqrt(2 / int(np.prod(shape[1:]))), shape)
        elif name.endswith(("norm.weight", "running_var")):
            value = rng.uniform(0.7, 1.3, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        if name.endswith("excite.bias"):
            value += 2  # gates that are half open would damp the signal in every block
        weights[name] = value.astype(np.float32)
    if config.kind == "landmark_pose":  # translations of a face, not of some hundred pixels
        weights["global_head.layers.2.weight"][4:] *= np.float32(0.2)
    if isinstance(config, HOGHeadConfig):  # landmarks near some face's
        face = rng.uniform(-0.7, 0.7, weights["hog.template"].shape).astype(np.float32)
        weights["hog.template"] = face
        weights["hog.shift.weight"] *= np.float32(0.02)
        weights["hog.shift.bias"] *= np.float32(0.1)
        weights["geometry_head.layers.0.weight"] *= np.float32(0.05)
        weights["geometry_head.layers.0.bias"][: face.size] = face.ravel()
        weights["hog_head.layers.0.bias"] += 1
    elif config.kind == "au_prediction":  # most units are active, near 2
        weights["au_head.layers.2.weight"] *= np.float32(0.3)
        weights["au_head.layers.2.bias"] += 1
    return weights


def output_biases(config: ModelConfig, means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Biases of the last layers that make an untrained net predict the mean target.

    Each mean goes through the inverse of its head's activation; action units start at 0.1 at
    least, so that no ReLU output starts dead. The bias of an output without a mean is left out.
    """
    biases = {}
    for head in config.heads:
        if head.output not in means:
            continue
        mean = bias = np.asarray(means[head.output], np.float64).reshape(-1)
        if head.output == "landmarks":
            inside = np.clip(mean / config.image_size, 1e-3, 1 - 1e-3)
            bias = np.log(inside) - np.log1p(-inside)
        elif head.output == "global_params":
            above = np.maximum(mean[:1] - 0.1, 1e-3)
            angles = np.arctanh(np.clip(mean[1:4] / (np.pi / 2), -0.99, 0.99))
            bias = np.concatenate([above + np.log(-np.expm1(-above)), angles, mean[4:] / 100])
        elif head.output == "au_intensities":
            bias = np.maximum(mean, 0.1)
        biases[f"{head.name}.layers.{len(head.hidden)}.bias"] = bias.astype(np.float32)
    return biases
