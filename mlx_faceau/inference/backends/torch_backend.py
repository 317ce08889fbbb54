"""Runs a checkpoint, or a ``.pt`` file of the original tool, with PyTorch on CPU, CUDA or MPS."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mlx_faceau.convert.pyfaceau import read_pyfaceau
from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.errors import CheckpointError
from mlx_faceau.torch_fallback import build
from mlx_faceau.torch_fallback.device import pick_device
from mlx_faceau.torch_fallback.layers import ConvNorm

from . import Backend

# OpenMP's threads do not survive a fork, and a forked process would wait for them for ever.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class TorchBackend(Backend):
    """A net in PyTorch, in evaluation mode, BatchNorm folded into the convolutions.

    Width and dropout are those of a ``.pt`` file's net, which does not record them; of a checkpoint
    they may only repeat what is recorded.
    """

    name = "torch"
    library = f"torch {torch.__version__}"

    def __init__(
        self,
        path: Path | str,
        device: str | None = None,
        width_mult: float | None = None,
        dropout: float | None = None,
    ) -> None:
        self.path = Path(path)
        self._device = pick_device(device or "auto")
        self.device = str(self._device)
        self.config, weights, self.metadata = self._read(width_mult, dropout)
        self._net = _folded_net(self.config, weights).to(self._device)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            # NHWC memory seen as NCHW: torch's channels_last, which it then keeps throughout.
            outputs = self._net(torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2))
        return {name: outputs[name].float().cpu().numpy() for name in self.config.output_shapes}

    def _read(
        self, width_mult: float | None, dropout: float | None
    ) -> tuple[ModelConfig, dict[str, np.ndarray], dict[str, Any] | None]:
        if self.path.suffix == ".pt":
            config, weights = read_pyfaceau(self.path, width_mult, dropout)
            return config, weights, None
        checkpoint = load_checkpoint(self.path)
        for name, value in (("width_mult", width_mult), ("dropout", dropout)):
            recorded = getattr(checkpoint.config, name, None)
            if value is not None and value != recorded:
                raise CheckpointError(
                    f"{checkpoint.path}: {name} is {value}, but the checkpoint records "
                    f"{recorded}; leave the argument out"
                )
        return checkpoint.config, checkpoint.weights(), checkpoint.metadata


def _folded_net(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> torch.nn.Module:
    """The net with BatchNorm in the convolutions before it, weights laid out as the images are."""
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
        net = build(config, weights).eval()
    for module in net.modules():
        if isinstance(module, ConvNorm):
            folded: Any = module
            folded.conv = fuse_conv_bn_eval(folded.conv, folded.norm)
            folded.norm = torch.nn.Identity()
            folded.conv.to(memory_format=torch.channels_last)
    net.requires_grad_(False)
    return net
