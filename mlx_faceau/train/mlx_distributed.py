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
        """See :class:`.ranks.Ranks`."""
        if self.size == 1:
            return flag
        votes = mx.distributed.all_sum(mx.array(float(flag)), group=self.group, stream=mx.cpu)
        return bool(votes.item())

    def mean(self, tree: Any) -> Any:
        """The mean of every array over the ranks."""
        return nn.average_gradients(tree, self.group) if self.size > 1 else tree

    def all_rows(self, values: mx.array) -> mx.array:
        """The rows of all ranks in their order; gradients flow into this rank's own."""
        if self.size == 1:
            return values
        rows, stop = len(values), mx.stop_gradient
        everyone = stop(mx.distributed.all_gather(stop(values), group=self.group, stream=mx.cpu))
        before, after = everyone[: self.rank * rows], everyone[(self.rank + 1) * rows :]
        return mx.concatenate([before, values, after])
