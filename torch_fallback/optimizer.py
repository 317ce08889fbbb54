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
    return torch.optim.AdamW(groups)
