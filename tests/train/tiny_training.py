"""A tiny file of made-up faces, and a trainer that needs no framework."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import LandmarkPoseConfig, initial_weights
from mlx_faceau.errors import MissingDependency

Arrays = dict[str, np.ndarray]
PEOPLE, FACES_EACH = 6, 4


def write_faces(
    path: Path, people: int = PEOPLE, each: int = FACES_EACH, name: str = "person", seed: int = 0
) -> Path:
    """Random images of people who are called by this name and a number."""
    from mlx_faceau.data.format.writer import TrainingDataWriter

    rng = np.random.default_rng(seed)
    mean_face = rng.uniform(20, 90, (68, 2))
    with TrainingDataWriter(path) as writer:
        for person in range(people):
            for frame in range(each):
                writer.add_sample(
                    image=rng.integers(0, 256, (112, 112, 3), np.uint8),
                    landmarks=np.float32(mean_face + rng.normal(0, 4, (68, 2))),
                    global_params=np.float32([3, *rng.normal(0, 0.2, 3), *rng.normal(55, 3, 2)]),
                    local_params=np.float32(rng.normal(0, 5, 34)),
                    au_intensities=np.float32(rng.uniform(0, 4, 17)),
                    bbox=np.float32([0, 0, 112, 112]),
                    video_name=f"{name}{person}.mp4",
                    frame_index=frame,
                    warp_matrix=np.float32([[1, 0, 0], [0, 1, 0]]),
                    subject=f"{name}{person}",
                )
    return path


def take_steps(
    trainer: Any, batches: Iterable[Arrays], rate: Callable[[int], float], first: int = 0
) -> Arrays:
    """One optimizer step a batch; every loss term at every step, (steps,) float32 each."""
    seen = [trainer.step(batch, rate(first + number)) for number, batch in enumerate(batches)]
    return {name: np.float32([float(terms[name]) for terms in seen]) for name in seen[0]}


class Alone:
    """The ranks of a training in one process."""

    rank = 0
    size = 1

    def any(self, flag: bool) -> bool:
        return flag


class FakeTrainer:
    """Adds up what it is shown; its validation losses are given beforehand."""

    ranks = Alone()

    def __init__(self, validation_losses: Iterable[float], config: LandmarkPoseConfig) -> None:
        self.validation_losses = list(validation_losses)
        self.weights = initial_weights(config, 0)
        self.rates: list[float] = []
        self.seen = np.zeros(1, np.float64)
        self.on_step: Callable[[int], None] = lambda step: None

    def step(self, batch: Arrays, learning_rate: float) -> dict[str, float]:
        self.rates.append(learning_rate)
        self.seen = self.seen * 0.9 + batch["landmarks"].sum(dtype=np.float64)
        self.on_step(len(self.rates))
        return {"loss": float(batch["landmarks"].mean())}

    def predict(self, images: np.ndarray) -> Arrays:
        count = len(images)
        return {
            "landmarks": np.zeros((count, 68, 2)),
            "global_params": np.zeros((count, 6)),
            "local_params": np.zeros((count, 34)),
        }

    def losses(self, predictions: Arrays, targets: Arrays) -> dict[str, float]:
        return {"loss": self.validation_losses.pop(0)}

    def describe(self) -> dict[str, str]:
        return {"framework": "none"}

    def state(self) -> Arrays:
        model = {f"model.{name}": value for name, value in self.weights.items()}
        return {**model, "optimizer.step": np.array([len(self.rates)]), "optimizer.seen": self.seen}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.rates = [0.0] * int(state["optimizer.step"][0])
        self.seen = state["optimizer.seen"]


def export_without_onnx(checkpoint: Path, path: Path) -> None:
    """An exporter on a machine without its library."""
    raise MissingDependency("onnx", extra="export")
