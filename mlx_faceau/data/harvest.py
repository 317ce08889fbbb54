"""One training file from many videos: several processes, resumable, no video ends the others.

Each video becomes a part, a training file of its own in ``<output>.parts/``, with a report beside
it that is written last. What has a report is done; a later run goes on with the rest and joins the
parts. The finished file carries the reports, so that a run with more videos adds the new ones.
"""

import hashlib
import json
import multiprocessing
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.checkpoint import atomic_file
from mlx_faceau.errors import DatasetError, FaceauError

from . import schema
from .builder import building, check_target
from .generate import TrainingDataGenerator, VideoReport, writer_arguments
from .hdf5 import FaceDataset
from .provenance import GENERATION
from .quality import Limits
from .transfer import blocks
from .writer import TrainingDataWriter

_POLL = 0.3  # seconds between looks at the frame counter
_HOG = "hog_features"


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
        return TrainingDataGenerator(self.labeller, self.every, self.limits, self.pdm)


def harvest(
    jobs: Sequence[Job],
    settings: Settings,
    output: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda videos, frames: None,
) -> list[VideoReport]:
    """Write the samples of all videos into ``output``; videos that are in it already are passed by.

    A video that cannot be read or labelled is reported and left out. If the run is interrupted,
    finished videos are kept and the same call goes on.

    Args:
        jobs: the videos.
        settings: the same for all.
        output: the training file, made or added to.
        workers: processes; 0 reads the videos in this one, which a broken file may then end.
        progress: told the number of finished videos and of frames every now and then.

    Returns:
        The reports of all jobs, in their order. If none of them gave a sample, there is no file.

    Raises:
        ValueError: if two videos have one name, ``workers`` is below 0, or the labeller unknown.
        BackendError: if the labeller cannot run here.
        DatasetError: if ``output`` cannot be written or added to.
    """
    repeated = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    if repeated or workers < 0:
        raise ValueError(f"{workers} workers (expected >= 0); videos named twice: {repeated}")
    check_target(output)
    settings.generator()  # raises what no video can change
    done = _reports_of(output)
    folder = output.with_name(output.name + ".parts")
    folder.mkdir(exist_ok=True)
    parts = {job: _Part(folder, job, settings) for job in jobs if job.name not in done}
    found = {job: report for job, part in parts.items() if (report := part.report()) is not None}
    waiting = [part for job, part in parts.items() if job not in found]
    processed = _in_processes if workers else _in_turn
    for part, report in processed(waiting, workers, progress):
        found[part.job] = report
    reports = [*done.values(), *(found[job] for job in parts)]
    _join(output, [parts[job] for job in parts if found[job].kept], reports, bool(done))
    shutil.rmtree(folder)
    return [found[job] if job in found else done[job.name] for job in jobs]


class _Part:
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
        report = _as_report(text["report"]) if same else None
        return None if report is None or not _useful(report) else report

    def make(self, tell: Callable[[], None]) -> VideoReport:
        """Process the video. Errors of the video or its labels go into the report."""
        self.path.unlink(missing_ok=True)
        generator = self.settings.generator()
        writer = TrainingDataWriter(self.path, append=False)
        error = ""
        try:
            for sample in generator.process_video(self.job.video, lambda _: tell()):
                writer.add_sample(**writer_arguments(sample, self.job.name, self.job.subject))
        except (FaceauError, ValueError, OSError, cv2.error) as problem:
            error = " ".join(str(problem).split()).removeprefix(f"{self.job.video}: ")
        finally:
            # What came before an error is good: a video may be damaged at its end.
            writer.close() if len(writer) else writer.discard()
        report = generator.report
        report.video, report.error = self.job.name, error
        self.keep(report)
        return report

    def keep(self, report: VideoReport) -> None:
        """Write the report: the part is finished."""
        text = json.dumps({"made_of": self._signature(), "report": report.as_json()})
        with atomic_file(self._report_path) as temporary:
            temporary.write_text(text)


@dataclass
class _Shared:
    """What the run and its processes share: frames counted so far, and whether to stop."""

    frames: "Synchronized[int]"
    stop: Event


class _StoppedError(Exception):
    """The run was interrupted; the part has no report and will be made anew."""


_shared: _Shared | None = None  # in a process of the pool


def _start(shared: _Shared) -> None:
    global _shared
    _shared = shared
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run hears it and says stop


def _count_frame() -> None:
    if _shared is None:
        return
    if _shared.stop.is_set():
        raise _StoppedError
    with _shared.frames.get_lock():
        _shared.frames.value += 1


def _make(part: _Part) -> VideoReport:
    return part.make(_count_frame)


def _in_turn(
    parts: Sequence[_Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[_Part, VideoReport]]:
    """Parts one after another, in this process."""
    frames = 0
    for finished, part in enumerate(parts):
        progress(finished, frames)
        report = part.make(lambda: None)
        frames += report.frames
        yield part, report
    progress(len(parts), frames)


def _in_processes(
    parts: Sequence[_Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[_Part, VideoReport]]:
    """Parts in the order they are finished.

    A file that kills its process takes the others' processes with it: all of them are tried again,
    each by itself, so that it alone is lost.
    """
    context = multiprocessing.get_context("spawn")
    shared = _Shared(context.Value("q", 0), context.Event())
    finished = 0

    def tell() -> None:
        progress(finished, shared.frames.value)

    suspects = []
    for part, report in _in_pool(parts, workers, shared, tell):
        if report is None:
            suspects.append(part)
            continue
        finished += 1
        yield part, report
    for part in suspects:
        for _, report in _in_pool([part], 1, shared, tell):
            finished += 1
            yield part, report or _crashed(part)
    tell()


def _in_pool(
    parts: Sequence[_Part], workers: int, shared: _Shared, tell: Callable[[], None]
) -> Iterator[tuple[_Part, VideoReport | None]]:
    """Parts as they are finished; None for those whose process died."""
    if not parts:
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(parts)), context, _start, (shared,))
    try:
        running = {pool.submit(_make, part): part for part in parts}
        while running:
            for future in wait(running, _POLL, FIRST_COMPLETED).done:
                part = running.pop(future)
                yield part, _outcome(part, future)
            tell()
    except BaseException:
        shared.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(part: _Part, future: "Future[VideoReport]") -> VideoReport | None:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return None
    return _failed(part, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _crashed(part: _Part) -> VideoReport:
    return _failed(part, "the process that read it crashed; convert the video and try again")


def _failed(part: _Part, error: str) -> VideoReport:
    """What went wrong beyond the video's own errors; it is tried again by the next run."""
    part.path.unlink(missing_ok=True)
    return VideoReport(part.job.name, error=error)


def _join(
    output: Path, parts: Sequence[_Part], reports: Sequence[VideoReport], continued: bool
) -> None:
    """The file of what was there, if it is continued, and of the new parts, with all reports."""
    if not parts:
        return
    files = [*([output] if continued else []), *(part.path for part in parts)]
    datasets = [FaceDataset(path, keep_outside=True) for path in files]
    without = set() if all(map(_has_hog, files)) else {_HOG}
    texts = [report.as_json() for report in reports if _useful(report)]
    with building(output) as builder:
        for dataset in datasets:
            for block in blocks(dataset, without=without):
                builder.append(block)
            dataset.close()
        builder.note(GENERATION, json.dumps(texts))


def _has_hog(path: Path) -> bool:
    with schema.opened(path) as file:
        return _HOG in file


def _reports_of(output: Path) -> dict[str, VideoReport]:
    """Reports of the videos in a file that is there already."""
    if not output.exists():
        return {}
    with schema.opened(output) as file:
        if GENERATION not in file:
            raise DatasetError(
                f"{output}: exists, and was not made from videos; choose another name and join "
                "them with 'mlx-faceau data merge'"
            )
        reports = map(_as_report, json.loads(file[GENERATION].asstr()[()]))
        return {report.video: report for report in reports}


def _useful(report: VideoReport) -> bool:
    """Whether the video need not be tried again."""
    return bool(report.kept or not report.error)


def _as_report(values: dict[str, Any]) -> VideoReport:
    return VideoReport(**{**values, "dropped": Counter(values["dropped"])})
