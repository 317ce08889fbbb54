"""What does a fault cost?  python benchmarks/faults.py

Whole commands are killed at random moments (SIGKILL) and started again in the same folder until
one ends. They are also run without a resource that they need: space on the disk, a writable folder,
an input file, a standard output that is not full.

    faults.csv   by case: faults; progress that was lost; half-written files under final names;
                 results that differ from an undisturbed run's; anything but one clear line

Linux alone. The exit status is 1 if there was any damage.
"""

# ruff: noqa: E402

import argparse
import ctypes
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from timing import RESULTS, Row, write_csv

TESTS = Path(__file__).parents[1] / "tests"  # predictions detect the drawn people by its blobs.py
sys.path[:0] = [str(TESTS / part) for part in ("", "train", "data")]

# isort: split
import labelled_videos
from random_nets import write_checkpoint
from tiny_training import write_faces

from mlx_faceau import export_to_onnx
from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig
from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.data.format.dataset import FaceDataset

NETS = {"landmark-pose": LandmarkPoseConfig(0.0625), "au": AUPredictionConfig(0.0625)}
TRAINING = (
    "--data IN/faces.h5 --output OUT/run --epochs 2 --batch-size 4 --width-mult 0.0625 "
    "--val-split 0.17 --framework torch --device cpu --num-workers 0 --no-export "
    "--save-every-minutes 1e-6"
)
# Command lines, where IN and OUT stand for the folders of inputs and results. A training resumes
# where OUT/run holds a checkpoint.
COMMANDS = {
    "train landmark-pose": f"train landmark-pose {TRAINING}",
    "train au": f"train au {TRAINING}",
    "export onnx": "export IN/au.safetensors --to onnx --output OUT",
    "export coreml": "export IN/au.safetensors --to coreml --output OUT",
    "predict": "predict IN/clip.mp4 --landmark-model IN/landmark-pose.onnx --au-model IN/au.onnx "
    "--detector blobs:boxes_of --backend onnx --report --output OUT/clip.csv",
    "data generate": "data generate IN/videos --output OUT/faces.h5",
}
DAMAGE = ("lost", "broken", "different", "other")  # first words of problems
READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_checkpoint,
    ".h5": FaceDataset,
    ".json": lambda path: json.loads(path.read_text()),
    ".png": lambda path: Image.open(path).load(),
    ".html": lambda path: path.read_text().index("</html>"),
}
TIMEOUT = 300  # seconds of a command


def main() -> None:
    parser = argparse.ArgumentParser(description="kills and refused resources")
    parser.add_argument("--kills", type=int, default=34, help="of each command")
    parser.add_argument("--only", nargs="*", default=[*COMMANDS], choices=[*COMMANDS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "faults.csv")
    args = parser.parse_args()
    rng, rows = random.Random(args.seed), []
    # In memory where there is such a disk: what is killed is the process, not the machine.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        write_inputs(Path(folder) / "in")
        for name in args.only:
            trial = Trial(COMMANDS[name], Path(folder), rng)
            for kind, run in (("kill", trial.kills(args.kills)), ("refusal", trial.refusals())):
                started, faults = time.monotonic(), list(run)
                problems = [problem for found in faults for problem in found]
                print(*(f"{name}: {problem}\n" for problem in problems), sep="", end="", flush=True)
                row: Row = {"kind": kind, "case": name, "faults": len(faults)}
                row |= {key: sum(p.startswith(key) for p in problems) for key in DAMAGE}
                rows.append({**row, "seconds": round(time.monotonic() - started, 1)})
    write_csv(args.output, rows)
    sys.exit(1 if any(row[key] for row in rows for key in DAMAGE) else 0)


def write_inputs(folder: Path) -> None:
    """Faces, films, labels and untrained nets for all commands."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    write_faces(folder / "faces.h5")
    labelled_videos.film(folder / "clip.mp4", labelled_videos.moving_face(30) * 5)
    for number in range(3):
        faces = labelled_videos.moving_face(20, number)
        labelled_videos.film(videos / f"{number}.mp4", faces)
        labelled_videos.write_csv(videos / f"{number}.csv", faces)
    for name, config in NETS.items():
        checkpoint = write_checkpoint(folder / f"{name}.safetensors", config)
        export_to_onnx(checkpoint, folder / f"{name}.onnx")


class Trial:
    """A command under test, and what it writes undisturbed."""

    def __init__(self, command: str, folder: Path, rng: random.Random) -> None:
        self.words, self.rng = command.split(), rng
        self.inputs, self.outputs, self.log = (folder / n for n in ("in", "out", "stderr.txt"))
        shutil.rmtree(self.outputs, ignore_errors=True)
        started = time.monotonic()
        if self.start(self.words).wait(TIMEOUT):
            raise SystemExit(f"{command}: {self.log.read_text(errors='replace')}")
        self.seconds = time.monotonic() - started
        self.expected = dict(results(self.outputs))
        self.largest = max(p.stat().st_size for p in self.outputs.rglob("*") if p.is_file())
        shutil.rmtree(self.outputs)

    def start(
        self, words: list[str], fault: Callable[[], object] | None = None, stdout=subprocess.DEVNULL
    ) -> subprocess.Popen:
        """The process of a command; ``fault`` runs in it first."""
        self.outputs.mkdir(exist_ok=True)
        paths = {"IN/": f"{self.inputs}/", "OUT": str(self.outputs)}
        for short, path in paths.items():
            words = [word.replace(short, path) for word in words]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mlx_faceau", *words],
                cwd=TESTS,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=stdout,
                stderr=log,
                preexec_fn=fault,
            )

    def kills(self, count: int) -> Iterator[list[str]]:
        """Problems after each kill; a run that ends before its kill is compared and not counted."""
        while count:
            words, before = self.words, progress(self.outputs)
            if words[0] == "train" and (self.outputs / "run/checkpoint_last.safetensors").exists():
                words = [*words[:2], "--resume", "OUT/run"]
            process = self.start(words)
            try:
                status = process.wait(self.rng.uniform(0.05, 1.1) * self.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                count -= 1
                problems = list(damage(self.outputs, self.expected))
                if progress(self.outputs) < before:
                    problems.append(f"lost: {before} became {progress(self.outputs)}")
                yield problems
                continue
            problems = [] if status == 0 else [f"other: {self.log.read_text(errors='replace')}"]
            if dict(results(self.outputs)) != self.expected:
                problems.append("different: from an undisturbed run")
            if problems:
                yield problems
            shutil.rmtree(self.outputs)

    def refusals(self) -> Iterator[list[str]]:
        for _ in range(4):  # files end at this size, as on a full disk
            size = round(self.largest * self.rng.uniform(0, 0.95))
            limits = resource.RLIMIT_FSIZE, (size, size)
            yield self.refuse(self.words, lambda limits=limits: resource.setrlimit(*limits))
        yield self.refuse(self.words, lambda: make_read_only(self.outputs))
        for word in dict.fromkeys(w for w in self.words if w.startswith("IN/")):
            missing = self.inputs / word.removeprefix("IN/")
            hidden = missing.rename(missing.with_name("hidden"))
            yield self.refuse(self.words)
            hidden.rename(missing)
        if self.words[0] == "predict":
            words = [word for word in self.words if word != "--report"]
            with Path("/dev/full").open("w") as full:
                yield self.refuse([*words[:-1], "-"], stdout=full)

    def refuse(self, words: list[str], *fault: Callable[[], object], **options) -> list[str]:
        """A command that fails ends with status 2 and one line, and leaves nothing half-written."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        status = self.start(words, *fault, **options).wait(TIMEOUT)
        self.outputs.chmod(0o755)
        text = self.log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.startswith("mlx-faceau: ")]
        problems = list(damage(self.outputs, self.expected))
        if not list(self.outputs.rglob("*.incomplete")):
            problems += [f"other: {path.name} is left" for path in self.outputs.rglob(".*")]
        if status and (status != 2 or len(lines) != 1 or "Traceback" in text):
            problems.append(f"other: status {status}, {text[-900:]!r}")
        shutil.rmtree(self.outputs)
        return problems


def make_read_only(folder: Path) -> None:
    """A folder that may not be written to; root is bound to that without two capabilities."""
    folder.chmod(0o555)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capset's third version, this process
    none = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def visible(folder: Path) -> list[Path]:
    """The files under final names: temporary ones, or folders of such, begin with a dot."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [p for p in paths if not any(n.startswith(".") for n in p.relative_to(folder).parts)]


def results(folder: Path) -> Iterator[tuple[str, str]]:
    """Digests of what an undisturbed command gives anew each time: weights, files, rows, labels."""
    for path in visible(folder):
        if path.parent.name.endswith(".shards"):
            continue  # a step on the way, which the next run continues from
        if path.suffix in (".onnx", ".csv", ".mlmodel", ".bin"):
            parts = [path.read_bytes()]
        elif path.name == "checkpoint_final.safetensors":
            arrays = load_checkpoint(path).arrays
            del arrays["loop.history"]  # it has times
            parts = [arrays[name].tobytes() for name in sorted(arrays)]
        elif path.suffix == ".h5":
            faces = FaceDataset(path)
            labels = faces.labels["landmarks"]
            order = np.lexsort(labels.reshape(len(labels), -1).T)
            images = faces.read_images(np.arange(len(faces)))
            parts = [labels[order].tobytes(), images[order].tobytes()]
        else:
            continue
        yield path.name, hashlib.sha256(b"".join(parts)).hexdigest()


def damage(folder: Path, expected: dict[str, str]) -> Iterator[str]:
    """What is half-written under a final name."""
    for path in visible(folder):
        if path.suffix in READERS and not path.with_name(path.name + ".incomplete").exists():
            try:
                READERS[path.suffix](path)
            except Exception as error:  # whatever a half-written file makes of its reader
                yield f"broken: {path.name}: {error}"
    if not list(folder.rglob("*.incomplete")):
        for name, digest in results(folder):
            if expected[name] != digest and not name.endswith(".h5"):  # grows video by video
                yield f"broken: {name}"


def progress(folder: Path) -> list[int]:
    """How far a training has come, in epochs and batches, or a training file in faces."""
    checkpoint, faces = folder / "run/checkpoint_last.safetensors", folder / "faces.h5"
    if checkpoint.exists():
        at = load_checkpoint(checkpoint).metadata["progress"]
        return [at["epoch"], at["batch"]]
    return [len(FaceDataset(faces))] if faces.exists() else []


if __name__ == "__main__":
    main()
