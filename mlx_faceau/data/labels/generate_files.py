"""One training file from many videos and photographs: several processes, resumable.

Each video, and every 64 photographs, become a part, a training file of its own in
``<output>.parts/``, with reports beside it that are written last. What has reports is done; a later
run goes on with the rest and joins the parts. The finished file carries the reports, so that a run
with more files adds the new ones.
"""

import itertools
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

from mlx_faceau.data.format import schema
from mlx_faceau.data.format.copying import blocks
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import GENERATION, check_same_labels, video_reports
from mlx_faceau.data.format.rewriting import building, check_target
from mlx_faceau.errors import DatasetError, UsageError

from .generate import VideoReport
from .labeller import is_photograph
from .shards import Job, Part, Settings, as_report, useful

_POLL = 0.3  # seconds between looks at the frame counter
_PHOTOGRAPHS = 64  # in a part


def harvest(
    jobs: Sequence[Job],
    settings: Settings,
    output: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda videos, frames: None,
) -> list[VideoReport]:
    """Write the samples of all files into ``output``; files that are in it already are passed by.

    A file that cannot be read or labelled is reported and left out. If the run is interrupted,
    finished parts are kept and the same call goes on.

    Args:
        jobs: the videos and photographs.
        settings: the same for all.
        output: the training file, made or added to.
        workers: processes; 0 reads the videos in this one, which a broken file may then end.
        progress: told the number of finished files and of frames every now and then.

    Returns:
        The reports of all jobs, in their order. If none of them gave a sample, there is no file.

    Raises:
        ValueError: if two videos have one name, ``workers`` is below 0, or the labeller unknown.
        BackendError: if the labeller cannot run here.
        DatasetError: if ``output`` cannot be written or added to, or labels would be mixed in it.
    """
    repeated = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    if repeated or workers < 0:
        raise UsageError(f"{workers} workers (expected >= 0); videos named twice: {repeated}")
    check_target(output)
    settings.generator()  # raises what no video can change
    done = _reports_of(output)
    folder = output.with_name(output.name + ".parts")
    folder.mkdir(exist_ok=True)
    parts = _parts(folder, [job for job in jobs if job.name not in done], settings)
    found = {part: reports for part in parts if (reports := part.reports()) is not None}
    processed = _in_processes if workers else _in_turn
    for part, reports in processed([p for p in parts if p not in found], workers, progress):
        found[part] = reports
        _reports_alike(done, found)
    by_name = _reports_alike(done, found)
    order = {job: number for number, job in enumerate(jobs)}
    filled = [part for part in found if any(each.kept for each in found[part])]
    filled.sort(key=lambda part: order[part.jobs[0]])
    _join(output, filled, list(by_name.values()), bool(done))
    shutil.rmtree(folder)
    return [by_name[job.name] for job in jobs]


def _reports_alike(
    done: dict[str, VideoReport], found: dict[Part, list[VideoReport]]
) -> dict[str, VideoReport]:
    """All reports by the names of their files, whose labels must agree."""
    reports = {each.video: each for each in itertools.chain(done.values(), *found.values())}
    labels = {name: [each.labels()] for name, each in reports.items() if each.kept}
    check_same_labels(labels, "choose a labeller with --labels")
    return reports


def _parts(folder: Path, jobs: Sequence[Job], settings: Settings) -> list[Part]:
    """A part for each video, and for so many photographs in a row."""
    groups: list[tuple[Job, ...]] = []
    for photographs, run in itertools.groupby(jobs, lambda job: is_photograph(job.video)):
        members = list(run)
        size = _PHOTOGRAPHS if photographs else 1
        groups += [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    return [Part(folder, group, settings) for group in groups]


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


def _make(part: Part) -> list[VideoReport]:
    return part.make(_count_frame)


def _in_turn(
    parts: Sequence[Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[Part, list[VideoReport]]]:
    """Parts one after another, in this process."""
    finished = frames = 0
    for part in parts:
        progress(finished, frames)
        reports = part.make(lambda: None)
        finished += len(reports)
        frames += sum(report.frames for report in reports)
        yield part, reports
    progress(finished, frames)


def _in_processes(
    parts: Sequence[Part], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[Part, list[VideoReport]]]:
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
    for part, reports in _in_pool(parts, workers, shared, tell):
        if reports is None:
            suspects += part.singles()
            continue
        finished += len(reports)
        yield part, reports
    for part in suspects:
        for _, reports in _in_pool([part], 1, shared, tell):
            finished += 1
            yield part, reports or _crashed(part)
    tell()


def _in_pool(
    parts: Sequence[Part], workers: int, shared: _Shared, tell: Callable[[], None]
) -> Iterator[tuple[Part, list[VideoReport] | None]]:
    """Parts as they are finished; None for those whose process died, or of several files."""
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


def _outcome(part: Part, future: "Future[list[VideoReport]]") -> list[VideoReport] | None:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool) or len(part.jobs) > 1:
        return None
    return _failed(part, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _crashed(part: Part) -> list[VideoReport]:
    return _failed(part, "the process that read it crashed; convert the video and try again")


def _failed(part: Part, error: str) -> list[VideoReport]:
    """What went wrong beyond the file's own errors; it is tried again by the next run."""
    part.path.unlink(missing_ok=True)
    return [VideoReport(job.name, error=error) for job in part.jobs]


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
    """Reports of the files in a training file that is there already."""
    if not output.exists():
        return {}
    reports = list(map(as_report, video_reports(output)))
    if not reports:
        raise DatasetError(
            f"{output}: exists, and was not made from videos; choose another name and join "
            "them with 'mlx-faceau data merge'"
        )
    return {report.video: report for report in reports}
