"""What a training would take: parameters, memory and time, from ten of its steps."""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE, count_parameters

from .batch_transforms import side_of_epoch
from .config import TrainConfig, resolve
from .datasets import Faces, open_faces
from .initial_weights import first_weights
from .loop import Trainer
from .resume import saved_teacher
from .run import build_trainer
from .schedule import learning_rate

STEPS = 10
_WARM_UP = 2


@dataclass(frozen=True)
class Rehearsal:
    """Figures of a training that was only tried out.

    Attributes:
        parameters: that are trained.
        training: faces on the training side.
        validation: faces on the validation side.
        steps: optimizer steps of all epochs.
        images_per_second: in training at full size, reading and augmentation included.
        seconds: estimated for all epochs, validation included, saving not.
        memory: bytes of the process at most; 0 where the system does not tell (Windows).
        device_memory: bytes on the GPU at most; 0 on a CPU.
    """

    parameters: int
    training: int
    validation: int
    steps: int
    images_per_second: float
    seconds: float
    memory: int
    device_memory: int


def rehearse(training: type[TrainConfig], given: Mapping[str, Any]) -> Rehearsal:
    """Take ten steps of a training at full size and write nothing.

    Args:
        training: ``LandmarkPoseTraining`` or ``AUTraining``.
        given: explicit settings by field name.

    Raises:
        ValueError, DatasetError, BackendError, MissingDependency: as the training would.
    """
    config = resolve(training, given)
    faces = open_faces(config, teacher=saved_teacher(config, None))
    trainer = build_trainer(
        config, faces, first_weights(config, faces.statistics, faces.pdm).weights
    )
    steps = config.epochs * len(faces.batches)
    step = _seconds_of_a_step(trainer, faces, config, steps)
    usual = step * _mean_size(config.epochs, config.first_side)
    validation = len(faces.split.validation)
    return Rehearsal(
        parameters=count_parameters(config.trained_config()),
        training=len(faces.split.train) + config.composed,
        validation=validation,
        steps=steps,
        images_per_second=faces.batches.batch_size / step,
        seconds=steps * usual
        + config.epochs * validation * _seconds_of_a_prediction(trainer, faces),
        memory=_process_memory(),
        device_memory=trainer.device_memory(),
    )


def _seconds_of_a_step(trainer: Trainer, faces: Faces, config: TrainConfig, steps: int) -> float:
    """Mean of ten, after the first ones, which compile and fill the loader's buffer."""

    def rate(step: int) -> float:
        return learning_rate(step, steps, config.lr)

    with closing(_batches(faces, config.epochs - 1)) as batches:
        trainer.train_epoch(islice(batches, _WARM_UP), rate)
        started = time.perf_counter()
        trainer.train_epoch(islice(batches, STEPS), rate)
        return (time.perf_counter() - started) / STEPS


def _seconds_of_a_prediction(trainer: Trainer, faces: Faces) -> float:
    images = next(faces.validation_images())
    trainer.predict(images)
    started = time.perf_counter()
    trainer.predict(images)
    return (time.perf_counter() - started) / len(images)


def _mean_size(epochs: int, first_side: int) -> float:
    """Pixels of all epochs' images as a share of full ones: what their steps take, nearly."""
    sides = [side_of_epoch(epoch, epochs, first_side) for epoch in range(epochs)]
    return float(np.mean(np.square(np.array(sides) / IMAGE_SIZE)))


def _batches(faces: Faces, epoch: int) -> Generator[dict[str, np.ndarray]]:
    """Batches from an epoch on."""
    while True:
        source: Any = faces.batches.epoch(epoch)
        with closing(source) as batches:
            yield from batches
        epoch += 1


def _process_memory() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
