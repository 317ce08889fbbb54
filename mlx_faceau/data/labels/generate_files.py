"""One training file from many videos and photographs: several processes, resumable.

Each video, and every 64 photographs, become a shard: a training file in the folder
``<output>.shards`` that also holds the reports of its inputs. Shards are written atomically; a
later run makes those that are missing and merges all of them. The finished file carries the
reports, so that a run with more inputs adds only the new ones.
"""

import hashlib
import itertools
import json
import logging
import multiprocessing
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import cv2

from mlx_faceau.core.file_lock import Lock
from mlx_faceau.data.format import schema
from mlx_faceau.data.format.columns import Block
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import GENERATION, check_same_labels, video_reports
from mlx_faceau.data.format.row_io import check_target, create_file, read_blocks
from mlx_faceau.data.format.sample import batch_of_one, checked_block
from mlx_faceau.errors import DatasetError, FaceauError, FunctionError, UsageError

from .face_labels import is_photograph
from .generate import TrainingDataGenerator, VideoReport, writer_arguments
from .quality import Limits

_LOG = logging.getLogger(__name__)
_SIGNATURE = "metadata/shard_signature"  # what a shard was made of; made anew when this changes
_PHOTOGRAPHS = 64  # in a shard
_POLL = 0.3  # seconds between updates of the progress
_CRASHED = "the process that read it crashed; convert the file and try again"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class InputFile:
    """One video or photograph.

    Args:
        path: its file.
        name: unique among the inputs; what a split keeps together.
        subject: the person's name, or None.
    """

    path: Path
    name: str
    subject: str | None = None


@dataclass(frozen=True)
class GeneratorSettings:
    """What decides an input's samples, see :class:`TrainingDataGenerator`."""

    labeller: str = "auto"
    frame_step: int = 1
    pdm: str | None = None
    limits: Limits = field(default_factory=Limits)
    label_model: str | None = None

    def generator(self) -> TrainingDataGenerator:
        """The generator of these settings.

        Raises:
            UsageError: if the labeller is unknown, or ``frame_step`` is below 1.
            BackendError: if the labeller cannot run here.
            DatasetError: if the PDM cannot be read.
        """
        return TrainingDataGenerator(
            self.labeller, self.frame_step, self.limits, self.pdm, self.label_model
        )


@dataclass(frozen=True)
class Shard:
    """A training file of the samples of some inputs, one after the other, and their reports."""

    path: Path
    inputs: tuple[InputFile, ...]


def generate_file(
    inputs: Sequence[InputFile],
    settings: GeneratorSettings,
    output: Path,
    workers: int = 1,
    progress: Progress = lambda files, frames: None,
) -> list[VideoReport]:
    """Write the samples of all inputs into ``output``; inputs that it holds already are skipped.

    An input that cannot be read or labelled is reported and left out. If the run is interrupted,
    finished shards are kept, and the same call continues.

    Args:
        inputs: the videos and photographs.
        settings: the same for all.
        output: the training file, made or extended.
        workers: processes; 0 reads the inputs in this one, which a broken file may then end.
        progress: called now and then with the number of finished inputs and of frames.

    Returns:
        The reports of all inputs, in their order. If none of them gave a sample, there is no file.

    Raises:
        UsageError: if two inputs have one name, ``workers`` is below 0, or the labeller is unknown.
        BackendError: if the labeller cannot run here.
        DatasetError: if ``output`` cannot be written or extended, another program is writing it, or
            its labels would be mixed.
    """
    repeated = [name for name, count in Counter(file.name for file in inputs).items() if count > 1]
    if repeated or workers < 0:
        raise UsageError(f"{workers} workers (expected >= 0); inputs named twice: {repeated}")
    check_target(output)
    _cached_generator(settings)  # raises what no input can change
    busy = DatasetError(f"{output}: another program is writing it; wait until it is done")
    lock = Lock(Path(f"{output}.lock"), busy)
    try:
        return _generate(inputs, settings, output, workers, progress)
    finally:
        lock.release()


def _generate(
    inputs: Sequence[InputFile],
    settings: GeneratorSettings,
    output: Path,
    workers: int,
    progress: Progress,
) -> list[VideoReport]:
    """:func:`generate_file`, while no other program writes the output."""
    reports = _recorded_reports(output)
    extended = bool(reports)
    folder = output.with_name(output.name + ".shards")
    folder.mkdir(exist_ok=True)
    shards = _plan_shards(folder, [file for file in inputs if file.name not in reports])
    missing: list[Shard] = []
    filled: list[Shard] = []

    def add(shard: Shard, found: Sequence[VideoReport]) -> None:
        reports.update({report.video: report for report in found})
        labels = {name: [each.labels()] for name, each in reports.items() if each.kept}
        check_same_labels(labels, "choose a labeller with --labels")
        if any(report.kept for report in found):
            filled.append(shard)

    for shard in shards:
        if (finished := _finished_reports(shard, settings)) is None:
            missing.append(shard)
        else:
            add(shard, finished)
    process = _process_in_pool if workers else _process_here
    for shard, found in process(missing, settings, workers, progress):
        add(shard, found)
    order = {file.name: number for number, file in enumerate(inputs)}
    filled.sort(key=lambda shard: order[shard.inputs[0].name])
    if filled:
        sources = [*([output] if extended else []), *(shard.path for shard in filled)]
        _merge(output, sources, list(reports.values()))
    shutil.rmtree(folder)
    return [reports[file.name] for file in inputs]


def _recorded_reports(output: Path) -> dict[str, VideoReport]:
    """Reports of the inputs of a training file that exists already, by name."""
    if not output.exists():
        return {}
    reports = list(map(VideoReport.from_json, video_reports(output)))
    if not reports:
        raise DatasetError(
            f"{output}: exists, and was not made from videos; choose another name and join "
            "them with 'mlx-faceau data merge'"
        )
    return {report.video: report for report in reports}


def _plan_shards(folder: Path, inputs: Sequence[InputFile]) -> list[Shard]:
    """A shard for each video, and for every 64 photographs in a row."""
    shards = []
    for photographs, run in itertools.groupby(inputs, lambda file: is_photograph(file.path)):
        members = list(run)
        size = _PHOTOGRAPHS if photographs else 1
        groups = [tuple(members[i : i + size]) for i in range(0, len(members), size)]
        shards += [_shard(folder, group) for group in groups]
    return shards


def _shard(folder: Path, inputs: tuple[InputFile, ...]) -> Shard:
    paths = "\n".join(str(file.path.resolve()) for file in inputs)
    return Shard(folder / f"{hashlib.sha256(paths.encode()).hexdigest()[:16]}.h5", inputs)


def _signature(shard: Shard, settings: GeneratorSettings) -> str:
    # A file that is not there is reported when it is read.
    stats = [file.path.stat() if file.path.exists() else None for file in shard.inputs]
    made_of: dict[str, Any] = {
        **asdict(settings),
        "inputs": [(file.name, file.subject) for file in shard.inputs],
        "files": [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats],
    }
    return json.dumps(made_of)


def _finished_reports(shard: Shard, settings: GeneratorSettings) -> list[VideoReport] | None:
    """The reports of a shard that an earlier run made of the same inputs, None without one."""
    if not shard.path.is_file():
        return None
    with schema.opened(shard.path) as file:
        if file[_SIGNATURE].asstr()[()] != _signature(shard, settings):
            return None
    reports = list(map(VideoReport.from_json, video_reports(shard.path)))
    return reports if any(report.final for report in reports) else None


def make_shard(
    shard: Shard, settings: GeneratorSettings, on_frame: Callable[[], None]
) -> list[VideoReport]:
    """Label the inputs of a shard and write it. Errors of an input go into its report.

    Raises:
        DatasetError: if the disk refuses.
    """
    generator, signature = _cached_generator(settings), _signature(shard, settings)
    reports = []
    with create_file(shard.path, allow_empty=True) as file:
        for source in shard.inputs:
            errors: list[str] = []
            before = file.rows
            for block in _blocks(generator, source, on_frame, errors):
                file.append(block)
            kept, error = file.rows - before, "".join(errors)
            reports.append(replace(generator.report, video=source.name, kept=kept, error=error))
        file.write_text(GENERATION, json.dumps([report.as_json() for report in reports]))
        file.write_text(_SIGNATURE, signature)
    return reports


@cache
def _cached_generator(settings: GeneratorSettings) -> TrainingDataGenerator:
    """One for all shards of a process: a labeller's models are loaded once."""
    return settings.generator()


def _blocks(
    generator: TrainingDataGenerator,
    source: InputFile,
    on_frame: Callable[[], None],
    errors: list[str],
) -> Iterator[Block]:
    """Samples up to the first error, which is appended: a video may be damaged at its end."""
    try:
        for sample in generator.process_video(source.path, lambda _: on_frame()):
            arguments = writer_arguments(sample, source.name, source.subject)
            yield checked_block(batch_of_one(arguments))
    except (FaceauError, OSError, cv2.error) as error:
        if isinstance(error, FunctionError):
            _LOG.info("the traceback of %s", source.path, exc_info=error)
        errors.append(" ".join(str(error).split()).removeprefix(f"{source.path}: "))


def _merge(output: Path, sources: Sequence[Path], reports: Sequence[VideoReport]) -> None:
    exclude = set() if all(map(schema.has_hog, sources)) else {schema.HOG}
    with create_file(output) as file:
        for path in sources:
            dataset = FaceDataset(path, keep_outside=True, quiet=True)
            for block in read_blocks(dataset, exclude=exclude):
                file.append(block)
            dataset.close()
        final = [report.as_json() for report in reports if report.final]
        file.write_text(GENERATION, json.dumps(final))


def _process_here(
    shards: Sequence[Shard], settings: GeneratorSettings, workers: int, progress: Progress
) -> Iterator[tuple[Shard, list[VideoReport]]]:
    """Shards one after another, in this process."""
    files = frames = 0
    for shard in shards:
        progress(files, frames)
        reports = make_shard(shard, settings, lambda: None)
        files += len(reports)
        frames += sum(report.frames for report in reports)
        yield shard, reports
    progress(files, frames)


class _StoppedError(Exception):
    """The run was interrupted; the shard is not written."""


_frames: "Synchronized[int]"  # counted by all processes of a pool
_stop: Event


def _start_worker(frames: "Synchronized[int]", stop: Event) -> None:
    global _frames, _stop
    _frames, _stop = frames, stop
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process sets the event


def _count_frame() -> None:
    if _stop.is_set():
        raise _StoppedError
    with _frames.get_lock():
        _frames.value += 1


def _work(shard: Shard, settings: GeneratorSettings) -> list[VideoReport]:
    return make_shard(shard, settings, _count_frame)


def _process_in_pool(
    shards: Sequence[Shard], settings: GeneratorSettings, workers: int, progress: Progress
) -> Iterator[tuple[Shard, list[VideoReport]]]:
    """Shards in the order in which they are finished.

    A file that crashes its process ends the whole pool: unfinished inputs are then tried again one
    by one, so that it alone is lost.
    """
    context = multiprocessing.get_context("spawn")
    frames, stop = context.Value("q", 0), context.Event()
    files = 0

    def run(shards: Sequence[Shard], workers: int) -> Iterator[tuple[Shard, Any]]:
        """Each shard with its reports, or with the exception that ended it."""
        pool = ProcessPoolExecutor(
            min(workers, len(shards)), context, _start_worker, (frames, stop)
        )
        try:
            futures = {pool.submit(_work, shard, settings): shard for shard in shards}
            while futures:
                for future in wait(futures, _POLL, FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, DatasetError):  # of the disk, not of an input
                        raise error
                    yield futures.pop(future), error or future.result()
                progress(files, frames.value)
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    again = []
    for shard, outcome in run(shards, workers) if shards else ():
        if isinstance(outcome, BaseException):
            _LOG.info("%s: trying its inputs one by one", shard.path.name, exc_info=outcome)
            again += [_shard(shard.path.parent, (file,)) for file in shard.inputs]
        else:
            files += len(outcome)
            yield shard, outcome
    while again:
        crashed = []
        for shard, outcome in run(again, 1):
            if isinstance(outcome, BrokenProcessPool):
                crashed.append(shard)
                continue
            files += 1
            if isinstance(outcome, BaseException):
                outcome = _failure(shard, f"{type(outcome).__name__}: {outcome}")
            yield shard, outcome
        again = [shard for shard in again if shard in crashed]
        if again:  # one process takes them in order: the first of them ended it
            files += 1
            yield again[0], _failure(again.pop(0), _CRASHED)
    progress(files, frames.value)


def _failure(shard: Shard, error: str) -> list[VideoReport]:
    """The report of a single input that no shard was written of; the next run tries it again."""
    return [VideoReport(shard.inputs[0].name, error=" ".join(error.split()))]
