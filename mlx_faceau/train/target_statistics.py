"""Mean and spread of the training targets: what a net starts from and is compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_faceau.errors import CheckpointError

_MASKS = {"global_params": "global_mask", "local_params": "local_mask"}
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class TargetStatistics:
    """Mean and standard deviation of each label over some faces, without the leading N.

    They travel in every checkpoint, so that a constant predictor can be evaluated beside a net.
    """

    count: int
    means: dict[str, np.ndarray]
    deviations: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, labels: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> "TargetStatistics":
        """Statistics of labels (N, ...), without the samples whose mask (N,) is 0.

        A label that no sample has gets mean 0 and deviation 1; one that never changes gets
        deviation 1.
        """
        means, deviations = {}, {}
        for name, values in labels.items():
            mask = masks.get(_MASKS.get(name, ""))
            kept = np.asarray(values if mask is None else values[mask > 0], np.float64)
            empty = len(kept) == 0
            means[name] = np.zeros(values.shape[1:]) if empty else kept.mean(0)
            spread = np.ones(values.shape[1:]) if empty else kept.std(0)
            deviations[name] = np.where(spread < _SMALLEST_DEVIATION, 1.0, spread)
        return cls(len(next(iter(labels.values()))), means, deviations)

    def scaling(self, names: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and deviation of the named labels, as trainers take them."""
        return {name: (self.means[name], self.deviations[name]) for name in names}

    def to_json(self) -> dict[str, Any]:
        """The ``target_statistics`` of a checkpoint's metadata."""
        labels = {
            name: {"mean": mean.tolist(), "deviation": self.deviations[name].tolist()}
            for name, mean in self.means.items()
        }
        return {"count": self.count, **labels}

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], source: object, shapes: Mapping[str, tuple[int, ...]]
    ) -> "TargetStatistics":
        """Read back what :meth:`to_json` gave; if it is malformed the error names the source.

        There must be means and deviations of these shapes, by label.
        """
        try:
            labels = {name: value for name, value in content.items() if name != "count"}
            found = cls(
                int(content["count"]),
                {name: np.asarray(value["mean"], np.float64) for name, value in labels.items()},
                {name: np.asarray(value["deviation"], float) for name, value in labels.items()},
            )
            both = (found.means, found.deviations)
            if all(
                values[name].shape == shape for values in both for name, shape in shapes.items()
            ):
                return found
        except (KeyError, TypeError, ValueError):
            pass
        raise CheckpointError(f"{source}: malformed target_statistics")
