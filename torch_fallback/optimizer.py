"""AdamW as both frameworks' trainings use it.

Reference:
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
"""

import torch
from torch import nn


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
