"""Work that faults.py interrupts: training, exporting, predicting, each small and repeatable.

A job runs in a child process and tells what it has brought to the disk; whatever ended it, `check`
then looks at what is there.
"""

# ruff: noqa: E402
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: processes with threads cannot be forked
sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("", "train", "data")]

from blobs import Blob, BlobAUs, BlobDetector, BlobLandmarks, draw_frame
from lively import write_checkpoint
from tiny_training import write_faces

from mlx_faceau.convert import export_coreml, export_onnx
from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig
from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.output.result_files import Wanted, record
from mlx_faceau.train import checkpoints
from mlx_faceau.train import run as session
from mlx_faceau.train.config import TRAININGS
from mlx_faceau.video.pipeline import FacePipeline

export_coreml.load_coremltools()  # here, where it says nothing about its own parts

Tell = Callable[[Any], None]
WIDTH = 0.0625  # the narrowest nets there are
CONFIGS = {
    "landmark-pose": LandmarkPoseConfig(width_mult=WIDTH),
    "au": AUPredictionConfig(width_mult=WIDTH),
}
FRAMES = 150
_LAST = "checkpoint_last.safetensors"


@dataclass(frozen=True)
class Training:
    """Two epochs that save after every step; told are the epoch and batch of each save."""

    net: str
    folder: Path

    @property
    def name(self) -> str:
        return f"train {self.net}"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def prepare(self) -> None:
        write_faces(self.folder / "faces.h5")

    def work(self, tell: Tell) -> None:
        save = checkpoints.RunFolder.save

        def save_and_tell(folder: Any, arrays: Any, metadata: Any, **copies: Any) -> None:
            save(folder, arrays, metadata, **copies)
            tell([metadata["progress"]["epoch"], metadata["progress"]["batch"]])

        checkpoints.RunFolder.save = save_and_tell
        (training,) = (kind for kind in TRAININGS if kind.model_name == self.net)
        resumed = (self.run / _LAST).exists()
        given = {} if resumed else self._settings()
        session.run_training(training, given, self.run if resumed else None)

    def _settings(self) -> dict[str, Any]:
        return {
            **{"data": (str(self.folder / "faces.h5"),), "output": str(self.run), "epochs": 2},
            **{"batch_size": 4, "width_mult": WIDTH, "val_split": 0.17, "framework": "torch"},
            **{"device": "cpu", "num_workers": 1, "ema": 0.9, "no_export": True},
            "save_minutes": 1e-9,
        }

    def check(self, told: list[Any]) -> Iterator[str]:
        """Every file under a final name is whole; the last save that was told is there."""
        for path in sorted(self.run.glob("[!.]*")):
            yield from damage(path)
        if not told:
            return
        progress = load_checkpoint(self.run / _LAST).metadata["progress"]
        if [progress["epoch"], progress["batch"]] < told[-1]:
            yield f"lost: {told[-1]} was saved, {progress} is there"

    def result(self) -> dict[str, bytes] | None:
        """What an uninterrupted training ends with, too; None before the end."""
        path = self.run / "checkpoint_final.safetensors"
        if not path.exists():
            return None
        arrays = load_checkpoint(path).arrays
        return {n: a.tobytes() for n, a in arrays.items() if n != "loop.history"}  # has times


@dataclass(frozen=True)
class Export:
    """The same export again and again over its last result; told is each one's number."""

    form: str
    folder: Path

    @property
    def name(self) -> str:
        return f"export {self.form}"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def path(self) -> Path:
        return self.run / f"au_prediction.{'onnx' if self.form == 'onnx' else 'mlpackage'}"

    def prepare(self) -> None:
        write_checkpoint(self.folder / "net.safetensors", CONFIGS["au"])

    def work(self, tell: Tell) -> None:
        self.run.mkdir(exist_ok=True)
        for number in range(3):
            if self.form == "onnx":
                export_onnx.export_to_onnx(self.folder / "net.safetensors", self.path)
            else:
                export_coreml.export_to_coreml(self.folder / "net.safetensors", self.path)
            tell(number)

    def check(self, told: list[Any]) -> Iterator[str]:
        if told and not self.path.exists():
            aside = list(self.run.glob(".*/old.mlpackage"))
            yield f"lost: {self.path.name} is {'put aside' if aside else 'gone'}"

    def result(self) -> dict[str, bytes] | None:
        if not self.path.exists():
            return None
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return {
            str(file.relative_to(self.run)): file.read_bytes() for file in files if file.is_file()
        }


@dataclass(frozen=True)
class Prediction:
    """Rows, overlay and report of a video; told is the number of each finished frame."""

    folder: Path
    name: str = "predict"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def table(self) -> Path:
        return self.run / "clip.csv"

    def prepare(self) -> None:
        write_clip(self.folder / "clip.avi")

    def work(self, tell: Tell) -> None:
        self.run.mkdir(exist_ok=True)
        pipeline = FacePipeline(BlobLandmarks(), BlobAUs(), BlobDetector(), detect_every=10)
        wanted = Wanted(
            self.table, overlay=self.run / "clip.mkv", report=self.run / "clip.report.html"
        )
        results = pipeline.video(self.folder / "clip.avi")
        record(results, wanted, "clip", progress=lambda found: tell(found.frame.index))

    def check(self, told: list[Any]) -> Iterator[str]:
        """Rows are whole and as many as were told; what is not complete is marked so."""
        if not self.table.exists():
            if told:
                yield "lost: no table"
            return
        text = self.table.read_text()
        frames = [line.split(",")[0] for line in text.splitlines()[1:]]
        marked = self.table.with_name("clip.csv.incomplete").exists()
        if not marked and len(set(frames)) != FRAMES:
            yield f"broken: {len(set(frames))} frames, not marked as incomplete"
        if text and not text.endswith("\n"):
            yield "broken: the last row is cut"
        # Two people: what was told to be finished has both their rows.
        if told and frames.count(str(told[-1] + 1)) != 2:
            yield f"lost: frame {told[-1] + 1} was written, {len(set(frames))} are there"
        page = self.run / "clip.report.html"
        if page.exists() and not page.read_text("utf-8").rstrip().endswith("</html>"):
            yield "broken: the report is cut"

    def result(self) -> dict[str, bytes] | None:
        """The rows that there are, by number: they never change."""
        if not self.table.exists():
            return None
        lines = self.table.read_bytes().split(b"\n")[:-1]
        return {str(number): line for number, line in enumerate(lines)}


Job = Training | Export | Prediction


def damage(path: Path) -> Iterator[str]:
    """Whether a file of a training is half-written."""
    try:
        if path.suffix == ".safetensors":
            load_checkpoint(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png" and cv2.imread(str(path)) is None:
            yield f"broken: {path.name}"
    except Exception as error:  # whatever a half-written file makes of its reader
        yield f"broken: {path.name}: {error}"


def write_clip(path: Path) -> Path:
    """Two drawn people who move, as Motion JPEG: every frame stands alone."""
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 30.0, (320, 240))
    for number in range(FRAMES):
        shift = 30 * np.sin(number / 20)
        blobs = [Blob(90 + shift, 100, 35), Blob(220 - shift, 130, 40, person=2)]
        writer.write(draw_frame(blobs))
    writer.release()
    return path
