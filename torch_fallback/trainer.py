"""The training step in torch; epochs, schedule and checkpoints are ``mlx_faceau.train.loop``'s.

References:
    Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013 (clipping).
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (AdamW).
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig, ModelConfig
from mlx_faceau.core.auxiliary_head import AuxiliaryAUConfig
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.core.training_step import CLIP_NORM, dropout_seed, section, split_batch

from . import build
from .device import (
    MEMORY_FORMAT,
    check_precision,
    keep_freed_memory,
    pick_device,
    to_device,
)
from .distributed import TorchRanks
from .losses import AUPredictionLoss, AuxiliaryAULoss, LandmarkPoseLoss
from .weight_layout import state_dict_from_weights, weights_from_state_dict

LOSSES: dict[type[ModelConfig], Callable[..., Any]] = {
    LandmarkPoseConfig: LandmarkPoseLoss,
    AUPredictionConfig: AUPredictionLoss,
    AuxiliaryAUConfig: AuxiliaryAULoss,
}

Arrays = dict[str, np.ndarray]
Tensors = dict[str, torch.Tensor]


class TorchTrainer:
    """One net, its loss and its AdamW on one device.

    Args:
        config: settings of the net.
        weights: its first weights, in MLX names and layout.
        loss_options: arguments of the net's loss.
        scaling: mean and standard deviation of the outputs whose loss is standardised.
        weight_decay: of weights; biases and BatchNorm do not decay.
        accumulate: equal parts of a batch that go through the net one after the other.
        averaging: share of the old average of the weights that stays after a step, counted from
            0; None keeps no average. BatchNorm's statistics are averaged with the weights, so that
            they belong to weights of the same age; predictions come from the average.
        seed: of dropout.
        precision: of the net's arithmetic: ``float32``, ``bfloat16`` or ``float16``, the latter
            with a scaled loss. Weights, losses and BatchNorm's statistics stay float32.
        device: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        ranks: processes that train together; batches are then this one's parts. The loss is that
            of all ranks' faces together, and BatchNorm's statistics are averaged in every step.

    Raises:
        BackendError: if the device is not there, or cannot do what is asked.
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
        ranks: TorchRanks | None = None,
    ) -> None:
        self.device = pick_device(device)
        check_precision(self.device, precision)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.net = build(config)
        self.net.load_weights_dict(weights)
        self.net.to(self.device, memory_format=MEMORY_FORMAT)  # type: ignore[call-overload]
        self._loss = LOSSES[type(config)](**loss_options)
        self._targets = {*config.output_shapes, "global_mask", "local_mask"}
        self._scaling = {
            name: tuple(torch.from_numpy(np.float32(part)).to(self.device) for part in pair)
            for name, pair in scaling.items()
        }
        self._optimizer = adamw(self.net, weight_decay)
        self._accumulate = accumulate
        self._precision = getattr(torch, precision)
        self._scaler = torch.amp.GradScaler(self.device.type) if precision == "float16" else None
        self._averaging = averaging
        self._average = deepcopy(self.net).eval() if averaging else None
        self.ranks = ranks or TorchRanks()
        self._seed = seed
        self._step = 0
        torch.manual_seed(seed)

    def describe(self) -> dict[str, str]:
        """What the history records about where training ran."""
        return {"framework": "torch", "torch": torch.__version__, "device": str(self.device)}

    def device_memory(self) -> int:
        """Bytes that were in use at most on a GPU; 0 on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # Metal tells no peak, but what it took from the system it keeps.
        return torch.mps.driver_allocated_memory() if self.device.type == "mps" else 0

    def step(self, batch: Arrays, learning_rate: float) -> Tensors:
        """Take one optimizer step by the mean gradient of the batch's parts.

        Args:
            batch: ``images`` (B, 112, 112, 3) uint8 RGB and the targets.
            learning_rate: of this step.

        Returns:
            The loss terms, scalars; on a GPU they may still be computed.
        """
        self.net.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        if self.ranks.size > 1:
            torch.manual_seed(dropout_seed(self._seed, self._step, self.ranks.rank))
        seen = [self._add_gradients(part) for part in split_batch(batch, self._accumulate)]
        # One exchange a step: with so small a net, sending while the backward pass still runs
        # (DistributedDataParallel) would gain little, and its loss is not that of all faces.
        self.ranks.average([p.grad for p in self.net.parameters() if p.grad is not None])
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self.ranks.average([b for b in self.net.buffers() if b.is_floating_point()])
        self._update_average()
        self._step += 1
        return {name: torch.stack([terms[name] for terms in seen]).mean() for name in seen[0]}

    def _add_gradients(self, part: Arrays) -> Tensors:
        half = self._precision != torch.float32
        with torch.autocast(self.device.type, self._precision, enabled=half):
            features = self.net.backbone(self._input(part["images"]))
        # In float32: bfloat16 would place a landmark within a quarter of a pixel.
        outputs = self.net.heads(features.float())
        targets = self._to_device(part)
        terms = self._terms(self.ranks.all_rows(outputs), self.ranks.all_rows(targets))
        # A rank's gradients are its share of the sum over ranks, of which the mean is taken.
        loss = terms["loss"] * (self.ranks.size / self._accumulate)
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        if self._averaging is None or self._average is None:
            return
        share = 1 - self._averaging(self._step)
        # All at once: on a GPU one call for each of hundreds of arrays takes as long as the step.
        torch._foreach_lerp_(_floats(self._average), _floats(self.net), share)

    def predict(self, images: np.ndarray) -> Arrays:
        """Outputs in evaluation mode, of the averaged weights when there are any.

        Args:
            images: (N, 112, 112, 3) uint8 RGB.

        Returns:
            float32 arrays by output name.
        """
        net = self._average or self.net.eval()
        with torch.inference_mode():
            outputs = net(self._input(images))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def losses(self, predictions: Arrays, targets: Arrays) -> dict[str, float]:
        """Loss terms of all predictions taken as one batch."""
        with torch.inference_mode():
            terms = self._terms(self._to_device(predictions), self._to_device(targets))
        return {name: float(value) for name, value in terms.items()}

    def state(self) -> Arrays:
        """Everything the next step depends on, under the checkpoint's prefixes."""
        arrays = {f"model.{name}": value for name, value in self.net.to_weights().items()}
        if self._average is not None:
            averages = self._average.to_weights()
            arrays |= {f"ema.{name}": value for name, value in averages.items()}
        for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
            tensors = {name: self._moment(p, key) for name, p in self.net.named_parameters()}
            for name, value in weights_from_state_dict(tensors).items():
                arrays[f"optimizer.{moment}.{name}"] = value
        arrays["optimizer.step"] = np.array([self._step])
        if self._scaler is not None:
            scaler = self._scaler.state_dict()
            skipped = self._step - self._updates()
            arrays["optimizer.scaler"] = np.array(
                [scaler["scale"], scaler["_growth_tracker"], skipped], np.float64
            )
        arrays["rng.torch"] = torch.get_rng_state().numpy()
        if self.device.type != "cpu":
            rng = getattr(torch, self.device.type).get_rng_state()
            arrays[f"rng.torch_{self.device.type}"] = rng.numpy()
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from :meth:`state`, also from the other framework's.

        The other framework's random state cannot be taken over: dropout then starts from the seed.
        """
        self.net.load_weights_dict(section(state, "model."))
        if self._average is not None:
            self._average.load_weights_dict(section(state, "ema."))
        self._step = int(state["optimizer.step"][0])
        skipped = 0
        if self._scaler is not None:
            scale, tracker, skipped = state["optimizer.scaler"].tolist()
            saved = {"scale": scale, "_growth_tracker": int(tracker)}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **saved})
        moments = {
            key: state_dict_from_weights(section(state, f"optimizer.{moment}."))
            for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq"))
        }
        for name, parameter in self.net.named_parameters():
            # Same memory format as the parameter: AdamW's kernels walk both alike.
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(self._step - skipped)),
                **{k: torch.empty_like(parameter).copy_(v[name]) for k, v in moments.items()},
            }
        if "rng.torch" in state:
            torch.set_rng_state(torch.from_numpy(state["rng.torch"]))
        device_rng = state.get(f"rng.torch_{self.device.type}")
        if device_rng is not None:
            getattr(torch, self.device.type).set_rng_state(torch.from_numpy(device_rng))

    def _updates(self) -> int:
        """Steps that the optimizer took: a scaled loss that overflows skips one."""
        states = self._optimizer.state.values()
        return next((int(state["step"]) for state in states), 0)

    def _moment(self, parameter: nn.Parameter, key: str) -> torch.Tensor:
        state = self._optimizer.state.get(parameter)
        return torch.zeros_like(parameter) if not state else state[key]

    def _input(self, images: np.ndarray) -> torch.Tensor:
        """preprocess.scale_rgb on the device; the NHWC memory is what channels_last means."""
        pixels = to_device(images, self.device).permute(0, 3, 1, 2)
        return pixels.to(torch.float32, memory_format=MEMORY_FORMAT).div_(PIXEL_MAX)

    def _to_device(self, arrays: Arrays) -> Tensors:
        return {
            name: to_device(value, self.device)
            for name, value in arrays.items()
            if name in self._targets
        }

    def _terms(self, predictions: Tensors, targets: Tensors) -> Tensors:
        terms: Tensors = self._loss(self._standardised(predictions), self._standardised(targets))
        return terms

    def _standardised(self, values: Tensors) -> Tensors:
        scaled = {
            name: (values[name] - mean) / deviation
            for name, (mean, deviation) in self._scaling.items()
        }
        return {**values, **scaled}


def _floats(net: nn.Module) -> list[torch.Tensor]:
    return [value for value in net.state_dict().values() if value.is_floating_point()]


def adamw(net: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; only matrices and kernels decay: biases and BatchNorm have one dimension."""
    parameters = list(net.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One kernel for all parameters takes a quarter of the time on a CPU; torch 2.2 has it on CUDA
    # alone, where the default is as fast.
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    fused = on_cpu and torch.__version__ >= "2.4"
    return torch.optim.AdamW(groups, fused=fused or None)
