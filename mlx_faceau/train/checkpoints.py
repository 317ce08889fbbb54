"""The files of a training in its output folder, and the position in the training they record."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file, check_output_folder
from mlx_faceau.core.checkpoint import (
    BEST_NAME,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from mlx_faceau.errors import CheckpointError

from .history import HISTORY_NAME

_LOG = logging.getLogger(__name__)

LAST_NAME = "checkpoint_last.safetensors"
FINAL_NAME = "checkpoint_final.safetensors"
NUMBERED = "checkpoint_epoch_{:03d}.safetensors"
_LOCK_NAME = ".training.lock"
_RUNNING = "loop.running."
AU_MODELS = "teacher."  # before the names of the arrays of OpenFaceAUModels


@dataclass
class TrainingState:
    """Where a training stands: all that the loop itself has to remember."""

    epochs: list[dict[str, Any]] = field(default_factory=list)  # the history's, one entry each
    batch: int = 0  # batches of the running epoch that were trained on
    # Loss terms of each step of the running epoch, as the framework's scalars.
    losses: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.epochs)

    @property
    def best(self) -> dict[str, Any]:
        """The entry of the epoch with the lowest validation loss; empty before the first."""
        return min(self.epochs, key=lambda entry: float(entry["validation"]["loss"]), default={})

    @property
    def best_epoch(self) -> int:
        """Its number, counted from 1; 0 for none yet."""
        return int(self.best.get("epoch", 0))

    def loss_arrays(self) -> dict[str, np.ndarray]:
        """Loss terms of the running epoch, (steps,) float32 each."""
        names = self.losses[0] if self.losses else ()
        return {
            name: np.array([float(step[name]) for step in self.losses], np.float32)
            for name in names
        }

    def metadata(self) -> dict[str, Any]:
        """The part that goes into a checkpoint's metadata, as JSON values."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best["validation"]["loss"] if self.epochs else None,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The part that goes among its arrays: the history and the running epoch's losses."""
        history = np.frombuffer(json.dumps(self.epochs).encode(), np.uint8)
        running = {_RUNNING + name: values for name, values in self.loss_arrays().items()}
        return {"loop.history": history, **running}

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "TrainingState":
        """The state that a checkpoint records; CheckpointError if it records none."""
        try:
            terms = checkpoint.section(_RUNNING)
            steps = zip(*terms.values(), strict=True)
            state = cls(
                json.loads(checkpoint.arrays["loop.history"].tobytes()),
                checkpoint.metadata["progress"]["batch"],
                [dict(zip(terms, step, strict=True)) for step in steps],
            )
            # Of an entry without its validation loss, the metadata cannot be made.
            if state.metadata()["epoch"] == checkpoint.metadata["progress"]["epoch"]:
                return state
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        raise CheckpointError(f"{checkpoint.path}: holds weights but no training to resume")


@dataclass(frozen=True)
class RunFolder:
    """An output folder."""

    path: Path  # created with the first file
    keep: int = 0  # numbered checkpoints to keep; 0 keeps all
    writes: bool = True  # whether this process is the one of several that writes; else it does not

    def refuse_if_used(self) -> None:
        """Raise CheckpointError if another run's files would be overwritten."""
        if not self.writes:
            return
        check_output_folder(self.path)
        if (self.path / HISTORY_NAME).exists() or list(self.path.glob("checkpoint_*.safetensors")):
            raise CheckpointError(
                f"{self.path}: already holds a training; continue with --resume {self.path}, "
                "or name another --output"
            )

    def refuse_earlier(self, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError if the training went on after one of the folder's checkpoints."""
        last = self.path / LAST_NAME
        if not self.writes or not last.is_file():
            return
        try:
            newest, own = (
                [(metadata.get("progress") or {}).get(key, 0) for key in ("epoch", "batch")]
                for metadata in (read_metadata(last), checkpoint.metadata)
            )
        except CheckpointError:  # a damaged one has nothing to lose
            return
        if own < newest:
            raise CheckpointError(
                f"{checkpoint.path}: the training in {self.path} went on to epoch {newest[0]}, "
                "which one from here would replace; name another --output"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder until the block ends, however it ends."""
        if not self.writes:
            yield
            return
        from mlx_faceau.core.file_lock import Lock

        check_output_folder(self.path)
        new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        text = "another training runs in this folder; wait until it ends, or name another --output"
        lock = Lock(self.path / _LOCK_NAME, CheckpointError(f"{self.path}: {text}"))
        try:
            yield
        finally:
            lock.release()
            if new and not any(self.path.iterdir()):
                self.path.rmdir()

    def save(
        self,
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, Any],
        *,
        best: bool = False,
        number: int | None = None,
    ) -> None:
        """Write the numbered checkpoint if there is one, the last one, then the best one.

        A kill in between loses nothing: training resumes before the numbered one, or from a last
        one that says that it is the best, and :meth:`adopt_best` makes up for the copy.
        """
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        last = self.path / LAST_NAME
        newest = last if number is None else self.path / NUMBERED.format(number)
        save_checkpoint(newest, arrays, metadata)
        if newest != last:
            self._copy(newest, LAST_NAME)
        if best:
            self._copy(last, BEST_NAME)
        if number is not None:
            numbered = self.path.glob("checkpoint_epoch_*.safetensors")
            oldest_first = sorted(numbered, key=lambda path: (len(path.name), path.name))
            for path in oldest_first[: -self.keep] if self.keep else ():
                path.unlink()

    def clear_unfinished(self) -> None:
        """Remove the half-written files of a training that was killed while it saved."""
        for path in self.path.glob(".checkpoint_*.safetensors") if self.writes else ():
            path.unlink()

    def finish(self) -> None:
        """Name the last checkpoint the final one."""
        if self.writes:
            self._copy(self.path / LAST_NAME, FINAL_NAME)

    def adopt_best(self, resumed: Path, best_epoch: int) -> None:
        """See that the folder's best checkpoint is the one a resumed training knows.

        Where that one is lost, the resumed one stands in, and a warning says so.
        """
        if not best_epoch or not self.writes:
            return
        own = self.path / BEST_NAME
        for candidate in (own, resumed.parent / BEST_NAME, resumed):
            progress = read_metadata(candidate).get("progress") if candidate.is_file() else None
            if progress and (progress.get("epoch"), progress.get("batch")) == (best_epoch, 0):
                if candidate != own:
                    self._copy(candidate, BEST_NAME)
                return
        self._copy(resumed, BEST_NAME)
        _LOG.warning(
            "the best checkpoint so far (epoch %d) is not beside %s: that one stands in as %s "
            "until validation improves",
            *(best_epoch, resumed, BEST_NAME),
        )

    def _copy(self, source: Path, name: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path / name) as temporary:
            shutil.copyfile(source, temporary)


def find_resumable(path: Path | str) -> Checkpoint:
    """The checkpoint that ``--resume`` means; a folder means its last one."""
    return load_checkpoint(find_checkpoint(path, LAST_NAME))
