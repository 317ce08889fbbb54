"""One rank of a test: ``rank_worker.py FRAMEWORK FOLDER steps|train|die|hang [ARGUMENTS...]``."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.cli.main import main
from mlx_faceau.core.architectures import AUPredictionConfig, initial_weights
from mlx_faceau.core.trainer import TrainerSettings
from mlx_faceau.train.config import AUTrainConfig
from mlx_faceau.train.run import join_ranks, trainer_class

NET = AUPredictionConfig(width_mult=0.1, dropout=0.0)
PART = 3  # faces of one rank in a step


def faces(seed: int, count: int = PART) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 7, 7, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    return {"images": images, "au_intensities": np.float32(rng.uniform(0.5, 4, (count, 17)))}


def trainer_of(framework: str, ranks: Any = None) -> Any:
    weights = initial_weights(NET, 0)
    settings = TrainerSettings(
        NET, weights, weight_decay=1e-4, averaging=lambda step: 0.5, device="cpu"
    )
    return trainer_class(framework)(settings, ranks)


def take_steps(framework: str, folder: Path) -> None:
    """One step on faces that all ranks share, then two on this rank's own."""
    ranks = join_ranks(AUTrainConfig(data="", framework=framework, rank_timeout=60.0))
    trainer = trainer_of(framework, ranks)
    shared = float(trainer.step(faces(0), 1e-3)["loss"])
    first = {f"first.{name}": array for name, array in trainer.state().items()}
    own = [faces(10 * step + ranks.rank) for step in (1, 2)]
    later = [float(trainer.step(batch, 1e-3)["loss"]) for batch in own]
    losses = np.float32([shared, *later])
    np.savez(folder / f"{ranks.rank}.npz", losses=losses, **first, **trainer.state())


def spoil(framework: str, ending: str) -> None:
    """Let the second rank die or hang in its third step."""
    trainer: Any = trainer_class(framework)
    step, taken = trainer.step, []

    def spoiled(self: Any, *arguments: Any) -> Any:
        taken.append(1)
        if self.ranks.rank == 1 and len(taken) == 3:
            if ending == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)
        return step(self, *arguments)

    trainer.step = spoiled


if __name__ == "__main__":
    framework, folder, task, *arguments = sys.argv[1:]
    if task == "steps":
        take_steps(framework, Path(folder))
        sys.exit()
    if task != "train":
        spoil(framework, task)
    sys.exit(main(["train", "au", "--framework", framework, "--output", folder, *arguments]))
