"""Faults that the system reports, put upon whole commands: each must end in one clear line.

Whatever was under a final name before stays, nothing half-written takes one, and no temporary file
is left over.
"""

import contextlib
import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fault_child import in_child, load, run_child
from fault_jobs import CONFIGS, damage, write_clip

from blobs import boxes_of  # isort: skip
from lively import write_checkpoint  # isort: skip
from tiny_training import write_faces  # isort: skip

from mlx_faceau.cli.main import main as command_line

_TRAIN = [
    *("--epochs", "1", "--batch-size", "4", "--width-mult", "0.0625", "--val-split", "0.17"),
    *("--framework", "torch", "--device", "cpu", "--num-workers", "0", "--no-export"),
]


@dataclass(frozen=True)
class Command:
    """One command line.

    Args:
        name: for the table.
        arguments: ``IN`` and ``OUT`` stand for the folders of inputs and results.
    """

    name: str
    arguments: tuple[str, ...]

    def run(self, inputs: Path, outputs: Path) -> int:
        places = {"IN": str(inputs), "OUT": str(outputs)}
        words = [
            word.replace("IN/", f"{places['IN']}/").replace("OUT/", f"{places['OUT']}/")
            for word in self.arguments
        ]
        return command_line(words)


_NETS = ("--landmark-model", "IN/landmark-pose.onnx", "--au-model", "IN/au.onnx")
COMMANDS = (
    Command("train", ("train", "au", "--data", "IN/faces.h5", "--output", "OUT/run", *_TRAIN)),
    Command("write", ("data", "synth", "--count", "12", "--people", "3", "--output", "OUT/f.h5")),
    Command(
        "export onnx", ("export", "IN/au.safetensors", "--to", "onnx", "--output", "OUT/a.onnx")
    ),
    Command(
        "export coreml",
        ("export", "IN/au.safetensors", "--to", "coreml", "--output", "OUT/a.mlpackage"),
    ),
    Command(
        "predict",
        (
            *("predict", "IN/clip.avi", *_NETS, "--detector", "fault_cases:find_faces"),
            *("--backend", "onnx", "--output", "OUT/clip.csv", "--overlay", "--report"),
        ),
    ),
    Command(
        "predict crops",
        ("predict", "--aligned", "IN/crop.png", *_NETS, "--output", "OUT/c.csv"),
    ),
    Command("preview", ("data", "preview", "IN/faces.h5", "--output", "OUT/sheet.png")),
)  # fmt: skip


def find_faces(frame: np.ndarray) -> list[tuple[float, float, float, float]]:
    """The detector of the predictions: the drawn people."""
    return boxes_of(frame)


def prepare(inputs: Path) -> None:
    from mlx_faceau.convert.export_onnx import export_to_onnx

    inputs.mkdir()
    write_faces(inputs / "faces.h5")
    write_clip(inputs / "clip.avi")
    cv2.imwrite(str(inputs / "crop.png"), np.zeros((112, 112, 3), np.uint8))
    for name, config in CONFIGS.items():
        write_checkpoint(inputs / f"{name}.safetensors", config)
        export_to_onnx(inputs / f"{name}.safetensors", inputs / f"{name}.onnx")


# --- faults: each is put upon the child process and stays until it ends


def limit_file_size(size: int) -> None:
    """Files end there, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def refuse_sync(after: int, code: int) -> None:
    """The disk fails when the bytes are to be brought onto it."""
    calls = iter(range(1 << 30))

    def fsync(handle: int) -> None:
        if next(calls) >= after:
            raise OSError(code, os.strerror(code))

    os.fsync = fsync


def refuse_rename(outputs: Path) -> None:
    def rename(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path), None, str(target))

    Path.replace = Path.rename = rename  # type: ignore[method-assign, assignment]


def make_read_only(folder: Path) -> None:
    """A folder that may not be written to; root is bound to that without two capabilities."""
    folder.chmod(0o555)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capset's third version, this process
    none = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


@dataclass
class Tally:
    """What the commands of one case came to."""

    faults: int = 0
    problems: list[str] = field(default_factory=list)


def refusals(
    folder: Path, rounds: int, rng: random.Random, only: list[str] | None
) -> Iterator[tuple[str, Tally, float]]:
    """Each case's name, what came of it, and the seconds it took."""
    stage = Stage(folder)
    cases: dict[str, Callable[[Tally], None]] = {
        "full disk": lambda tally: stage.full_disk(tally, rounds, rng),
        "failing disk": lambda tally: stage.failing_disk(tally, rng),
        "refused rename": stage.refused_rename,
        "read-only folder": stage.read_only,
        "full standard output": stage.full_output,
        "vanished input": stage.vanished,
        "truncated while read": stage.truncated,
        "two at once": stage.two_at_once,
        "clock jumps": stage.clock,
        "too little memory": stage.memory,
    }
    wanted = [n for n in cases if only is None or any(n.startswith(start) for start in only)]
    if wanted:
        in_child(lambda: prepare(stage.inputs))
        stage.run_undisturbed()
    for name in wanted:
        tally, started = Tally(), time.monotonic()
        cases[name](tally)
        yield name, tally, time.monotonic() - started


class Stage:
    """Inputs, the results of undisturbed commands, and a folder for disturbed ones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs = folder, folder / "in"
        self.outputs = folder / "out"
        self.modules: set[str] = set()  # that the commands loaded

    def run_undisturbed(self) -> None:
        for command in COMMANDS:
            place = self._whole(command)
            place.mkdir()
            status, text = self._run(command, lambda: None, place)
            if status:
                raise RuntimeError(f"{command.name}: {text}")
        load(self.modules)

    def _whole(self, command: Command) -> Path:
        return self.folder / f"whole-{command.name.replace(' ', '-')}"

    def _run(self, command: Command, fault: Callable[[], object], outputs: Path) -> tuple[int, str]:
        """Exit status and standard error of a command in a child, under a fault."""
        log = self.folder / "stderr.txt"

        def work(tell: Callable[[Any], None]) -> None:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 2)
            signal.alarm(120)
            fault()
            tell(command.run(self.inputs, outputs))
            tell(sorted(sys.modules))

        told, error = run_child(work)
        self.modules.update(told[-1] if len(told) == 2 else [])
        return (told[0] if told else -1), log.read_text(errors="replace") + error

    def disturb(self, tally: Tally, command: Command, fault: Callable[[], object]) -> None:
        """Run a command under a fault on empty ground, and look at what it says and leaves."""
        self.outputs.mkdir()
        status, text = self._run(command, fault, self.outputs)
        self.outputs.chmod(0o755)
        if status != 0:
            tally.faults += 1
            tally.problems += [f"{p} ({command.name})" for p in one_line(status, text)]
            tally.problems += [f"{p} ({command.name})" for p in self.left_over(command)]
        shutil.rmtree(self.outputs)

    def left_over(self, command: Command) -> Iterator[str]:
        """What is half-written under a final name, or temporary and still there."""
        for path in sorted(self.outputs.rglob("*")):
            if path.name.startswith("."):
                yield f"other: {path.name} is left"
            elif path.is_file() and not path.with_name(path.name + ".incomplete").exists():
                yield from self._compare(path, self._whole(command))

    def _compare(self, path: Path, whole: Path) -> Iterator[str]:
        same = whole / path.relative_to(self.outputs)
        growing = (self.outputs / "clip.csv.incomplete").exists()
        if path.suffix in (".onnx", ".csv", ".mlmodel", ".bin", ".html"):
            if path.read_bytes() != same.read_bytes():
                yield f"broken: {path.name}"
        elif path.suffix == ".mkv":
            if not growing and path.stat().st_size != same.stat().st_size:
                yield f"broken: {path.name}"
        elif path.suffix == ".h5":
            from mlx_faceau.data.format.dataset import FaceDataset

            if len(FaceDataset(path)) != 12:
                yield f"broken: {path.name}"
        else:
            yield from damage(path)

    # --- the cases

    def full_disk(self, tally: Tally, rounds: int, rng: random.Random) -> None:
        for command in COMMANDS:
            files = [path for path in self._whole(command).rglob("*") if path.is_file()]
            largest = max(path.stat().st_size for path in files)
            for _ in range(rounds):
                size = round(largest * rng.uniform(0, 0.98))
                self.disturb(tally, command, lambda size=size: limit_file_size(size))

    def failing_disk(self, tally: Tally, rng: random.Random) -> None:
        for command in COMMANDS:
            for code in (errno.EIO, errno.ENOSPC):
                after = rng.randrange(2) if command.name == "train" else 0
                self.disturb(tally, command, lambda c=code, a=after: refuse_sync(a, c))

    def refused_rename(self, tally: Tally) -> None:
        for command in COMMANDS:
            self.disturb(tally, command, lambda: refuse_rename(self.outputs))

    def read_only(self, tally: Tally) -> None:
        for command in COMMANDS:
            self.disturb(tally, command, lambda: make_read_only(self.outputs))

    def full_output(self, tally: Tally) -> None:
        """Rows on a standard output that takes no more."""
        for command in COMMANDS:
            if command.name.startswith("predict"):
                words = [
                    word for word in command.arguments if word not in ("--overlay", "--report")
                ]
                words[words.index("--output") + 1] = "-"
                to_output = Command(command.name, tuple(words))
                self.disturb(tally, to_output, fill_output)

    def vanished(self, tally: Tally) -> None:
        """Each input of each command away."""
        for command in COMMANDS:
            for word in command.arguments:
                if word.startswith("IN/"):
                    missing = self.inputs / word.removeprefix("IN/")
                    hidden = missing.with_name("hidden")
                    missing.rename(hidden)
                    self.disturb(tally, command, lambda: None)
                    hidden.rename(missing)

    def truncated(self, tally: Tally) -> None:
        """The training file is cut after the first step."""
        from mlx_faceau.train import checkpoints

        faces = self.inputs / "faces.h5"
        content = faces.read_bytes()

        def cut_after_a_save() -> None:
            save = checkpoints.RunFolder.save

            def save_and_cut(folder: Any, *arguments: Any, **copies: Any) -> None:
                save(folder, *arguments, **copies)
                os.truncate(faces, 5000)

            checkpoints.RunFolder.save = save_and_cut  # type: ignore[method-assign]

        before = tally.faults
        self.disturb(tally, COMMANDS[0], cut_after_a_save)
        tally.faults = before + 1  # it may also have read all it needs
        faces.write_bytes(content)

    def two_at_once(self, tally: Tally) -> None:
        """This process holds what the command wants to write."""
        from mlx_faceau.data.format.writer import TrainingDataWriter
        from mlx_faceau.output.writers import RowFile
        from mlx_faceau.train.checkpoints import RunFolder

        holders: dict[str, Callable[[], Any]] = {
            "train": lambda: RunFolder(self.outputs / "run").locked(),
            "write": lambda: TrainingDataWriter(self.outputs / "f.h5"),
            "predict": lambda: RowFile(self.outputs / "clip.csv"),
        }
        for command in COMMANDS:
            if command.name in holders:
                self.outputs.mkdir()
                holder = holders[command.name]()
                with contextlib.suppress(Exception), holder:
                    status, text = self._run(command, lambda: None, self.outputs)
                    tally.faults += 1
                    tally.problems += [f"{p} ({command.name})" for p in one_line(status, text)]
                    raise RuntimeError("leave without a result")
                shutil.rmtree(self.outputs)

    def clock(self, tally: Tally) -> None:
        """The system's time jumps by years, the other clock stands still: nothing changes."""
        jumps = random.Random(0)

        def disturb_clocks() -> None:
            now, still = time.time(), time.monotonic()
            time.time = lambda: now + jumps.uniform(-1e8, 1e8)  # type: ignore[assignment]
            time.monotonic = lambda: still  # type: ignore[assignment]

        for command in COMMANDS:
            self.outputs.mkdir()
            status, text = self._run(command, disturb_clocks, self.outputs)
            tally.faults += 1
            if status:
                tally.problems.append(f"other: {text[-500:]} ({command.name})")
            tally.problems += [f"{p} ({command.name})" for p in self.left_over(command)]
            shutil.rmtree(self.outputs)

    def memory(self, tally: Tally) -> None:
        """The ways in which Python, torch and MLX say that memory has run out, in a step."""
        import torch

        for error in (
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"),
            RuntimeError("[metal::malloc] Attempting to allocate 9 GB"),
        ):
            self.disturb(tally, COMMANDS[0], lambda error=error: run_out(error))


def run_out(error: Exception) -> None:
    from mlx_faceau.torch_fallback.trainer import TorchTrainer

    def train_epoch(*_: Any) -> None:
        raise error

    TorchTrainer.train_epoch = train_epoch  # type: ignore[assignment]


def fill_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def one_line(status: int, text: str) -> Iterator[str]:
    """Whether a command ended as it should: status 2 and one line that says why."""
    lines = [line for line in text.splitlines() if line.startswith("mlx-faceau: ")]
    if status != 2 or len(lines) != 1 or "Traceback" in text:
        yield f"other: status {status}, {text[:300]!r} ... {text[-600:]!r}"
