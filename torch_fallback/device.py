"""The device that torch trains on."""

import numpy as np
import torch

from mlx_faceau.errors import BackendError

# How a training net's feature maps lie in memory: as the images come.
MEMORY_FORMAT = torch.channels_last


def pick_device(name: str) -> torch.device:
    """The torch device that ``--device`` means.

    Raises:
        BackendError: if it is not there, naming what is.
    """
    there = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()]
    there.append("cpu")
    wanted = there if name == "auto" else there[:-1] if name == "gpu" else [name]
    for kind in wanted:
        if kind in there:
            return torch.device(kind)
    raise BackendError(f"no {name} device for torch here; available: {', '.join(there)}")


def check_device(device: torch.device, precision: str, sync_bn: bool) -> None:
    """See that a device can do what is asked, and gains by it.

    Raises:
        BackendError: naming what can.
    """
    if precision != "float32" and device.type == "cpu":
        raise BackendError(
            f"--precision {precision} needs a GPU: a CPU is slower in it than in float32"
        )
    if sync_bn and device.type != "cuda":
        raise BackendError(
            f"--sync-bn needs CUDA, which torch's SyncBatchNorm is for, not {device}"
        )


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of an array on a device.

    To CUDA it goes through page-locked memory, so that nobody waits for it: the GPU is given the
    next step's work while it is still busy. Elsewhere a copy that is not waited for may read memory
    that has been given away.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def device_rng(device: torch.device) -> torch.Tensor:
    """The random state of a GPU."""
    state: torch.Tensor = getattr(torch, device.type).get_rng_state()
    return state
