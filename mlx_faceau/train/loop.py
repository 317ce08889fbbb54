"""Epochs, schedule, validation, early stopping and checkpoints, once for both frameworks."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlx_faceau.core.auxiliary_head import set_apart
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
from mlx_faceau.errors import FaceauError

from .checkpoints import TEACHER, Progress, RunFolder
from .config import TrainConfig
from .datasets import Faces
from .distributed import Ranks, Watchdog
from .interruption import Interruption
from .progress import NoBar, au_table, epoch_line, progress_bar
from .schedule import learning_rate
from .tensorboard import NoBoard

_LOG = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

_TICK = 1e-9  # seconds; coarse clocks stand still between two looks


class Trainer(Protocol):
    """What a framework offers: the hot loop, and nothing around it."""

    ranks: Ranks

    def train_epoch(
        self, batches: Iterable[Arrays], learning_rate: Callable[[int], float]
    ) -> Arrays:
        """One optimizer step a batch, perhaps in parts; every loss term at every step."""

    def predict(self, images: np.ndarray) -> Arrays:
        """Outputs of (N, 112, 112, 3) uint8 RGB images in evaluation mode."""

    def losses(self, predictions: Arrays, targets: Arrays) -> dict[str, float]:
        """Loss terms of all predictions taken as one batch."""

    def describe(self) -> dict[str, str]:
        """Framework, its version and the device."""

    def device_memory(self) -> int:
        """Bytes that were in use at most on a GPU; 0 on a CPU."""

    def state(self) -> Arrays:
        """Weights (``model.``), optimizer (``optimizer.``) and random state (``rng.``)."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from :meth:`state`."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        stopped: ``"finished"``, ``"patience"`` or ``"interrupted"``.
        epochs: finished epochs.
        best_epoch: counted from 1.
        best_loss: its validation loss.
    """

    stopped: str
    epochs: int
    best_epoch: int
    best_loss: float | None


class TrainingLoop:
    """Trains one net to its last epoch, out of patience, or until Ctrl-C.

    Args:
        trainer: the net in its framework.
        faces: training and validation side.
        config: the settings.
        folder: where checkpoints and history go.
        progress: where to start; changed as training goes on.
        metadata: what every checkpoint of this run records.
        history: what the history file holds besides the epochs; changed as training goes on.
        board: is told about every epoch too.
        show_progress: draw a progress bar.
    """

    def __init__(
        self,
        trainer: Trainer,
        faces: Faces,
        config: TrainConfig,
        folder: RunFolder,
        progress: Progress,
        metadata: Mapping[str, Any],
        history: dict[str, Any],
        board: NoBoard,
        show_progress: bool = False,
    ) -> None:
        self.trainer = trainer
        self.faces = faces
        self.config = config
        self.folder = folder
        self.progress = progress
        self.metadata = metadata
        self.history = history
        self.board = board
        self._bar = progress_bar() if show_progress else NoBar
        self._interruption = Interruption()
        self._watchdog = Watchdog(trainer.ranks, config.rank_timeout)
        self._pause = False  # whether the running epoch is to be saved as it is
        self._waited = 0.0  # seconds of the running epoch spent waiting for batches
        self._saved = time.monotonic()

    def run(self) -> Outcome:
        """Train.

        Raises:
            FaceauError: if the loss is no finite number; the last good checkpoint stays.
        """
        stopped = self._reason_to_stop()
        if self._steps() == 0:
            self._save()  # whenever the first epoch dies, there is something to resume
        with self._interruption, self._watchdog:
            while stopped is None:
                self._epoch()
                stopped = self._reason_to_stop()
        if stopped != "interrupted":
            self.folder.finish()
        self.write_history(stopped)
        done = self.progress
        return Outcome(stopped, done.epoch, done.best_epoch, done.best_loss)

    def write_history(self, stopped: str | None) -> None:
        """Write the history with the reason why the training ended, None while it goes on."""
        content = {**self.history, "epochs": self.progress.epochs, "stopped": stopped}
        self.folder.write_history(content)

    def _reason_to_stop(self) -> str | None:
        progress = self.progress
        if self._interrupted():
            return "interrupted"
        if progress.epoch >= self.config.epochs:
            return "finished"
        waited = progress.epoch - progress.best_epoch
        return "patience" if waited >= self.config.patience else None

    def _epoch(self) -> None:
        """Train and validate one epoch, or the rest of it; an interrupted one is saved as it is."""
        progress, started = self.progress, time.monotonic()
        first = progress.batch
        self._train()
        if progress.batch < len(self.faces.batches):
            self._save()
            return
        seconds = max(time.monotonic() - started, _TICK)
        images = (progress.batch - first) * self.faces.batches.batch_size
        entry = {
            "epoch": progress.epoch + 1,
            "learning_rate": self._learning_rate(self._steps() - 1),
            "training": {name: _mean(values) for name, values in progress.running.items()},
            **self._validate(),
            "images_per_second": images / seconds if images else 0.0,
            "waiting": self._waited / seconds,
            "seconds": time.monotonic() - started,
        }
        _LOG.info(self._close_epoch(entry))

    def _close_epoch(self, entry: dict[str, Any]) -> str:
        """Record a finished epoch and save it; the line that tells about it."""
        progress, loss = self.progress, entry["validation"]["loss"]
        progress.epoch, progress.batch, progress.running = progress.epoch + 1, 0, {}
        best = progress.best_loss is None or loss < progress.best_loss
        if best:
            progress.best_epoch, progress.best_loss = progress.epoch, loss
        progress.epochs.append(entry)
        number = progress.epoch if progress.epoch % self.config.save_every == 0 else None
        self._save(best=best, number=number)
        self.write_history(None)
        self.board.write(entry)
        line = epoch_line(entry, self.config.epochs, best)
        return f"{line}\n{au_table(entry)}" if self.config.shows_aus else line

    def _train(self) -> None:
        """The rest of the running epoch's batches, or as many as come before Ctrl-C."""
        progress, batches = self.progress, self.faces.batches
        self._waited = 0.0
        source: Any = batches.epoch(progress.epoch, start=progress.batch)
        with closing(source), self._drawn_bar() as bar:
            self._train_until_pause(source, bar)
            while self._pause and not self._interrupted():
                self._save()
                self._train_until_pause(source, bar)

    def _train_until_pause(self, source: Iterator[Arrays], bar: Any) -> None:
        """Train on batches until the epoch ends, or a save or Ctrl-C cuts in."""
        progress = self.progress
        with closing(self._feed(source, bar)) as batches:
            terms = self.trainer.train_epoch(batches, self._learning_rate)
        for name, values in terms.items():
            before = progress.running.get(name, np.zeros(0, np.float32))
            progress.running[name] = np.concatenate([before, values])
        if not all(np.isfinite(values).all() for values in progress.running.values()):
            raise self._divergence()

    def _divergence(self) -> FaceauError:
        return FaceauError(
            f"training diverged in epoch {self.progress.epoch + 1}: the loss is no finite number; "
            "start again with a lower --lr, into another --output"
        )

    def _feed(self, source: Iterator[Arrays], bar: Any) -> Generator[Arrays]:
        """Batches to the trainer; it asks for the next one when its step is done."""
        progress, self._pause = self.progress, False
        for _ in range(progress.batch, len(self.faces.batches)):
            asked = time.monotonic()
            batch = next(source)
            self._waited += time.monotonic() - asked
            yield batch
            self._watchdog.alive()
            progress.batch += 1
            bar.update(self.faces.batches.batch_size)
            self._pause = self.trainer.ranks.any(
                self._interruption.requested or self._is_save_due()
            )
            if self._pause:
                return

    def _interrupted(self) -> bool:
        """Whether any rank was asked to stop."""
        return self.trainer.ranks.any(self._interruption.requested)

    def _is_save_due(self) -> bool:
        minutes = (time.monotonic() - self._saved) / 60
        return 0 < self.config.save_minutes < minutes

    def _save(self, **copies: Any) -> None:
        self.folder.save(self._arrays(), self._metadata(), **copies)
        self._saved = time.monotonic()

    def _validate(self) -> dict[str, Any]:
        """Loss and metrics of all validation faces taken as one batch."""
        parts = []
        for images in self.faces.validation_images():
            parts.append(self.trainer.predict(images))
            self._watchdog.alive()
        predictions = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        targets = self.faces.validation_targets()
        losses = self.trainer.losses(predictions, targets)
        if not np.isfinite(losses["loss"]):
            raise self._divergence()
        if "au_intensities" in predictions:
            metrics = au_metrics(targets["au_intensities"], predictions["au_intensities"])
        else:
            metrics = landmark_pose_metrics(targets, predictions, self.faces.statistics.means)
        return {"validation": losses, "metrics": metrics}

    def _learning_rate(self, step: int) -> float:
        total = self.config.epochs * len(self.faces.batches)
        return learning_rate(step, total, self.config.lr)

    def _steps(self) -> int:
        return self.progress.epoch * len(self.faces.batches) + self.progress.batch

    def _arrays(self) -> Arrays:
        teacher = self.faces.teacher.arrays() if self.faces.teacher else {}
        return {
            **set_apart(self.trainer.state()),
            **{TEACHER + name: array for name, array in teacher.items()},
            **self.progress.arrays(),
        }

    def _metadata(self) -> dict[str, Any]:
        return {**self.metadata, "progress": self.progress.metadata()}

    def _drawn_bar(self) -> Any:
        size = self.faces.batches.batch_size
        return self._bar(
            total=len(self.faces.batches) * size,
            initial=self.progress.batch * size,
            desc=f"epoch {self.progress.epoch + 1}/{self.config.epochs}",
            unit=" images",
            leave=False,
        )


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))
