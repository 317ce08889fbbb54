"""The device that torch runs on."""

import ctypes
import sys

import numpy as np
import torch

from mlx_faceau.errors import BackendError

# How a training net's feature maps lie in memory: as the images come.
MEMORY_FORMAT = torch.channels_last


def pick_device(name: str | torch.device) -> torch.device:
    """The torch device that a name means here, or BackendError.

    Names are ``"auto"`` (CUDA, then MPS, then the CPU), ``"gpu"`` (CUDA or MPS), ``"cpu"``,
    ``"mps"`` and ``"cuda"``, also ``"cuda:1"``.
    """
    name = str(name)
    there = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()]
    there.append("cpu")
    wanted = there if name == "auto" else there[:-1] if name == "gpu" else [name]
    for kind in wanted:
        if kind.partition(":")[0] in there:
            return torch.device(kind)
    raise BackendError(f"no {name} device for torch here; available: {', '.join(there)}")


def check_precision(device: torch.device, precision: str) -> None:
    """Raise BackendError unless a precision is faster on a device than float32."""
    if precision == "float32" or device.type != "cpu":
        return
    # Not every build of torch has oneDNN and its operators.
    has_onednn = torch.backends.mkldnn.is_available()
    if precision == "bfloat16" and has_onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    raise BackendError(
        f"--precision {precision} is slower than float32 on this CPU; it needs a GPU"
        + (", or a CPU with bfloat16 instructions" if precision == "bfloat16" else "")
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


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step; elsewhere do nothing.

    By default it gives every large array back to the system at once, which then zeroes the same
    pages in every step: a fifth to a third of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(-4, 0)  # M_MMAP_MAX, see <malloc.h>
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
