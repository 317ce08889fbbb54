"""The training step in MLX; see :mod:`mlx_faceau.core.trainer`."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

# The package's models come first: they see to a fast BLAS before MLX is loaded.
from mlx_faceau.models import build, mx, nn, optim

# isort: split
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlx_faceau.core.architectures import is_statistic
from mlx_faceau.core.checkpoint import section
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.core.trainer import (
    CLIP_NORM,
    Arrays,
    Ranks,
    Trainer,
    TrainerSettings,
    dropout_seed,
    split_batch,
)
from mlx_faceau.errors import BackendError, CheckpointError

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


class MLXRanks(Ranks):
    """This process in the group that ``mlx.launch`` started; a group of one without it."""

    def __init__(self) -> None:
        self.group = mx.distributed.init()
        self.rank = self.group.rank()
        self.size = self.group.size()

    def _vote(self, flag: bool) -> bool:
        votes = mx.distributed.all_sum(mx.array(float(flag)), group=self.group, stream=mx.cpu)
        return bool(votes.item())

    def mean(self, tree: Any) -> Any:
        """The mean of every array over the ranks."""
        return nn.average_gradients(tree, self.group) if self.size > 1 else tree

    def _gather(self, values: mx.array) -> mx.array:
        rows, stop = len(values), mx.stop_gradient
        everyone = stop(mx.distributed.all_gather(stop(values), group=self.group, stream=mx.cpu))
        before, after = everyone[: self.rank * rows], everyone[(self.rank + 1) * rows :]
        return mx.concatenate([before, values, after])


class MLXTrainer(Trainer):
    """See :class:`mlx_faceau.core.trainer.Trainer`."""

    ranks: MLXRanks

    @classmethod
    def join(cls, device: str, precision: str, seconds: float) -> MLXRanks:
        use_device(device)
        check_precision(precision)
        return MLXRanks()  # which knows no limit of time

    def __init__(self, settings: TrainerSettings, ranks: MLXRanks | None = None) -> None:
        use_device(settings.device)
        check_precision(settings.precision)
        super().__init__(settings, ranks or MLXRanks())
        self.net = build(settings.config, settings.weights)
        averaged = settings.averaging is not None
        self.average = build(settings.config, settings.weights).eval() if averaged else None
        self._precision = getattr(mx, settings.precision)
        self._optimizer = AdamW(settings.weight_decay)
        self._optimizer.init(self.net.trainable_parameters())
        self._functions: StepFunctions | None = None
        mx.random.seed(settings.seed)

    def array(self, values: np.ndarray) -> mx.array:
        return mx.array(values)

    def describe(self) -> dict[str, str]:
        return {"framework": "mlx", "mlx": version("mlx"), "device": "cpu" if _on_cpu() else "gpu"}

    def device_memory(self) -> int:
        return 0 if _on_cpu() else int(mx.get_peak_memory())

    def step(self, batch: Arrays, learning_rate: float) -> MXArrays:
        if not self.net.training:
            self.net.train()
        if self._functions is None:
            self._functions = self._step_functions()
        gradients_of, apply = self._functions
        self._optimizer.learning_rate = learning_rate
        step, parts = int(self._optimizer.step), self.settings.accumulate
        if self.ranks.size > 1:
            mx.random.seed(dropout_seed(self.settings.seed, step, self.ranks.rank))
        total: Any = None
        for part in split_batch(batch, parts):
            new = gradients_of(mx.array(part["images"]), self.arrays(part))
            total = new if total is None else tree_map(mx.add, total, new)
            if parts > 1:
                mx.eval(total, self.net.state)  # or all parts would be in memory together
        if parts > 1:
            total = tree_map(lambda value: value / parts, total)
        terms, gradients = total
        apply(self.ranks.mean(gradients))
        if self.ranks.size > 1:
            named = tree_flatten(self.net.parameters())
            own = {name: value for name, value in named if is_statistic(name)}
            self.net.update(tree_unflatten(list(self.ranks.mean(own).items())))
        mx.eval(terms, self.net.state, self._optimizer.state)
        if self.settings.averaging is not None:
            share = 1 - self.settings.averaging(step)
            moved = tree_map(
                lambda old, new: old + share * (new - old),
                self.average.parameters(),
                self.net.parameters(),
            )
            self.average.update(moved)
            mx.eval(moved)
        return dict(terms)

    def _step_functions(self) -> StepFunctions:
        """Gradients, and the step they take.

        Compiled on a GPU: on a CPU that gains little and takes minutes of g++.
        """

        def loss(images: mx.array, targets: MXArrays) -> tuple[mx.array, MXArrays]:
            images = scaled(images)
            predictions = self.with_hog_head(self.net(images.astype(self._precision)), images)
            terms = self.loss_terms(self.ranks.all_rows(predictions), self.ranks.all_rows(targets))
            # A rank's gradients are its share of the sum over ranks, of which the mean is taken.
            return terms["loss"] * self.ranks.size, terms

        gradients_of = nn.value_and_grad(self.net, loss)

        def terms_and_gradients(images: mx.array, targets: MXArrays) -> tuple[MXArrays, Any]:
            (_, terms), gradients = gradients_of(images, targets)
            return terms, gradients

        def apply(gradients: Any) -> None:
            gradients, _ = optim.clip_grad_norm(gradients, CLIP_NORM)
            self._optimizer.update(self.net, gradients)

        if _on_cpu():
            return terms_and_gradients, apply
        random, net, optimizer = mx.random.state, self.net.state, self._optimizer.state
        return (
            mx.compile(terms_and_gradients, inputs=[net, random], outputs=[net, random]),
            mx.compile(apply, inputs=[net, optimizer], outputs=[net, optimizer]),
        )

    def predict(self, images: np.ndarray) -> Arrays:
        net = self.net.eval() if self.average is None else self.average
        outputs = net(scaled(mx.array(images)))
        mx.eval(outputs)
        return {name: np.array(value) for name, value in outputs.items()}

    def features(self, images: np.ndarray) -> np.ndarray:
        net = self.net.eval() if self.average is None else self.average
        return np.array(net.backbone(scaled(mx.array(images))))

    def hog_inputs(self, images: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
        inputs = self._hog_inputs(scaled(mx.array(images)), self.array(auxiliary))
        return np.array(mx.concatenate(list(inputs), axis=1))

    def state(self) -> Arrays:
        arrays = self.weight_arrays()
        for name, value in tree_flatten(self._optimizer.state):
            weight, _, moment = name.rpartition(".")
            if weight:
                arrays[f"optimizer.{moment}.{weight}"] = np.array(value)
        arrays["optimizer.step"] = np.array([int(self._optimizer.step)])
        random: list[mx.array] = mx.random.state  # type: ignore[assignment]
        arrays["rng.mlx"] = np.array(random[0])
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.restore_weights(state)
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
            if state["rng.mlx"].shape != (2,):
                raise CheckpointError("its random state is not MLX's")
            first, second = (int(word) for word in state["rng.mlx"])
            mx.random.seed((first << 32) | second)


def scaled(images: mx.array) -> mx.array:
    """preprocess.scale_rgb on the device."""
    return images.astype(mx.float32) / PIXEL_MAX


def _on_cpu() -> bool:
    return bool(mx.default_device() == mx.Device(mx.cpu))


def use_device(name: str) -> None:
    """Make the device that ``--device`` names MLX's default one."""
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
    """Raise BackendError unless MLX trains in this precision on its default device."""
    if precision == "float16":
        raise BackendError(
            "--precision float16 needs loss scaling, which only torch has; with MLX choose bfloat16"
        )
    if precision != "float32" and _on_cpu():
        raise BackendError(f"--precision {precision} needs a GPU; on a CPU it is slower")
