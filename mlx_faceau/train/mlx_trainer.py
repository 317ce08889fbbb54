"""The training step in MLX; epochs, schedule and checkpoints are ``loop.py``'s.

References:
    Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013 (clipping).
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (AdamW).
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

# The package's models come first: they see to a fast BLAS before MLX is loaded.
from mlx_faceau.models import build, mx, nn, optim

# isort: split
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_faceau.core.architectures import (
    AUPredictionConfig,
    LandmarkPoseConfig,
    ModelConfig,
    is_statistic,
)
from mlx_faceau.core.auxiliary_head import AuxiliaryAUConfig
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.core.training_step import CLIP_NORM, dropout_seed, section, split_batch
from mlx_faceau.errors import BackendError
from mlx_faceau.models.losses import AUPredictionLoss, AuxiliaryAULoss, LandmarkPoseLoss

from .mlx_distributed import MLXRanks

LOSSES: dict[type[ModelConfig], Callable[..., Any]] = {
    LandmarkPoseConfig: LandmarkPoseLoss,
    AUPredictionConfig: AUPredictionLoss,
    AuxiliaryAUConfig: AuxiliaryAULoss,
}

Arrays = dict[str, np.ndarray]
MXArrays = dict[str, mx.array]
# (images, targets) -> terms and gradients; gradients -> the optimizer's step
StepFunctions = tuple[Callable[..., Any], Callable[[Any], None]]


class AdamW(optim.Adam):  # type: ignore[misc]
    """Bias-corrected Adam with decoupled decay, as torch has it, of matrices and kernels only.

    Biases and BatchNorm have one dimension and do not decay.
    """

    def __init__(self, weight_decay: float) -> None:
        super().__init__(learning_rate=0.0, bias_correction=True)
        self.weight_decay = weight_decay

    def apply_single(
        self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]
    ) -> mx.array:
        """One parameter after the step; called by MLX."""
        if parameter.ndim > 1:
            parameter = parameter * (1 - self.learning_rate * self.weight_decay)
        updated: mx.array = super().apply_single(gradient, parameter, state)
        return updated


class MLXTrainer:
    """One net, its loss and its AdamW on one device.

    Args:
        config: settings of the net.
        weights: its first weights.
        loss_options: arguments of the net's loss.
        scaling: mean and standard deviation of the outputs whose loss is standardised.
        weight_decay: of weights; biases and BatchNorm do not decay.
        accumulate: equal parts of a batch that go through the net one after the other.
        averaging: share of the old average of the weights that stays after a step, counted from
            0; None keeps no average. BatchNorm's statistics are averaged with the weights, so that
            they belong to weights of the same age; predictions come from the average.
        seed: of dropout.
        precision: of feature maps in training, ``float32`` or ``bfloat16``. Weights, losses,
            BatchNorm's moments, heads and predictions stay float32.
        device: ``auto``, ``cpu`` or ``gpu``.
        ranks: processes that train together; batches are then this one's parts. The loss is that
            of all ranks' faces together, and BatchNorm's statistics are averaged in every step.

    Raises:
        BackendError: if the device is not there, not one of MLX's, or cannot do what is asked.
        CheckpointError: if the weights are not this net's.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, np.ndarray],
        *,
        loss_options: Mapping[str, Any],
        scaling: Mapping[str, tuple[np.ndarray, np.ndarray]],
        weight_decay: float,
        seed: int,
        accumulate: int = 1,
        averaging: Callable[[int], float] | None = None,
        precision: str = "float32",
        device: str = "auto",
        ranks: MLXRanks | None = None,
    ) -> None:
        use_device(device)
        check_precision(precision)
        self._precision = getattr(mx, precision)
        self.ranks = ranks or MLXRanks()
        self._seed = seed
        self.net = build(config)
        self.net.load_weights_dict(weights)
        self._loss = LOSSES[type(config)](**loss_options)
        self._targets = {*config.output_shapes, "global_mask", "local_mask"}
        self._scaling = {
            name: tuple(mx.array(np.asarray(part, np.float32)) for part in pair)
            for name, pair in scaling.items()
        }
        self._optimizer = AdamW(weight_decay)
        self._optimizer.init(self.net.trainable_parameters())
        self._accumulate = accumulate
        self._averaging = averaging
        self._average = build(config).eval() if averaging else None
        if self._average is not None:
            self._average.load_weights_dict(weights)
        self._functions: StepFunctions | None = None
        mx.random.seed(seed)

    def describe(self) -> dict[str, str]:
        """What the history records about where training ran."""
        device = "cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"
        return {"framework": "mlx", "mlx": version("mlx"), "device": device}

    def device_memory(self) -> int:
        """Bytes that were in use at most on a GPU; 0 on a CPU."""
        on_cpu = mx.default_device() == mx.Device(mx.cpu)
        return 0 if on_cpu else int(mx.get_peak_memory())

    def step(self, batch: Arrays, learning_rate: float) -> MXArrays:
        """Take one optimizer step by the mean gradient of the batch's parts.

        Args:
            batch: ``images`` (B, 112, 112, 3) uint8 RGB and the targets.
            learning_rate: of this step.

        Returns:
            The loss terms, scalars.
        """
        if not self.net.training:
            self.net.train()
        if self._functions is None:
            self._functions = self._step_functions()
        gradients_of, apply = self._functions
        self._optimizer.learning_rate = learning_rate
        if self.ranks.size > 1:
            step = int(self._optimizer.step)
            mx.random.seed(dropout_seed(self._seed, step, self.ranks.rank))
        total: Any = None
        for part in split_batch(batch, self._accumulate):
            new = gradients_of(mx.array(part["images"]), self._arrays(part))
            total = new if total is None else tree_map(mx.add, total, new)
            if self._accumulate > 1:
                mx.eval(total, self.net.state)  # or all parts would be in memory together
        if self._accumulate > 1:
            total = tree_map(lambda value: value / self._accumulate, total)
        terms, gradients = total
        apply(self.ranks.mean(gradients))
        if self.ranks.size > 1:
            named = tree_flatten(self.net.parameters())
            own = {name: value for name, value in named if is_statistic(name)}
            self.net.update(tree_unflatten(list(self.ranks.mean(own).items())))
        mx.eval(terms, self.net.state, self._optimizer.state)
        self._update_average()
        return dict(terms)

    def _step_functions(self) -> StepFunctions:
        """Gradients, and the step they take.

        Compiled on a GPU: on a CPU that gains little and takes minutes of g++.
        """

        def loss(images: mx.array, targets: MXArrays) -> tuple[mx.array, MXArrays]:
            predictions = self.net(scaled(images).astype(self._precision))
            terms = self._terms(self.ranks.all_rows(predictions), self.ranks.all_rows(targets))
            # A rank's gradients are its share of the sum over ranks, of which the mean is taken.
            return terms["loss"] * self.ranks.size, terms

        gradients_of = nn.value_and_grad(self.net, loss)

        def terms_and_gradients(images: mx.array, targets: MXArrays) -> tuple[MXArrays, Any]:
            (_, terms), gradients = gradients_of(images, targets)
            return terms, gradients

        def apply(gradients: Any) -> None:
            gradients, _ = optim.clip_grad_norm(gradients, CLIP_NORM)
            self._optimizer.update(self.net, gradients)

        if mx.default_device() == mx.Device(mx.cpu):
            return terms_and_gradients, apply
        random, net, optimizer = mx.random.state, self.net.state, self._optimizer.state
        return (
            mx.compile(terms_and_gradients, inputs=[net, random], outputs=[net, random]),
            mx.compile(apply, inputs=[net, optimizer], outputs=[net, optimizer]),
        )

    def _update_average(self) -> None:
        if self._averaging is None or self._average is None:
            return
        share = 1 - self._averaging(int(self._optimizer.step) - 1)
        moved = tree_map(
            lambda old, new: old + share * (new - old),
            self._average.parameters(),
            self.net.parameters(),
        )
        self._average.update(moved)
        mx.eval(moved)

    def predict(self, images: np.ndarray) -> Arrays:
        """Outputs in evaluation mode, of the averaged weights when there are any.

        Args:
            images: (N, 112, 112, 3) uint8 RGB.

        Returns:
            float32 arrays by output name.
        """
        net = self.net.eval() if self._average is None else self._average
        outputs = net(scaled(mx.array(images)))
        mx.eval(outputs)
        return {name: np.array(value) for name, value in outputs.items()}

    def losses(self, predictions: Arrays, targets: Arrays) -> dict[str, float]:
        """Loss terms of all predictions taken as one batch."""
        terms = self._terms(self._arrays(predictions), self._arrays(targets))
        return {name: float(value) for name, value in terms.items()}

    def state(self) -> Arrays:
        """Everything the next step depends on, under the checkpoint's prefixes."""
        arrays = {f"model.{name}": value for name, value in self.net.to_weights().items()}
        if self._average is not None:
            averages = self._average.to_weights()
            arrays |= {f"ema.{name}": value for name, value in averages.items()}
        for name, value in tree_flatten(self._optimizer.state):
            weight, _, moment = name.rpartition(".")
            if weight:
                arrays[f"optimizer.{moment}.{weight}"] = np.array(value)
        arrays["optimizer.step"] = np.array([int(self._optimizer.step)])
        arrays["rng.mlx"] = np.array(_random_key())
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from :meth:`state`, also from the other framework's.

        The other framework's random state cannot be taken over: dropout then starts from the seed.
        """
        self.net.load_weights_dict(section(state, "model."))
        if self._average is not None:
            self._average.load_weights_dict(section(state, "ema."))
        moments = [
            (f"{name}.{moment}", mx.array(value))
            for moment in ("m", "v")
            for name, value in section(state, f"optimizer.{moment}.").items()
        ]
        self._optimizer.state = {
            "step": mx.array(int(state["optimizer.step"][0]), mx.uint64),
            "learning_rate": mx.array(0.0),
            **dict(tree_unflatten(moments)),
        }
        self._functions = None  # compiled ones hold on to the arrays they captured
        if "rng.mlx" in state:
            first, second = (int(word) for word in state["rng.mlx"])
            mx.random.seed((first << 32) | second)

    def _arrays(self, arrays: Arrays) -> MXArrays:
        return {name: mx.array(value) for name, value in arrays.items() if name in self._targets}

    def _terms(self, predictions: MXArrays, targets: MXArrays) -> MXArrays:
        terms: MXArrays = self._loss(self._standardised(predictions), self._standardised(targets))
        return terms

    def _standardised(self, values: MXArrays) -> MXArrays:
        rescaled = {
            name: (values[name] - mean) / deviation
            for name, (mean, deviation) in self._scaling.items()
        }
        return {**values, **rescaled}


def scaled(images: mx.array) -> mx.array:
    """preprocess.scale_rgb on the device."""
    return images.astype(mx.float32) / PIXEL_MAX


def _random_key() -> mx.array:
    state: list[mx.array] = mx.random.state  # type: ignore[assignment]
    return state[0]


def use_device(name: str) -> None:
    """Make the device that ``--device`` names MLX's default one.

    Raises:
        BackendError: if it is missing, or is one of torch's.
    """
    if name == "auto":
        return
    devices = {"cpu": mx.cpu, "gpu": mx.gpu}
    if name not in devices:
        raise BackendError(f"--device {name} is torch's; with --framework mlx choose cpu or gpu")
    device = mx.Device(devices[name])
    if not mx.is_available(device):
        raise BackendError("MLX finds no gpu here; choose --device cpu")
    mx.set_default_device(device)


def check_precision(precision: str) -> None:
    """Check that MLX supports a precision on its default device.

    Raises:
        BackendError: if it does not.
    """
    if precision == "float16":
        raise BackendError(
            "--precision float16 needs loss scaling, which only torch has; with MLX choose bfloat16"
        )
    if precision != "float32" and mx.default_device() == mx.Device(mx.cpu):
        raise BackendError(f"--precision {precision} needs a GPU; on a CPU it is slower")
