"""The device that torch trains on."""

import torch

from mlx_faceau.errors import BackendError


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


def device_rng(device: torch.device) -> torch.Tensor:
    """The random state of a GPU."""
    state: torch.Tensor = getattr(torch, device.type).get_rng_state()
    return state
