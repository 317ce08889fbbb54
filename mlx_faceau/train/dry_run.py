"""What a training would take: parameters, memory and time, from ten of its steps."""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE, count_parameters

from .checkpoints import RunFolder
from .config import TrainConfig, resolve
from .datasets import TrainingData, image_size_of_epoch
from .run import join_ranks, prepare

STEPS = 10
_WARM_UP = 2  # steps that compile, and fill the loader's buffer


@dataclass(frozen=True)
class DryRun:
    """Figures of a training that was only tried out."""

    parameters: int  # that are trained
    training: int  # faces on the training side
    validation: int  # faces on the validation side
    steps: int  # optimizer steps of all epochs
    images_per_second: float  # in training at full size, reading and augmentation included
    seconds: float  # estimated for all epochs, validation included, saving not
    memory: int  # peak of the process in bytes; 0 where the system does not report it (Windows)
    device_memory: int  # peak on the GPU in bytes; 0 on a CPU


def dry_run(training: type[TrainConfig], given: Mapping[str, Any]) -> DryRun:
    """Take ten steps of a training at full size and write nothing."""
    config = resolve(training, given)
    loop = prepare(config, RunFolder(Path(), writes=False), join_ranks(config))
    data, trainer = loop.data, loop.trainer
    with closing(_batches(data, config.epochs - 1)) as batches:
        for batch in islice(batches, _WARM_UP):
            trainer.step(batch, config.lr)
        started = time.perf_counter()
        for batch in islice(batches, STEPS):
            terms = trainer.step(batch, config.lr)
        float(terms["loss"])  # waits for the device
        step_seconds = (time.perf_counter() - started) / STEPS
    images = next(data.validation_images())
    trainer.predict(images)
    started = time.perf_counter()
    trainer.predict(images)
    prediction_seconds = (time.perf_counter() - started) / len(images)
    # Smaller images take a share of the time that is nearly their share of the pixels.
    sizes = [
        image_size_of_epoch(epoch, config.epochs, config.initial_image_size)
        for epoch in range(config.epochs)
    ]
    pixels = float(np.mean(np.square(np.array(sizes) / IMAGE_SIZE)))
    steps = config.epochs * len(data.batches)
    validation = len(data.split.validation)
    return DryRun(
        parameters=count_parameters(config.trained_config()),
        training=len(data.split.train),
        validation=validation,
        steps=steps,
        images_per_second=data.batches.batch_size / step_seconds,
        seconds=steps * step_seconds * pixels + config.epochs * validation * prediction_seconds,
        memory=_process_memory(),
        device_memory=trainer.device_memory(),
    )


def _batches(data: TrainingData, epoch: int) -> Generator[dict[str, np.ndarray]]:
    """Batches from an epoch on, without end."""
    for number in count(epoch):
        yield from data.batches.epoch(number)


def _process_memory() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
