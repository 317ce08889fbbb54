"""A part of a training file: the samples of one video or some photographs, and their reports.

The reports are written last: what has them is finished, and need not be made again.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.errors import FaceauError, FunctionError

from .generate import TrainingDataGenerator, VideoReport, writer_arguments
from .quality import Limits

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One video or photograph.

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
    label_model: str | None = None

    def generator(self) -> TrainingDataGenerator:
        """What makes the samples.

        Raises:
            ValueError: if the labeller is unknown, or ``every`` is below 1.
            BackendError: if the labeller cannot run here.
            DatasetError: if the PDM cannot be read.
        """
        return TrainingDataGenerator(
            self.labeller, self.every, self.limits, self.pdm, self.label_model
        )


@cache
def _kept_generator(settings: Settings) -> TrainingDataGenerator:
    """One for all videos of a process: a labeller's models are loaded once."""
    return settings.generator()


class Part:
    """A file of the samples of some jobs, one after the other, and their reports."""

    def __init__(self, folder: Path, jobs: tuple[Job, ...], settings: Settings) -> None:
        self.folder, self.jobs, self.settings = folder, jobs, settings
        paths = "\n".join(str(job.video.resolve()) for job in jobs)
        name = hashlib.sha256(paths.encode()).hexdigest()[:16]
        self.path, self._report_path = folder / f"{name}.h5", folder / f"{name}.json"

    def singles(self) -> list["Part"]:
        """A part for each of the jobs."""
        return [Part(self.folder, (job,), self.settings) for job in self.jobs]

    def _signature(self) -> dict[str, Any]:
        """What the part was made of; it is made anew when this changes."""
        stats = [job.video.stat() for job in self.jobs]
        return {
            **asdict(self.settings),
            "jobs": [(job.name, job.subject) for job in self.jobs],
            "files": [(stat.st_size, stat.st_mtime_ns) for stat in stats],
        }

    def reports(self) -> list[VideoReport] | None:
        """The reports, if the part is finished and still that of the files."""
        try:
            text = json.loads(self._report_path.read_text())
            same = text["made_of"] == json.loads(json.dumps(self._signature()))
        except (OSError, ValueError, KeyError):
            return None
        reports = [as_report(report) for report in text["reports"]] if same else []
        return reports if any(map(useful, reports)) else None

    def make(self, tell: Callable[[], None]) -> list[VideoReport]:
        """Process the jobs. Errors of a file or its labels go into its report.

        Raises:
            DatasetError: if the disk refuses.
        """
        self.path.unlink(missing_ok=True)
        with TrainingDataWriter(self.path, append=False) as writer:
            reports = [self._add(job, writer, tell) for job in self.jobs]
            if len(writer) == 0:
                writer.discard()
        self._keep(reports)
        return reports

    def _add(self, job: Job, writer: TrainingDataWriter, tell: Callable[[], None]) -> VideoReport:
        generator = _kept_generator(self.settings)
        samples = generator.process_video(job.video, lambda _: tell())
        sample, error = self._next(job, samples)
        while sample is not None:
            writer.add_sample(**writer_arguments(sample, job.name, job.subject))
            sample, error = self._next(job, samples)
        return replace(generator.report, video=job.name, error=error)

    def _next(
        self, job: Job, samples: Iterator[dict[str, Any]]
    ) -> tuple[dict[str, Any] | None, str]:
        """The next sample, None at the end; and what ended them, if it was an error.

        What came before an error is good: a video may be damaged at its end.
        """
        try:
            return next(samples, None), ""
        except (FaceauError, OSError, cv2.error) as error:
            if isinstance(error, FunctionError):
                _LOG.info("the traceback of %s", job.video, exc_info=error)
            return None, " ".join(str(error).split()).removeprefix(f"{job.video}: ")

    def _keep(self, reports: Sequence[VideoReport]) -> None:
        """Write the reports: the part is finished."""
        found = [report.as_json() for report in reports]
        text = json.dumps({"made_of": self._signature(), "reports": found})
        with atomic_file(self._report_path) as temporary:
            temporary.write_text(text)


def useful(report: VideoReport) -> bool:
    """Whether the video need not be tried again."""
    return bool(report.kept or not report.error)


def as_report(values: dict[str, Any]) -> VideoReport:
    """A report from what ``VideoReport.as_json`` gave."""
    return VideoReport(**{**values, "dropped": Counter(values["dropped"])})
