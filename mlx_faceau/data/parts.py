"""The part of a training file that comes from one video: a small file and its report.

The report is written last: what has one is finished, and need not be made again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.errors import FaceauError

from .generate import TrainingDataGenerator, VideoReport, writer_arguments
from .quality import Limits
from .writer import TrainingDataWriter


@dataclass(frozen=True)
class Job:
    """One video.

    Args:
        video: its file.
        name: unique among the videos of a file; what a split keeps together.
        subject: who it is, or None.
    """

    video: Path
    name: str
    subject: str | None = None


@dataclass(frozen=True)
class Settings:
    """What decides a video's samples, see :class:`TrainingDataGenerator`."""

    labeller: str = "auto"
    every: int = 1
    pdm: str | None = None
    limits: Limits = field(default_factory=Limits)

    def generator(self) -> TrainingDataGenerator:
        """What makes the samples.

        Raises:
            ValueError: if the labeller is unknown, or ``every`` is below 1.
            BackendError: if the labeller cannot run here.
            DatasetError: if the PDM cannot be read.
        """
        return TrainingDataGenerator(self.labeller, self.every, self.limits, self.pdm)


@cache
def _kept_generator(settings: Settings) -> TrainingDataGenerator:
    """One for all videos of a process: a labeller's models are loaded once."""
    return settings.generator()


class Part:
    """The file of one video's samples and its report."""

    def __init__(self, folder: Path, job: Job, settings: Settings) -> None:
        self.job, self.settings = job, settings
        name = hashlib.sha256(str(job.video.resolve()).encode()).hexdigest()[:16]
        self.path, self._report_path = folder / f"{name}.h5", folder / f"{name}.json"

    def _signature(self) -> dict[str, Any]:
        """What the part was made of; it is made anew when this changes."""
        stat = self.job.video.stat()
        made_of = {**asdict(self.settings), "name": self.job.name, "subject": self.job.subject}
        return {**made_of, "bytes": stat.st_size, "changed": stat.st_mtime_ns}

    def report(self) -> VideoReport | None:
        """The report, if the part is finished and still that of the video."""
        try:
            text = json.loads(self._report_path.read_text())
            same = text["made_of"] == json.loads(json.dumps(self._signature()))
        except (OSError, ValueError, KeyError):
            return None
        report = as_report(text["report"]) if same else None
        return None if report is None or not useful(report) else report

    def make(self, tell: Callable[[], None]) -> VideoReport:
        """Process the video. Errors of the video or its labels go into the report.

        Raises:
            DatasetError: if the disk refuses.
        """
        self.path.unlink(missing_ok=True)
        generator = _kept_generator(self.settings)
        writer = TrainingDataWriter(self.path, append=False)
        samples = generator.process_video(self.job.video, lambda _: tell())
        sample, error = self._next(samples)
        with writer:
            while sample is not None:
                writer.add_sample(**writer_arguments(sample, self.job.name, self.job.subject))
                sample, error = self._next(samples)
            if len(writer) == 0:
                writer.discard()
        report = generator.report
        report.video, report.error = self.job.name, error
        self._keep(report)
        return report

    def _next(self, samples: Iterator[dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
        """The next sample, None at the end; and what ended them, if it was an error.

        What came before an error is good: a video may be damaged at its end.
        """
        try:
            return next(samples, None), ""
        except (FaceauError, ValueError, OSError, cv2.error) as error:
            return None, " ".join(str(error).split()).removeprefix(f"{self.job.video}: ")

    def _keep(self, report: VideoReport) -> None:
        """Write the report: the part is finished."""
        text = json.dumps({"made_of": self._signature(), "report": report.as_json()})
        with atomic_file(self._report_path) as temporary:
            temporary.write_text(text)


def useful(report: VideoReport) -> bool:
    """Whether the video need not be tried again."""
    return bool(report.kept or not report.error)


def as_report(values: dict[str, Any]) -> VideoReport:
    """A report from what ``VideoReport.as_json`` gave."""
    return VideoReport(**{**values, "dropped": Counter(values["dropped"])})
