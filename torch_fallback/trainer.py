"""The training step in torch; see :mod:`mlx_faceau.core.trainer`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import distributed, nn

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
from mlx_faceau.errors import CheckpointError, FaceauError

from . import build
from .device import MEMORY_FORMAT, check_precision, keep_freed_memory, pick_device, to_device
from .nets import sample, state_dict_from_weights, weights_from_state_dict

Tensors = dict[str, torch.Tensor]


@dataclass
class TorchRanks(Ranks):
    """This process in the group that ``torchrun`` started, or alone."""

    rank: int = 0
    size: int = 1

    def _vote(self, flag: bool) -> bool:
        votes = torch.tensor(float(flag))
        with self._exchange():
            distributed.all_reduce(votes)
        return bool(votes)

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace tensors by their mean over the ranks."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self._exchange():
            distributed.all_reduce(flat)
        totals = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view_as(tensor) / self.size)

    def _gather(self, values: torch.Tensor) -> torch.Tensor:
        own = values.detach().contiguous()
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        with self._exchange():
            distributed.all_gather(everyone, own)
        everyone[self.rank] = values
        return torch.cat(everyone)

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise FaceauError(
                f"rank {self.rank} of {self.size}: another rank is dead or hangs "
                f"({str(error).splitlines()[0]}); continue with --resume"
            ) from None


class TorchTrainer(Trainer):
    """See :class:`mlx_faceau.core.trainer.Trainer`."""

    ranks: TorchRanks
    sample = staticmethod(sample)

    @classmethod
    def join(cls, device: str, precision: str, seconds: float) -> TorchRanks:
        check_precision(pick_device(device), precision)
        if not distributed.is_torchelastic_launched():
            return TorchRanks()
        distributed.init_process_group(timeout=timedelta(seconds=seconds))
        if torch.cuda.is_available():
            torch.cuda.set_device(distributed.get_node_local_rank())
        return TorchRanks(distributed.get_rank(), distributed.get_world_size())

    def __init__(self, settings: TrainerSettings, ranks: TorchRanks | None = None) -> None:
        self.device = pick_device(settings.device)
        check_precision(self.device, settings.precision)
        if self.device.type == "cpu":
            keep_freed_memory()
        super().__init__(settings, ranks or TorchRanks())
        self.net = build(settings.config, settings.weights)
        self.net.to(self.device, memory_format=MEMORY_FORMAT)
        self.average = deepcopy(self.net).eval() if settings.averaging else None
        self._precision = getattr(torch, settings.precision)
        is_half = settings.precision == "float16"
        self._scaler = torch.amp.GradScaler(self.device.type) if is_half else None
        self._optimizer = adamw(self.net, settings.weight_decay)
        self._step = 0
        torch.manual_seed(settings.seed)

    def array(self, values: np.ndarray) -> torch.Tensor:
        return to_device(values, self.device)

    def describe(self) -> dict[str, str]:
        return {"framework": "torch", "torch": torch.__version__, "device": str(self.device)}

    def device_memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # Metal reports no peak, but keeps the memory that it took from the system.
        return torch.mps.driver_allocated_memory() if self.device.type == "mps" else 0

    def step(self, batch: Arrays, learning_rate: float) -> Tensors:
        self.net.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        if self.ranks.size > 1:
            torch.manual_seed(dropout_seed(self.settings.seed, self._step, self.ranks.rank))
        seen = [self._add_gradients(part) for part in split_batch(batch, self.settings.accumulate)]
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
        if self.settings.averaging is not None:
            share = 1 - self.settings.averaging(self._step)
            with torch.no_grad():
                # All at once: on a GPU one call an array takes as long as the step.
                torch._foreach_lerp_(_floats(self.average), _floats(self.net), share)
        self._step += 1
        return {name: torch.stack([terms[name] for terms in seen]).mean() for name in seen[0]}

    def _add_gradients(self, part: Arrays) -> Tensors:
        half = self._precision != torch.float32
        images = self._input(part["images"])
        with torch.autocast(self.device.type, self._precision, enabled=half):
            features = self.net.backbone(images)
        # In float32: bfloat16 would place a landmark within a quarter of a pixel.
        outputs = self.net.heads(features.float())
        outputs = self.with_hog_head(outputs, images.permute(0, 2, 3, 1))
        targets = self.arrays(part)
        terms = self.loss_terms(self.ranks.all_rows(outputs), self.ranks.all_rows(targets))
        # A rank's gradients are its share of the sum over ranks, of which the mean is taken.
        loss = terms["loss"] * (self.ranks.size / self.settings.accumulate)
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()
        return {name: value.detach() for name, value in terms.items()}

    def predict(self, images: np.ndarray) -> Arrays:
        net = self.average or self.net.eval()
        with torch.inference_mode():
            outputs = net(self._input(images))
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def features(self, images: np.ndarray) -> np.ndarray:
        net = self.average or self.net.eval()
        with torch.inference_mode():
            return net.backbone(self._input(images)).cpu().numpy()

    def hog_inputs(self, images: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
        pixels = self._input(images).permute(0, 2, 3, 1)
        with torch.inference_mode():
            return torch.cat(self._hog_inputs(pixels, self.array(auxiliary)), dim=1).cpu().numpy()

    def state(self) -> Arrays:
        arrays = self.weight_arrays()
        moments = self._optimizer.state
        for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
            tensors = {
                name: moments[p][key] if p in moments else torch.zeros_like(p)
                for name, p in self.net.named_parameters()
            }
            for name, value in weights_from_state_dict(tensors).items():
                arrays[f"optimizer.{moment}.{name}"] = value
        arrays["optimizer.step"] = np.array([self._step])
        if self._scaler is not None:
            scaler = self._scaler.state_dict()
            # Steps that the optimizer took: a scaled loss that overflows skips one.
            steps = (int(state["step"]) for state in self._optimizer.state.values())
            skipped = self._step - next(steps, 0)
            arrays["optimizer.scaler"] = np.array(
                [scaler["scale"], scaler["_growth_tracker"], skipped], np.float64
            )
        arrays["rng.torch"] = torch.get_rng_state().numpy()
        if self.device.type != "cpu":
            rng = getattr(torch, self.device.type).get_rng_state()
            arrays[f"rng.torch_{self.device.type}"] = rng.numpy()
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.restore_weights(state)
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
        name = f"rng.torch_{self.device.type}"
        try:
            if "rng.torch" in state:
                torch.set_rng_state(torch.from_numpy(state["rng.torch"]))
            if name in state:
                getattr(torch, self.device.type).set_rng_state(torch.from_numpy(state[name]))
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"its random state is not torch's: {error}") from None

    def _input(self, images: np.ndarray) -> torch.Tensor:
        """preprocess.scale_rgb on the device; the NHWC memory is what channels_last means."""
        pixels = to_device(images, self.device).permute(0, 3, 1, 2)
        return pixels.to(torch.float32, memory_format=MEMORY_FORMAT).div_(PIXEL_MAX)


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
