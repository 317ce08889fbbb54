"""Epochs, schedule, validation, early stopping and checkpoints, once for both frameworks.

References:
    Goyal et al., Accurate, Large Minibatch SGD, 2017 (warm-up).
    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.
    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992 (the average).
"""

import logging
import math
import os
import signal
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import write_json
from mlx_faceau.core.auxiliary_head import with_auxiliary_prefix
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
from mlx_faceau.core.trainer import Trainer
from mlx_faceau.errors import FaceauError

from .checkpoints import AU_MODELS, LAST_NAME, RunFolder, TrainingState
from .config import TrainConfig
from .datasets import TrainingData
from .distributed import Watchdog
from .history import HISTORY_NAME, epoch_line, history, write_scalars

_LOG = logging.getLogger(__name__)

WARMUP_SHARE = 0.05  # of all steps
FINAL_SHARE = 0.01  # of the peak, at the last step
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_ENDS = [signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]
_CLOCK_TICK = 1e-9  # seconds; a coarse clock may show the same time twice


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """Learning rate in (0, peak] of a step, counted from 0; after the last it stays."""
    warmup = max(1, round(WARMUP_SHARE * total_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, total_steps - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def averaging_decay(step: int, decay: float) -> float:
    """Share of the old average of the weights that stays after one optimizer step.

    Early on it is small, so that the average forgets the weights that nothing has trained yet.
    """
    return min(decay, (1 + step) / (10 + step))


@dataclass
class TrainingLoop:
    """Trains one net until its last epoch, until patience runs out, or until Ctrl-C."""

    trainer: Trainer
    data: TrainingData
    config: TrainConfig
    folder: RunFolder  # where checkpoints and history go
    state: TrainingState  # where to start; updated during training
    metadata: Mapping[str, Any]  # what every checkpoint of this run records
    show_progress: bool = False  # draw a progress bar
    writer: Any = None  # a TensorBoard writer that gets every epoch's figures; None for none
    exports: Mapping[str, str] = field(default_factory=dict)  # by file what became of it
    # Why training ended: "finished", "patience" or "interrupted"; None until then.
    stopped: str | None = None

    def __post_init__(self) -> None:
        # A machine that is lent ends, or a terminal; to several ranks SIGTERM says that one failed.
        ends = _ENDS if self.trainer.ranks.size == 1 else ()
        self._stop_request = StopRequest(signal.SIGINT, *ends)
        self._watchdog = Watchdog(self.trainer.ranks, self.config.rank_timeout)
        self._last_save = time.monotonic()

    def run(self) -> str:
        """Train; the reason why it ended, which ``stopped`` keeps.

        FaceauError is raised if the loss is not finite; the last good checkpoint stays.
        """
        if not (self.folder.path / LAST_NAME).exists():
            self._save()  # if the first epoch dies, there is something to resume
        if (done := self.state.epoch) >= self.config.epochs:
            _LOG.warning(
                "--epochs %d: epoch %d is done, nothing is left to train; give a larger total",
                self.config.epochs, done,
            )  # fmt: skip
        with self._stop_request, self._watchdog:
            while (reason := self._reason_to_stop()) is None:
                started = time.monotonic()
                speed = self._train_epoch()
                if self.state.batch == len(self.data.batches):
                    self._end_epoch({**speed, **self._validate()}, started)
        if reason != "interrupted":
            self.folder.finish()
        self.stopped = reason
        self.write_history()
        return reason

    def _reason_to_stop(self) -> str | None:
        state = self.state
        if self.trainer.ranks.any(self._stop_request.requested):
            return "interrupted"
        if state.epoch >= self.config.epochs:
            return "finished"
        stale = state.epoch - state.best_epoch
        # Asked together: each rank validates on its own GPU, whose rounding may be another's.
        return "patience" if self.trainer.ranks.any(stale >= self.config.patience) else None

    def _train_epoch(self) -> dict[str, Any]:
        """Train the rest of the epoch, up to its end or a stop request; its speed."""
        from tqdm import tqdm

        state, batches, config = self.state, self.data.batches, self.config
        first, done = state.batch, state.epoch * len(batches)
        total_steps = config.epochs * len(batches)
        started, waited = time.monotonic(), 0.0
        bar = tqdm(
            total=len(batches) * batches.batch_size,
            initial=first * batches.batch_size,
            desc=f"epoch {state.epoch + 1}/{config.epochs}",
            unit=" images",
            leave=False,
            disable=not self.show_progress,
        )
        with bar, closing(batches.epoch(state.epoch, start=first)) as source:
            while state.batch < len(batches):
                asked = time.monotonic()
                try:
                    batch = next(source)
                except FaceauError:
                    # A SIGTERM to all processes of a job ends those that augment faces too.
                    if self.trainer.ranks.size > 1 or not self._stop_request.requested:
                        raise
                    self._save()
                    break
                waited += time.monotonic() - asked
                rate = learning_rate(done + state.batch, total_steps, config.lr)
                state.losses.append(self.trainer.step(batch, rate))
                state.batch += 1
                bar.update(batches.batch_size)
                self._watchdog.reset()
                stop, minutes = self._stop_request.requested, config.save_every_minutes
                due = 0 < 60 * minutes < time.monotonic() - self._last_save
                if self.trainer.ranks.any(stop or due):
                    self._save()
                    if self.trainer.ranks.any(stop):
                        break
        seconds = max(time.monotonic() - started, _CLOCK_TICK)
        return {
            "learning_rate": learning_rate(done + state.batch - 1, total_steps, config.lr),
            "images_per_second": (state.batch - first) * batches.batch_size / seconds,
            "waiting": waited / seconds,
        }

    def _end_epoch(self, figures: Mapping[str, Any], started: float) -> None:
        """Record a finished epoch and save."""
        state, config = self.state, self.config
        losses = state.loss_arrays().items()
        entry = {
            "epoch": state.epoch + 1,
            "training": {name: float(np.mean(v, dtype=np.float64)) for name, v in losses},
            **figures,
            "seconds": time.monotonic() - started,
        }
        state.epochs.append(entry)
        state.batch, state.losses = 0, []
        is_best = state.best is entry
        number = state.epoch if state.epoch % config.save_every == 0 else None
        self._save(best=is_best, number=number)
        self.write_history()
        if self.writer is not None:
            write_scalars(self.writer, entry)
        _LOG.info(epoch_line(entry, config.epochs, is_best))

    def _validate(self) -> dict[str, Any]:
        """Loss and metrics of all validation faces taken as one batch."""
        parts = []
        for images in self.data.validation_images():
            parts.append(self.trainer.predict(images))
            self._watchdog.reset()
        predictions = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        targets = self.data.validation_targets()
        losses = self.trainer.losses(predictions, targets)
        self._check_finite(losses["loss"])
        if "au_intensities" in predictions:
            metrics = au_metrics(targets["au_intensities"], predictions["au_intensities"])
        else:
            metrics = landmark_pose_metrics(targets, predictions, self.data.statistics.means)
        return {"validation": losses, "metrics": metrics}

    def _check_finite(self, losses: Any) -> None:
        if not np.isfinite(losses).all():
            raise FaceauError(
                f"training diverged in epoch {self.state.epoch + 1}: the loss is not finite; "
                "start again with a lower --lr, into another --output"
            )

    def _save(self, **copies: Any) -> None:
        losses = self.state.loss_arrays()
        self._check_finite(losses.get("loss", 0.0))
        au_models = self.data.au_models.arrays() if self.data.au_models else {}
        arrays = {
            **with_auxiliary_prefix(self.trainer.state()),
            **{AU_MODELS + name: array for name, array in au_models.items()},
            **self.state.arrays(),
        }
        self.folder.save(arrays, {**self.metadata, "progress": self.state.metadata()}, **copies)
        self._last_save = time.monotonic()

    def write_history(self) -> None:
        """Write the history so far."""
        if self.folder.writes:
            content = history(self.metadata, self.state.epochs, self.stopped, self.exports)
            write_json(self.folder.path / HISTORY_NAME, content)

    def overfit_share(self) -> float:
        """The best validation loss as a share of that of the training means as predictions."""
        constant = self.data.constant_predictions()
        losses = self.trainer.losses(constant, self.data.validation_targets())
        return float(self.state.best["validation"]["loss"]) / losses["loss"]


class StopRequest:
    """Ctrl-C, SIGTERM or SIGHUP as a request to stop after the running step.

    A second Ctrl-C raises KeyboardInterrupt; schedulers repeat SIGTERM, which changes nothing. A
    signal that the program handles itself, or that nohup ignores, stays so. Outside the main
    thread, where Python delivers no signals, it is never ``requested``.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.requested = False
        self._signals = signals
        if threading.current_thread() is not threading.main_thread():
            self._signals = ()

    def __enter__(self) -> "StopRequest":
        self._previous = {
            each: signal.signal(each, self._handle)
            for each in self._signals
            if each == signal.SIGINT or signal.getsignal(each) == signal.SIG_DFL
        }
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == _HANGUP:
            _leave_terminal()
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def _leave_terminal() -> None:
    """Let what is printed go nowhere: writing to a terminal that was closed is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)
