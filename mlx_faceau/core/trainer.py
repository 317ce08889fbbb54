"""What the trainers of MLX and torch share: settings, loss terms and the parts of a batch.

References:
    Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013 (clipping).
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (AdamW).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_faceau.errors import CheckpointError

from . import architectures
from .arrays import namespace
from .auxiliary_head import AuxiliaryAUConfig
from .checkpoint import check_arrays, section
from .hog import HOG_SIZE, Sampler, hog_constants, hog_features
from .landmarks import NUM_LANDMARKS
from .losses import AUPredictionLoss, AuxiliaryAULoss, LandmarkPoseLoss

Arrays = dict[str, np.ndarray]

CLIP_NORM = 1.0  # of all gradients together
LOSSES: dict[type[architectures.ModelConfig], Callable[..., Any]] = {
    architectures.LandmarkPoseConfig: LandmarkPoseLoss,
    architectures.AUPredictionConfig: AUPredictionLoss,
    AuxiliaryAUConfig: AuxiliaryAULoss,
}


class Ranks:
    """A process among those that train together."""

    rank: int  # counted from 0
    size: int  # number of processes

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all ranks must call this together."""
        return flag if self.size == 1 else self._vote(flag)

    def all_rows(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The rows of all ranks in their order; gradients flow into this rank's own."""
        if self.size == 1:
            return arrays
        return {name: self._gather(values) for name, values in arrays.items()}

    def _vote(self, flag: bool) -> bool:
        raise NotImplementedError

    def _gather(self, values: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class TrainerSettings:
    """How one net is trained."""

    config: architectures.ModelConfig
    weights: Mapping[str, np.ndarray]  # the net's first ones, in MLX names and layout
    loss_options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the net's loss
    # Mean and standard deviation of the outputs whose loss is standardised.
    scaling: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    weight_decay: float = 0.0  # of weights; biases and BatchNorm do not decay
    seed: int = 0  # of dropout
    accumulate: int = 1  # equal parts of a batch that go through the net one after the other
    # Share of the old average of the weights that stays after a step, counted from 0; None keeps
    # no average. BatchNorm's statistics are averaged with the weights, so that they belong to
    # weights of the same age; predictions come from the average.
    averaging: Callable[[int], float] | None = None
    # Of feature maps in training: float32, bfloat16 or float16 (torch alone, with a scaled loss).
    # Weights, losses, heads and BatchNorm's statistics stay float32.
    precision: str = "float32"
    device: str = "auto"  # or cpu, gpu, cuda, mps
    # Weights of a HOG head on the auxiliary head's outputs (see train/hog_head.py), which stay as
    # they are; its intensities have a loss of their own. None for a net without one.
    hog_head: Mapping[str, np.ndarray] | None = None


class Trainer:
    """One net, its loss and its AdamW on one device, in one framework."""

    settings: TrainerSettings
    # Processes that train together; batches are then this one's parts. The loss is that of all
    # ranks' faces together, and BatchNorm's statistics are averaged in every step.
    ranks: Any  # the framework's
    net: Any  # the framework's
    average: Any  # the same net with averaged weights; None where none are kept
    sample: Sampler | None = None  # the framework's, for core/hog.py

    @classmethod
    def join(cls, device: str, precision: str, seconds: float) -> Ranks:
        """Meet the processes that a launcher started with this one; an exchange may take so long.

        BackendError is raised if they cannot train on this device, or not in this precision.
        """
        raise NotImplementedError

    def __init__(self, settings: TrainerSettings, ranks: Ranks | None) -> None:
        self.settings, self.ranks = settings, ranks
        self.loss = LOSSES[type(settings.config)](**settings.loss_options)
        self.scaling = {
            name: tuple(self.array(np.asarray(part, np.float32)) for part in pair)
            for name, pair in settings.scaling.items()
        }
        hog = {**hog_constants(), **settings.hog_head} if settings.hog_head else {}
        self._hog = {name: self.array(array) for name, array in hog.items()}

    def array(self, values: np.ndarray) -> Any:
        """A NumPy array as the framework's, on the device."""
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        """Framework, its version and the device."""
        raise NotImplementedError

    def device_memory(self) -> int:
        """Bytes that were in use at most on a GPU; 0 on a CPU."""
        raise NotImplementedError

    def step(self, batch: Arrays, learning_rate: float) -> Mapping[str, Any]:
        """Take one optimizer step by the mean gradient of the batch's parts.

        The batch holds ``images`` (B, 112, 112, 3) uint8 RGB and the targets. Returns the loss
        terms, scalars that a GPU may still be computing.
        """
        raise NotImplementedError

    def predict(self, images: np.ndarray) -> Arrays:
        """float32 outputs of (N, 112, 112, 3) uint8 RGB, from averaged weights if there are any."""
        raise NotImplementedError

    def features(self, images: np.ndarray) -> np.ndarray:
        """(N, channels) float32 of the backbone, of (N, 112, 112, 3) uint8 RGB; as in predict."""
        raise NotImplementedError

    def hog_inputs(self, images: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
        """(N, 4498) float32 that a HOG head reads, of (N, 112, 112, 3) uint8 RGB.

        ``auxiliary`` (N, 170 or more) float32 are the auxiliary head's outputs.
        """
        raise NotImplementedError

    def state(self) -> Arrays:
        """All that the next step depends on: ``model.``, ``ema.``, ``optimizer.``, ``rng.``."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from :meth:`state`, also from the other framework's.

        The other framework's random state cannot be taken over: dropout then starts from the seed.
        """
        raise NotImplementedError

    def losses(self, predictions: Arrays, targets: Arrays) -> dict[str, float]:
        """Loss terms of all predictions taken as one batch."""
        terms = self.loss_terms(self.arrays(predictions), self.arrays(targets))
        return {name: float(value) for name, value in terms.items()}

    def arrays(self, values: Arrays) -> dict[str, Any]:
        """Those that the loss reads, as the framework's arrays."""
        read = {*self.settings.config.output_shapes, "global_mask", "local_mask"}
        return {name: self.array(value) for name, value in values.items() if name in read}

    def with_hog_head(self, predictions: dict[str, Any], images: Any) -> dict[str, Any]:
        """Predictions, and the HOG head's ``hog_intensities`` (N, 17) where there is one.

        Both are the framework's; ``images`` (N, 112, 112, 3) RGB in [0, 1].
        """
        if not self._hog:
            return predictions
        features, shape = self._hog_inputs(images, predictions["auxiliary"])
        linear, bias = self._hog["linear.weight"], self._hog["linear.bias"]
        found = features @ linear[:HOG_SIZE] + shape @ linear[HOG_SIZE:] + bias
        return {**predictions, "hog_intensities": namespace(found).where(found > 0, found, 0.0)}

    def _hog_inputs(self, images: Any, auxiliary: Any) -> tuple[Any, Any]:
        """HOG features (N, 4464) and scaled shape parameters (N, 34), which the HOG head reads."""
        hog = self._hog
        grey = (images * hog["luminance"]).sum(3)
        geometry = auxiliary[:, : len(hog["scale"])] * hog["scale"] + hog["first"]
        points = geometry[:, : 2 * NUM_LANDMARKS].reshape(-1, NUM_LANDMARKS, 2)
        features = hog_features(grey, points, hog, hog, self.sample)
        return features, geometry[:, 2 * NUM_LANDMARKS :]

    def loss_terms(self, predictions: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        """The loss terms, scalars, of predictions and targets in the labels' units."""
        return self.loss(self._standardised(predictions), self._standardised(targets))

    def _standardised(self, values: Mapping[str, Any]) -> dict[str, Any]:
        scaling = self.scaling.items()
        scaled = {name: (values[name] - mean) / deviation for name, (mean, deviation) in scaling}
        return {**values, **scaled}

    def weight_arrays(self) -> Arrays:
        """The weights' part of :meth:`state`."""
        nets = {"model": self.net} | ({"ema": self.average} if self.average is not None else {})
        return {
            f"{prefix}.{name}": array
            for prefix, net in nets.items()
            for name, array in net.to_weights().items()
        }

    def restore_weights(self, state: Mapping[str, np.ndarray]) -> None:
        """The weights' part of :meth:`restore`; CheckpointError if the optimizer's does not fit."""
        shapes = architectures.weight_shapes(self.settings.config).items()
        trained = {name: shape for name, shape in shapes if not architectures.is_statistic(name)}
        for moment in ("m", "v"):
            moments = section(state, f"optimizer.{moment}.")
            check_arrays(trained, moments, f"its optimizer's {moment} does not fit the net")
        step = state.get("optimizer.step")
        if step is None or step.shape != (1,) or step.dtype.kind not in "iu" or step[0] < 0:
            raise CheckpointError("its optimizer.step is not the number of a step")
        self.net.load_weights_dict(section(state, "model."))
        if self.average is not None:
            self.average.load_weights_dict(section(state, "ema."))


def split_batch(batch: Mapping[str, np.ndarray], count: int) -> list[Arrays]:
    """A batch of arrays of one length in ``count`` equal parts, in order."""
    size = len(batch["images"]) // count
    return [
        {name: values[i * size : (i + 1) * size] for name, values in batch.items()}
        for i in range(count)
    ]


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one rank's dropout in one step, below 2**63.

    Drawn anew for each step, so that a resumed rank needs no random state of its own.
    """
    return ((seed * 1_000_003 + step) * 4_096 + rank) % 2**63
