"""One training file from many videos: several processes, resumable, no video ends the others.

Each video becomes a part, a training file of its own in ``<output>.parts/``, with a report beside
it that is written last. What has a report is done; a later run goes on with the rest and joins the
parts. The finished file carries the reports, so that a run with more videos adds the new ones.
"""

import json
import multiprocessing
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2

from mlx_faceau.errors import DatasetError

from . import schema
from .builder import building, check_target
from .generate import VideoReport
from .hdf5 import FaceDataset
from .parts import Job, Part, Settings, as_report, useful
from .provenance import GENERATION, video_reports
from .transfer import blocks

_POLL = 0.3  # seconds between looks at the frame counter


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
    parts = {job: Part(folder, job, settings) for job in jobs if job.name not in done}
    found = {job: report for job, part in parts.items() if (report := part.report()) is not None}
    waiting = [part for job, part in parts.items() if job not in found]
    processed = _in_processes if workers else _in_turn
    for part, report in processed(waiting, workers, progress):
        found[part.job] = report
    reports = [*done.values(), *(found[job] for job in parts)]
    _join(output, [parts[job] for job in parts if found[job].kept], reports, bool(done))
    shutil.rmtree(folder)
    return [found[job] if job in found else done[job.name] for job in jobs]


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


def _make(part: Part) -> VideoReport:
    return part.make(_count_frame)


def _in_turn(
    parts: Sequence[Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[Part, VideoReport]]:
    """Parts one after another, in this process."""
    frames = 0
    for finished, part in enumerate(parts):
        progress(finished, frames)
        report = part.make(lambda: None)
        frames += report.frames
        yield part, report
    progress(len(parts), frames)


def _in_processes(
    parts: Sequence[Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[Part, VideoReport]]:
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
    parts: Sequence[Part], workers: int, shared: _Shared, tell: Callable[[], None]
) -> Iterator[tuple[Part, VideoReport | None]]:
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


def _outcome(part: Part, future: "Future[VideoReport]") -> VideoReport | None:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return None
    return _failed(part, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _crashed(part: Part) -> VideoReport:
    return _failed(part, "the process that read it crashed; convert the video and try again")


def _failed(part: Part, error: str) -> VideoReport:
    """What went wrong beyond the video's own errors; it is tried again by the next run."""
    part.path.unlink(missing_ok=True)
    return VideoReport(part.job.name, error=error)


def _join(
    output: Path, parts: Sequence[Part], reports: Sequence[VideoReport], continued: bool
) -> None:
    """The file of what was there, if it is continued, and of the new parts, with all reports."""
    if not parts:
        return
    files = [*([output] if continued else []), *(part.path for part in parts)]
    datasets = [FaceDataset(path, keep_outside=True) for path in files]
    without = set() if all(map(schema.has_hog, files)) else {schema.HOG}
    texts = [report.as_json() for report in reports if useful(report)]
    with building(output) as builder:
        for dataset in datasets:
            for block in blocks(dataset, without=without):
                builder.append(block)
            dataset.close()
        builder.note(GENERATION, json.dumps(texts))


def _reports_of(output: Path) -> dict[str, VideoReport]:
    """Reports of the videos in a file that is there already."""
    if not output.exists():
        return {}
    reports = list(map(as_report, video_reports(output)))
    if not reports:
        raise DatasetError(
            f"{output}: exists, and was not made from videos; choose another name and join "
            "them with 'mlx-faceau data merge'"
        )
    return {report.video: report for report in reports}
