"""Epochs, early stopping, checkpoints and interruption, with a trainer that needs no framework."""

import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_faceau.core.architectures import LandmarkPoseConfig
from mlx_faceau.core.checkpoint import describe, load_checkpoint
from mlx_faceau.errors import CheckpointError, FaceauError

pytest.importorskip("h5py")

from tiny_training import Alone, FakeTrainer, write_faces

from mlx_faceau.train.checkpoints import RunFolder, TrainingState, find_resumable
from mlx_faceau.train.config import LandmarkPoseTrainConfig
from mlx_faceau.train.datasets import open_data
from mlx_faceau.train.loop import TrainingLoop

NET = LandmarkPoseConfig(width_mult=0.25)
BATCHES = 5  # 20 training faces in batches of 4


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


def make_loop(
    data: Path,
    folder: Path,
    validation_losses: list[float],
    state: TrainingState | None = None,
    **settings: Any,
) -> TrainingLoop:
    values = {"epochs": 6, "batch_size": 4, "val_split": 0.17, "num_workers": 0, **settings}
    config = LandmarkPoseTrainConfig(data=str(data), width_mult=0.25, **values)
    trainer = FakeTrainer(validation_losses, NET)
    run_folder = RunFolder(folder, config.keep)
    metadata = describe(NET, training={}, data={}, versions={}, au_weights=None, init=None)
    places = run_folder, state or TrainingState()
    return TrainingLoop(trainer, open_data(config), config, *places, metadata)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_training_takes_every_batch_of_every_epoch(faces_file: Path, tmp_path: Path) -> None:
    loop = make_loop(faces_file, tmp_path, [3.0, 2.0, 1.0], epochs=3)
    assert loop.run() == "finished"
    assert (loop.state.epoch, loop.state.best_epoch) == (3, 3)
    assert len(loop.trainer.rates) == 3 * BATCHES
    assert names(tmp_path) == {
        "checkpoint_best.safetensors",
        "checkpoint_last.safetensors",
        "checkpoint_final.safetensors",
        "training_history.json",
    }


def test_the_best_checkpoint_is_of_the_epoch_with_the_lowest_validation_loss(
    faces_file: Path, tmp_path: Path
) -> None:
    loop = make_loop(faces_file, tmp_path, [3.0, 1.0, 2.0], epochs=3)
    loop.run()
    assert (loop.state.best_epoch, loop.state.best["validation"]["loss"]) == (2, 1.0)
    assert load_checkpoint(tmp_path).metadata["progress"]["epoch"] == 2


def test_validation_is_one_loss_over_all_faces_not_a_mean_over_batches(
    faces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(faces_file, tmp_path, [], epochs=1, batch_size=2)
    brightness: list[np.ndarray] = []
    judged: list[tuple[np.ndarray, np.ndarray]] = []

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        brightness.append(images.mean(axis=(1, 2, 3)))
        blank = {"global_params": np.zeros((len(images), 6))}
        landmarks = np.broadcast_to(brightness[-1][:, None, None], (len(images), 68, 2))
        return {**blank, "landmarks": landmarks, "local_params": np.zeros((len(images), 34))}

    def losses(predictions: Any, targets: Any) -> dict[str, float]:
        judged.append((predictions["landmarks"][:, 0, 0], targets["landmarks"]))
        return {"loss": 1.0}

    monkeypatch.setattr(loop.trainer, "predict", predict)
    monkeypatch.setattr(loop.trainer, "losses", losses)
    loop.run()
    assert [len(part) for part in brightness] == [2, 2]
    ((predicted, truth),) = judged
    np.testing.assert_array_equal(predicted, np.concatenate(brightness))
    faces = loop.data
    np.testing.assert_array_equal(truth, faces.dataset.labels["landmarks"][faces.split.validation])


def test_training_stops_when_patience_runs_out(faces_file: Path, tmp_path: Path) -> None:
    loop = make_loop(faces_file, tmp_path, [2.0, 1.0, 1.0, 1.5, 0.5], patience=2)
    assert loop.run() == "patience"
    assert (loop.state.epoch, loop.state.best_epoch) == (4, 2)


def test_ranks_whose_validation_losses_differ_stop_together(
    faces_file: Path, tmp_path: Path
) -> None:
    meeting, votes = threading.Barrier(2, timeout=20), [False, False]

    class Rank(Alone):
        def __init__(self, number: int) -> None:
            self.rank = number

        def any(self, flag: bool) -> bool:
            votes[self.rank] = bool(flag)
            meeting.wait()
            found = any(votes)
            meeting.wait()  # or the next question could change the votes
            return found

    def train(number: int, third: float) -> tuple[str, int]:
        losses = [2.0, 1.0, third, 1.5, 1.5, 1.5]
        loop = make_loop(faces_file, tmp_path / str(number), losses, patience=2)
        loop.trainer.ranks = Rank(number)
        return loop.run(), loop.state.epoch

    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(train, [0, 1], [1.0, 0.99999]))
    assert ends == [("patience", 4), ("patience", 4)]


def test_the_newest_numbered_checkpoints_are_kept(faces_file: Path, tmp_path: Path) -> None:
    make_loop(faces_file, tmp_path, [1.0] * 6, save_every=1, keep=2, patience=9).run()
    numbered = sorted(name for name in names(tmp_path) if "epoch" in name)
    assert numbered == ["checkpoint_epoch_005.safetensors", "checkpoint_epoch_006.safetensors"]


def test_the_history_tells_each_epoch(faces_file: Path, tmp_path: Path) -> None:
    make_loop(faces_file, tmp_path, [2.0, 1.0], epochs=2).run()
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert [entry["validation"]["loss"] for entry in history["epochs"]] == [2.0, 1.0]
    assert history["epochs"][0]["metrics"]["correlation_without_mean"] is not None
    assert history["epochs"][1]["images_per_second"] > 0
    assert history["stopped"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_saves_and_the_run_goes_on_from_there(
    faces_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    whole = make_loop(faces_file, tmp_path / "whole", [3.0, 2.0, 1.0], epochs=3)
    whole.run()

    broken = make_loop(faces_file, tmp_path / "broken", [3.0], epochs=3)
    broken.trainer.on_step = lambda step: (
        signal.raise_signal(number) if step == BATCHES + 2 else None
    )
    assert broken.run() == "interrupted"
    checkpoint = find_resumable(tmp_path / "broken")
    assert checkpoint.metadata["progress"]["batch"] == 2

    state = TrainingState.from_checkpoint(checkpoint)
    resumed = make_loop(faces_file, tmp_path / "broken", [2.0, 1.0], state, epochs=3)
    resumed.trainer.restore(checkpoint.arrays)
    assert resumed.run() == "finished"
    np.testing.assert_array_equal(resumed.trainer.seen, whole.trainer.seen)
    assert resumed.trainer.rates[BATCHES + 2 :] == whole.trainer.rates[BATCHES + 2 :]
    losses = [[e["training"]["loss"] for e in loop.state.epochs] for loop in (whole, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no terminals that hang up")
def test_a_terminal_that_is_closed_ends_a_training_that_can_be_resumed(tmp_path: Path) -> None:
    import pty

    faces, folder = write_faces(tmp_path / "faces.h5"), tmp_path / "run"
    settings = ["--width-mult", "0.1", "--batch-size", "4", "--val-split", "0.17", "--no-export"]
    words = ["train", "au", "--data", str(faces), "--output", str(folder), *settings]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "mlx_faceau", *words, "--epochs", "100000"])
    seen = b""
    while b"epoch 3/" not in seen:  # its progress bar
        seen += os.read(terminal, 1 << 16)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert json.loads((folder / "training_history.json").read_text())["stopped"] == "interrupted"
    progress = find_resumable(folder).metadata["progress"]
    assert (progress["epoch"], progress["batch"]) >= (2, 1)


def test_a_repeated_sigterm_does_not_keep_it_from_saving(faces_file: Path, tmp_path: Path) -> None:
    loop = make_loop(faces_file, tmp_path, [3.0], epochs=3)
    loop.trainer.on_step = lambda step: [signal.raise_signal(signal.SIGTERM) for _ in range(2)]
    assert loop.run() == "interrupted"
    assert find_resumable(tmp_path).metadata["progress"]["batch"] == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_sigterm_that_the_program_handles_itself_stays_its_own(
    faces_file: Path, tmp_path: Path
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        loop = make_loop(faces_file, tmp_path, [3.0], epochs=1)
        loop.trainer.on_step = lambda step: signal.raise_signal(signal.SIGTERM)
        assert loop.run() == "finished"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM] * BATCHES


def test_a_sigterm_that_ends_the_augmenting_processes_first_still_saves(
    faces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(faces_file, tmp_path, [3.0], epochs=3)
    whole = type(loop.data.batches).epoch

    def until_killed(batches: Any, epoch: int, start: int = 0) -> Any:
        source = whole(batches, epoch, start)
        yield next(source)
        signal.raise_signal(signal.SIGTERM)
        raise FaceauError("an augmentation process was killed")

    monkeypatch.setattr(type(loop.data.batches), "epoch", until_killed)
    assert loop.run() == "interrupted"
    assert find_resumable(tmp_path).metadata["progress"]["batch"] == 1


def test_a_total_that_is_reached_already_is_said(
    faces_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = make_loop(faces_file, tmp_path, [3.0, 2.0], epochs=2)
    loop.run()
    assert "nothing is left" not in caplog.text
    loop.run()
    assert "--epochs 2: epoch 2 is done, nothing is left to train" in caplog.text


def test_the_running_epoch_is_saved_every_few_minutes_and_goes_on_from_any_save(
    faces_file: Path, tmp_path: Path
) -> None:
    whole = make_loop(faces_file, tmp_path / "whole", [2.0, 1.0], epochs=2)
    whole.run()

    saved: list[int] = []
    died = make_loop(faces_file, tmp_path / "died", [2.0], epochs=2, save_every_minutes=1e-9)

    def note_and_die(step: int) -> None:
        saved.append(find_resumable(tmp_path / "died").metadata["progress"]["batch"])
        if step == BATCHES + 3:
            raise SystemError("killed")

    died.trainer.on_step = note_and_die
    with pytest.raises(SystemError):
        died.run()
    assert saved == [0, 1, 2, 3, 4, 0, 1, 2]

    checkpoint = find_resumable(tmp_path / "died")
    state = TrainingState.from_checkpoint(checkpoint)
    resumed = make_loop(faces_file, tmp_path / "died", [1.0], state, epochs=2)
    resumed.trainer.restore(checkpoint.arrays)
    resumed.run()
    np.testing.assert_array_equal(resumed.trainer.seen, whole.trainer.seen)
    losses = [[e["training"]["loss"] for e in loop.state.epochs] for loop in (whole, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_a_kill_between_the_files_of_a_save_loses_none_of_them(
    copies: int, faces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, left = RunFolder._copy, iter(range(copies))

    def copy_or_die(folder: RunFolder, *files: Any) -> None:
        if next(left, None) is None:
            raise SystemError("killed")
        copy(folder, *files)

    died = make_loop(faces_file, tmp_path, [2.0, 1.0], epochs=2, save_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_copy", copy_or_die)
        with pytest.raises(SystemError):
            died.run()
    last = find_resumable(tmp_path)
    state = TrainingState.from_checkpoint(last)
    RunFolder(tmp_path).adopt_best(last.path, state.best_epoch)
    losses = [2.0, 1.0][state.epoch :]
    make_loop(faces_file, tmp_path, losses, state, epochs=2, save_every=1).run()
    found = {path.stem: load_checkpoint(path) for path in tmp_path.glob("*.safetensors")}
    epochs = {name: file.metadata["progress"]["epoch"] for name, file in found.items()}
    twos = {f"checkpoint_{name}": 2 for name in ("best", "last", "final", "epoch_002")}
    assert epochs == {"checkpoint_epoch_001": 1, **twos}


def test_an_epoch_that_died_in_validation_keeps_its_learning_rate(
    faces_file: Path, tmp_path: Path
) -> None:
    whole = make_loop(faces_file, tmp_path / "whole", [2.0, 1.0], epochs=2)
    whole.run()
    died = make_loop(faces_file, tmp_path / "died", [], epochs=2, save_every_minutes=1e-9)
    with pytest.raises(IndexError):  # no validation loss is left
        died.run()
    state = TrainingState.from_checkpoint(find_resumable(tmp_path / "died"))
    assert (state.epoch, state.batch) == (0, BATCHES)
    resumed = make_loop(faces_file, tmp_path / "died", [2.0, 1.0], state, epochs=2)
    resumed.run()
    rates = [[e["learning_rate"] for e in loop.state.epochs] for loop in (whole, resumed)]
    assert rates[0] == rates[1]


def test_what_a_killed_save_left_behind_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".checkpoint_last.safetensors.x1.safetensors"
    left.write_bytes(b"half")
    RunFolder(tmp_path).clear_unfinished()
    assert names(tmp_path) == set()


def test_a_second_ctrl_c_ends_at_once(faces_file: Path, tmp_path: Path) -> None:
    loop = make_loop(faces_file, tmp_path, [], epochs=3)
    before = signal.getsignal(signal.SIGINT)

    def twice(step: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    loop.trainer.on_step = twice
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_no_number_ends_training_and_leaves_the_last_checkpoint(
    faces_file: Path, tmp_path: Path
) -> None:
    loop = make_loop(faces_file, tmp_path, [1.0, float("nan")], epochs=3)
    with pytest.raises(FaceauError, match=r"diverged in epoch 2.*--lr"):
        loop.run()
    assert find_resumable(tmp_path).metadata["progress"]["epoch"] == 1


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "training_history.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"--resume {tmp_path}"):
        RunFolder(tmp_path).refuse_if_used()


def test_a_file_as_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match="is a file"):
        RunFolder(tmp_path / "run").refuse_if_used()


def test_a_best_checkpoint_lost_between_two_writes_is_made_up_for(
    faces_file: Path, tmp_path: Path
) -> None:
    make_loop(faces_file, tmp_path, [2.0, 1.0], epochs=2).run()
    (tmp_path / "checkpoint_best.safetensors").unlink()
    last = find_resumable(tmp_path)
    RunFolder(tmp_path).adopt_best(last.path, TrainingState.from_checkpoint(last).best_epoch)
    assert load_checkpoint(tmp_path).hash == last.hash


def test_resuming_elsewhere_takes_the_best_checkpoint_along_or_says_that_it_is_lost(
    faces_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "old"
    make_loop(faces_file, old, [1.0, 2.0], epochs=2).run()
    last = find_resumable(old)
    best = TrainingState.from_checkpoint(last).best_epoch
    new = RunFolder(tmp_path / "new")
    caplog.clear()  # of the training's lines, which are there if logging was set up before
    new.adopt_best(last.path, best)
    assert not caplog.messages
    assert load_checkpoint(new.path).metadata["progress"]["epoch"] == 1
    (old / "checkpoint_best.safetensors").unlink()
    RunFolder(tmp_path / "newer").adopt_best(
        last.path, TrainingState.from_checkpoint(last).best_epoch
    )
    assert "epoch 1" in caplog.messages[-1]


def test_a_checkpoint_without_a_training_cannot_be_resumed(
    faces_file: Path, tmp_path: Path
) -> None:
    loop = make_loop(faces_file, tmp_path, [])
    RunFolder(tmp_path).save(loop.trainer.state(), describe(NET))
    with pytest.raises(CheckpointError, match="no training to resume"):
        TrainingState.from_checkpoint(find_resumable(tmp_path))


def test_a_folder_without_a_last_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint_last\.safetensors"):
        find_resumable(tmp_path)
