"""One training file from many videos and photographs: several processes, resumable.

Each video, and every 64 photographs, become a shard: a training file in the folder
``<output>.shards`` that also holds the reports of its inputs. Shards are written atomically; a
later run makes those that are missing, or of other inputs or settings, and merges all of them. The
finished file carries the reports, so that a run with more inputs adds only the new ones.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2

from mlx_faceau.core.atomic_io import clear_unfinished
from mlx_faceau.core.file_lock import Lock
from mlx_faceau.data.format.columns import batch_of_one, checked_block
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import GENERATION, check_same_labels, video_reports
from mlx_faceau.data.format.row_io import check_target, copy_files, create_file
from mlx_faceau.data.worker import start_worker
from mlx_faceau.errors import DatasetError, FaceauError, FunctionError, UsageError, counted

from .face_labels import is_photograph
from .generate import TrainingDataGenerator, VideoReport, writer_arguments
from .openface import OpenFaceLabeller, label_time
from .quality import Limits

_LOG = logging.getLogger(__name__)
_PHOTOGRAPHS = 64  # in a shard
_END = 1 << 16  # bytes at each end of a file by which its content is known again
_CRASHED = "the process that read it crashed; convert the file and try again"
_POLL = 0.3  # seconds between updates of the progress

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class InputFile:
    path: Path  # of the video or photograph
    name: str  # unique among the inputs; what a split keeps together
    subject: str | None = None  # the person's name


@dataclass(frozen=True)
class GeneratorSettings:
    """What decides an input's samples: the arguments of :class:`TrainingDataGenerator`."""

    labeller: str = "auto"
    frame_step: int = 1
    pdm: str | None = None
    limits: Limits = field(default_factory=Limits)
    label_model: str | None = None


@dataclass(frozen=True)
class Shard:
    """A training file of the samples of some inputs, one after the other, and their reports."""

    path: Path
    inputs: tuple[InputFile, ...]

    @classmethod
    def of(cls, folder: Path, inputs: Sequence[InputFile], settings: GeneratorSettings) -> "Shard":
        """The shard of some inputs in a folder, named by a hash of all that decides its samples."""
        # A file that is not there is reported when it is read.
        stats = [file.path.stat() if file.path.exists() else None for file in inputs]
        made_of = [
            asdict(settings),
            [(str(file.path.resolve()), file.name, file.subject) for file in inputs],
            [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats],
        ]
        digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
        return cls(folder / f"{digest}.h5", tuple(inputs))


Finished = Iterator[tuple[Shard, list[VideoReport]]]


def generate_file(
    inputs: Sequence[InputFile],
    settings: GeneratorSettings,
    output: Path,
    workers: int = 1,
    progress: Progress = lambda files, frames: None,
) -> list[VideoReport]:
    """Write the samples of all inputs into ``output``; inputs that it holds already are skipped.

    An input that cannot be read or labelled is reported and left out. If the run is interrupted,
    finished shards are kept, and the same call continues. Another file of a name that ``output``
    holds is added under that name and a number. With 0 ``workers`` (processes) the inputs
    are read in this one, which a broken file may then end. ``progress`` is called now and then with
    the number of finished inputs and of frames.

    Returns:
        The reports of all inputs, in their order. If none of them gave a sample, there is no file.

    Raises:
        UsageError: if two inputs have one name, ``workers`` is below 0, or the labeller is unknown.
        BackendError: if the labeller cannot run here.
        DatasetError: if ``output`` cannot be written or extended, another program is writing it, or
            its labels would be mixed.
    """
    if workers < 0:
        raise UsageError(f"{workers} workers, expected at least 0")
    repeated = [name for name, count in Counter(file.name for file in inputs).items() if count > 1]
    if repeated:
        raise UsageError(f"{', '.join(repeated)}: given twice; name each file once")
    check_target(output)
    _generator(settings)  # raises what no input can change
    busy = DatasetError(f"{output}: another program is writing it; wait until it is done")
    lock = Lock(Path(f"{output}.lock"), busy)
    try:
        clear_unfinished(output)
        existing = [output] if output.exists() else []
        reports: dict[str, VideoReport] = {}
        for each in itertools.chain(*map(_read_reports, existing)):
            reports[_unused(each.video, reports)] = each  # a merged file may name two alike
        if existing and not reports:
            raise DatasetError(
                f"{output}: exists, and was not made from videos; choose another name and join "
                "them with 'mlx-faceau data merge'"
            )
        inputs = _renamed(inputs, reports)
        new = [file for file in inputs if file.name not in reports]
        if len(new) < len(inputs):
            _check_subjects(output, inputs)
            _LOG.warning(
                "%s: holds %d of %s already, which are not labelled again, whatever the options",
                *(output, len(inputs) - len(new), counted(len(inputs), "file")),
            )
            if newer := _relabelled(output, inputs, reports.values()):
                _LOG.warning(
                    "%s: labels of %s changed after it was written; move it away if they are new",
                    *(output, ", ".join(newer[:3]) + ", ..." * (len(newer) > 3)),
                )
        folder = output.with_name(output.name + ".shards")
        folder.mkdir(exist_ok=True)
        filled: list[Shard] = []
        # Of each labeller and PDM one report: a check of all of them grows with every input.
        kinds = {_kind(each): each for each in reversed(reports.values()) if each.kept}
        for shard, found in _all_shards(new, folder, settings, workers, progress):
            reports.update({report.video: report for report in found})
            if kept := [report for report in found if report.kept]:
                for each in kept:
                    kinds.setdefault(_kind(each), each)
                labels = {each.video: [vars(each)] for each in kinds.values()}
                check_same_labels(labels, "choose a labeller with --labels")
                filled.append(shard)
        # Shards are finished in any order; samples and reports come in that of the inputs.
        order = {file.name: number for number, file in enumerate(new)}
        filled.sort(key=lambda shard: order[shard.inputs[0].name])
        reports.update({file.name: reports.pop(file.name) for file in new})
        if filled:
            with create_file(output) as file:
                copy_files([*existing, *(shard.path for shard in filled)], file)
                final = [vars(report) for report in reports.values() if report.final]
                file.write_text(GENERATION, json.dumps(final))
        shutil.rmtree(folder)
        return [reports[file.name] for file in inputs]
    finally:
        lock.release()


def _kind(report: VideoReport) -> tuple[str, str]:
    return report.labeller, report.pdm.get("hash", "")


def _renamed(
    inputs: Sequence[InputFile], reports: Mapping[str, VideoReport]
) -> Sequence[InputFile]:
    """The inputs by their names in an output with these reports, or by new ones that it lacks.

    A file is recognised by its path, or by name and content where it was moved: two recordings
    may be called video.mp4. Older reports tell neither; there the name decides.
    """
    if not reports:
        return inputs
    known = {each: name for name, report in reports.items() for each in report.file_hashes}
    used = {*reports, *(file.name for file in inputs)}
    renamed: list[InputFile] = []
    for file in inputs:
        name = next((known[h] for h in _file_hashes(file.path) if h in known), None)
        if name is None and file.name in reports and reports[file.name].file_hashes:
            name = _unused(file.name, used)
            used.add(name)
        renamed.append(replace(file, name=name or file.name))
    return renamed


def _unused(name: str, used: Collection[str]) -> str:
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in used)


def _file_hashes(path: Path) -> list[str]:
    """Hashes of a file's path; and, if it can be read, of its name, its size and both its ends."""
    hashed = [os.fsencode(path.resolve())]
    with contextlib.suppress(OSError), path.open("rb") as file:
        begin, size = file.read(_END), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END))
        hashed.append(b"%s\0%d\0" % (os.fsencode(path.name), size) + begin + file.read())
    return [hashlib.sha256(content).hexdigest()[:16] for content in hashed]


def _read_reports(path: Path) -> list[VideoReport]:
    try:
        return [
            VideoReport(**{**values, "dropped": Counter(values["dropped"])})
            for values in video_reports(path)
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: reports of another version cannot be added to: {error}"
        ) from None


def _relabelled(
    path: Path, inputs: Sequence[InputFile], reports: Iterable[VideoReport]
) -> list[str]:
    """Names of the inputs whose CSV of OpenFace is newer than a file of their samples."""
    written = path.stat().st_mtime
    used = {each.video for each in reports if each.labeller == OpenFaceLabeller.name and each.kept}
    return [each.name for each in inputs if each.name in used and label_time(each.path) > written]


def _check_subjects(path: Path, inputs: Sequence[InputFile]) -> None:
    """Raise DatasetError if a file holds the samples of an input under another subject."""
    given = {file.name: file.subject for file in inputs if file.subject}
    if not given:
        return
    stored = FaceDataset(path, keep_outside=True, quiet=True)
    subjects = itertools.repeat("") if stored.subjects is None else stored.subjects.tolist()
    held: dict[str, set[str]] = {}
    for video, subject in zip(
        [] if stored.videos is None else stored.videos, subjects, strict=False
    ):
        held.setdefault(video, set()).add(subject)
    for name in given.keys() & held.keys():
        if given[name] not in held[name]:
            known = ", ".join(filter(None, sorted(held[name]))) or "no subject"
            raise DatasetError(
                f"{path}: holds {name} under {known}, not {given[name]}; move the file away to "
                "make it anew"
            )


def _all_shards(
    inputs: Sequence[InputFile],
    folder: Path,
    settings: GeneratorSettings,
    workers: int,
    progress: Progress,
) -> Finished:
    """A shard for each video, and for every 64 photographs in a row: first those made before."""
    missing: list[Shard] = []
    for photographs, run in itertools.groupby(inputs, lambda file: is_photograph(file.path)):
        members = list(run)
        size = _PHOTOGRAPHS if photographs else 1
        for start in range(0, len(members), size):
            shard = Shard.of(folder, members[start : start + size], settings)
            reports = _read_reports(shard.path) if shard.path.is_file() else []
            if any(report.final for report in reports) and not _relabelled(
                shard.path, shard.inputs, reports
            ):
                yield shard, reports
            else:
                missing.append(shard)
    if workers:
        yield from _process_in_pool(missing, settings, workers, progress)
        return
    files = frames = 0
    for shard in missing:
        progress(files, frames)
        reports = make_shard(shard, settings, lambda: None)
        files += len(reports)
        frames += sum(report.frames for report in reports)
        yield shard, reports
    progress(files, frames)


@cache
def _generator(settings: GeneratorSettings) -> TrainingDataGenerator:
    """One for all shards of a process: a labeller's models are loaded once."""
    return TrainingDataGenerator(**vars(settings))


def make_shard(
    shard: Shard, settings: GeneratorSettings, on_frame: Callable[[], None]
) -> list[VideoReport]:
    """Label the inputs of a shard and write it. Errors of an input go into its report.

    It raises DatasetError if the disk refuses.
    """
    generator, reports = _generator(settings), []
    with create_file(shard.path, allow_empty=True) as file:
        for source in shard.inputs:
            before, error = file.rows, ""
            samples = generator.process_video(source.path, lambda _: on_frame())
            while True:  # up to the first error: a video may be damaged at its end
                try:
                    if (sample := next(samples, None)) is None:
                        break
                    arguments = writer_arguments(sample, source.name, source.subject)
                    block = checked_block(batch_of_one(arguments))
                except (FaceauError, OSError, cv2.error) as failure:
                    if isinstance(failure, FunctionError):
                        _LOG.info("the traceback of %s", source.path, exc_info=failure)
                    error = " ".join(str(failure).split()).removeprefix(f"{source.path}: ")
                    break
                file.append(block)  # whose errors are the disk's, not the video's
            kept = file.rows - before
            about = replace(generator.report, video=source.name, kept=kept, error=error)
            reports.append(replace(about, file_hashes=_file_hashes(source.path)))
        file.write_text(GENERATION, json.dumps(list(map(vars, reports))))
    return reports


class _StoppedError(Exception):
    """The run was interrupted; the shard is not written."""


_frames: "Synchronized[int]"  # counted by all processes of a pool
_stop: Event


def _start_worker(frames: "Synchronized[int]", stop: Event) -> None:
    global _frames, _stop
    _frames, _stop = frames, stop
    start_worker()  # which leaves Ctrl-C to the main process, and that sets the event


def _work(shard: Shard, settings: GeneratorSettings) -> list[VideoReport]:
    def count_frame() -> None:
        if _stop.is_set():
            raise _StoppedError
        with _frames.get_lock():
            _frames.value += 1

    return make_shard(shard, settings, count_frame)


def _process_in_pool(
    shards: Sequence[Shard], settings: GeneratorSettings, workers: int, progress: Progress
) -> Finished:
    """Shards in the order in which they are finished; each process is a pool of its own.

    So a file that crashes its process is lost alone: of several photographs in a shard, each is
    then tried by itself.
    """
    context = multiprocessing.get_context("spawn")
    frames, stop = context.Value("q", 0), context.Event()

    def new_process() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, _start_worker, (frames, stop))

    files, waiting = 0, deque(shards)
    idle = [new_process() for _ in range(min(workers, len(shards)))]
    running: dict[Future[list[VideoReport]], tuple[Shard, ProcessPoolExecutor]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                shard, process = waiting.popleft(), idle.pop()
                try:
                    future = process.submit(_work, shard, settings)
                except BrokenProcessPool:  # killed since its last shard, as where memory is full
                    process = new_process()
                    future = process.submit(_work, shard, settings)
                running[future] = shard, process
            for future in wait(running, _POLL, FIRST_COMPLETED).done:
                shard, process = running.pop(future)
                error = future.exception()
                crashed = isinstance(error, BrokenProcessPool)
                idle.append(new_process() if crashed else process)
                if isinstance(error, DatasetError):  # of the disk, not of an input
                    raise error
                if error is None:
                    reports = future.result()
                elif len(shard.inputs) > 1:
                    folder = shard.path.parent
                    waiting += [Shard.of(folder, [file], settings) for file in shard.inputs]
                    continue
                else:  # the next run tries it again
                    _LOG.info("%s: not finished", shard.path.name, exc_info=error)
                    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    text = _CRASHED if crashed else text
                    reports = [VideoReport(shard.inputs[0].name, error=text)]
                files += len(shard.inputs)
                yield shard, reports
            progress(files, frames.value)
    except BaseException:
        stop.set()
        raise
    finally:
        for process in (*idle, *(process for _, process in running.values())):
            process.shutdown(cancel_futures=True)
