"""Ranks that ``torchrun`` started."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from mlx_faceau.errors import FaceauError


class TorchRanks:
    """This process in torch's group, or alone."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def join(cls, seconds: float) -> "TorchRanks":
        """Meet the others; alone where no launcher started this process.

        Args:
            seconds: that an exchange between ranks may take.
        """
        if not distributed.is_torchelastic_launched():
            return cls()
        distributed.init_process_group(timeout=timedelta(seconds=seconds))
        if torch.cuda.is_available():
            torch.cuda.set_device(distributed.get_node_local_rank())
        return cls(distributed.get_rank(), distributed.get_world_size())

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; all ranks must ask together.

        Raises:
            FaceauError: if another rank is gone, as from all methods.
        """
        if self.size == 1:
            return flag
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

    def all_rows(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The rows of all ranks in their order; gradients flow into this rank's own."""
        if self.size == 1:
            return tensors
        return {name: self._gather(values) for name, values in tensors.items()}

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
