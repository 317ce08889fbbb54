"""Ranks that ``mlx.launch`` started."""

from typing import Any

from mlx_faceau.models import mx, nn


class MLXRanks:
    """This process in MLX's group; a group of one where no launcher started it."""

    def __init__(self) -> None:
        self.group = mx.distributed.init()
        self.rank = self.group.rank()
        self.size = self.group.size()

    def any(self, flag: bool) -> bool:
        """See :class:`mlx_faceau.core.trainer.Ranks`."""
        if self.size == 1:
            return flag
        votes = mx.distributed.all_sum(mx.array(float(flag)), group=self.group, stream=mx.cpu)
        return bool(votes.item())

    def mean(self, tree: Any) -> Any:
        """The mean of every array over the ranks."""
        return nn.average_gradients(tree, self.group) if self.size > 1 else tree

    def all_rows(self, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
        """The rows of all ranks in their order; gradients flow into this rank's own."""
        if self.size == 1:
            return arrays
        return {name: self._gather(values) for name, values in arrays.items()}

    def _gather(self, values: mx.array) -> mx.array:
        rows, stop = len(values), mx.stop_gradient
        everyone = stop(mx.distributed.all_gather(stop(values), group=self.group, stream=mx.cpu))
        before, after = everyone[: self.rank * rows], everyone[(self.rank + 1) * rows :]
        return mx.concatenate([before, values, after])
