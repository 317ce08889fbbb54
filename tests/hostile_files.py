"""Every reader of foreign files, a tiny valid corpus for each, and the rule that a reader keeps.

Whatever the bytes, a reader gives its result or raises one of the errors that it declares: one
line that names the file, within five seconds and bounded memory. Readers that hand bytes to native
parsers run in a process of their own, whose death is counted apart.

The corpus is written here by hand, with as little of each format as its reader takes.
``benchmarks/fuzz.py`` mutates it by the thousand, ``tests/test_hostile_files.py`` a little.
"""

import contextlib
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

# Before a library starts threads of its own: the children of a process with some may hang.
os.environ["OMP_NUM_THREADS"] = "1"

from hostile_corpus import TARGETS, Target

SECONDS = 5.0  # a reader that takes longer hangs
MEMORY = 512 << 20  # bytes that a reader may take for a tiny file
_GRACE = 3.0  # seconds after which a process hangs where Python's alarm does not reach it
_LIMIT = 4 << 30  # bytes of address space beyond which the system refuses

ACCEPTED, REFUSED, DIED = "accepted", "refused", "died"


class Finding(BaseException):
    """A reader broke the rule. No reader's ``except Exception`` may swallow that."""


@dataclass(frozen=True)
class Verdict:
    """What came of one input.

    Args:
        outcome: ``accepted``, ``refused``, or ``died`` for a native parser that took its process
            with it.
        text: the reader's error, or the signal.
    """

    outcome: str
    text: str = ""


def warm_up(target: Target, folder: Path) -> None:
    """Load what the reader loads on first use, so that no input is charged with it.

    Its first seed is sound, so a native parser may read it here too.
    """
    for module in target.modules:
        import_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(*target.errors):
        target.read(folder, target.seeds()[0])
    shutil.rmtree(folder)


def judge(target: Target, folder: Path, data: bytes) -> Verdict:
    """Let a reader read one input.

    Args:
        target: the reader.
        folder: an empty folder of its own, emptied again afterwards.
        data: the input.

    Raises:
        Finding: if the reader breaks the rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return (_in_child if target.native else _here)(target, folder, data)
    finally:
        shutil.rmtree(folder)


def _here(target: Target, folder: Path, data: bytes) -> Verdict:
    started = time.monotonic()
    try:
        target.read(folder, data)
        verdict = Verdict(ACCEPTED)
    except Exception as error:
        if type(error) not in target.errors:
            raise Finding(f"{type(error).__module__}.{type(error).__name__}: {error}") from error
        text = str(error)
        if not text.strip() or len(text.splitlines()) != 1:
            raise Finding(f"no error of one line: {text!r}") from error
        if target.names_file and str(folder) not in text:
            raise Finding(f"the error does not name the file: {text}") from error
        verdict = Verdict(REFUSED, text)
    if time.monotonic() - started > SECONDS:
        raise Finding(f"it took {time.monotonic() - started:.1f} s")
    return verdict


def _in_child(target: Target, folder: Path, data: bytes) -> Verdict:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(target, folder, data, writer)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], SECONDS + _GRACE)
    answer = os.read(reader, 1 << 16).decode() if ready else ""
    os.close(reader)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return _verdict_of_child(answer, bool(ready), status, usage.ru_maxrss)


def _answer(target: Target, folder: Path, data: bytes, writer: int) -> None:
    """The child: read, tell what came of it, and end without any clearing up."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _LIMIT, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        verdict = _here(target, folder, data)
        text = f"{verdict.outcome} {verdict.text}"
    except Finding as finding:
        text = f"finding {finding}"
    os.write(writer, text.encode("utf-8", "backslashreplace")[: 1 << 15])
    os._exit(0)


def _too_late(*_: object) -> None:
    """Python gets here between two of its own steps: it is our code that goes on and on."""
    raise Finding(f"it took more than {SECONDS:g} s")


def _verdict_of_child(answer: str, ready: bool, status: int, peak_kib: int) -> Verdict:
    if not ready:
        return Verdict(DIED, "hung in native code")
    grown = peak_kib * 1024 - _resident()
    if grown > MEMORY:
        raise Finding(f"it took {grown >> 20} MiB")
    if os.WIFSIGNALED(status):
        return Verdict(DIED, signal.Signals(os.WTERMSIG(status)).name)
    outcome, _, text = answer.partition(" ")
    if outcome == "finding":
        raise Finding(text)
    if not outcome:
        return Verdict(DIED, f"exit status {os.WEXITSTATUS(status)}")
    return Verdict(outcome, text)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# --- mutation without a fuzzing library: seeded, the same in every run


_NUMBERS = (b"-1", b"0", b"nan", b"inf", b"1e309", b"9" * 25, b"9" * 5000, b"4294967297", b"null")
_BYTES = (b"\0", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"../", b"[" * 20000, b'"', b"\r", b"{}", b" ")


def mutations(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """So many changed inputs of a target's corpus, in a fixed order."""
    rng = random.Random(f"{target.name} {seed}")
    seeds = target.seeds()
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 8))):
            rng.choice(_MUTATORS)(data, rng)
        yield bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 4, 8, len(data)))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = data[start : start + rng.choice((1, 8, 64))] * rng.choice((1, 3, 50))


def _insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice(_BYTES)


def _change_number(data: bytearray, rng: random.Random) -> None:
    """Put another number where the text has digits."""
    digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    if digits:
        start = end = rng.choice(digits)
        while end < len(data) and 48 <= data[end] < 58:
            end += 1
        data[start:end] = rng.choice(_NUMBERS)


def _change_size(data: bytearray, rng: random.Random) -> None:
    """Put another whole number of 4 or 8 bytes anywhere."""
    width = rng.choice((4, 8))
    if len(data) >= width:
        start = rng.randrange(len(data) - width + 1)
        value = rng.choice((0, 1, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40))
        data[start : start + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


_MUTATORS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _replace, _cut, _repeat, _insert, _change_number, _change_size,
)  # fmt: skip


def main() -> None:
    """``hostile_files.py FOLDER COUNT SEED TARGET...``: a line each with the counts.

    A finding is a line of its own; its input is kept in the folder.
    """
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for name in sys.argv[4:]:
        target = TARGETS[name]
        warm_up(target, folder / "in")
        tally = dict.fromkeys((ACCEPTED, REFUSED, DIED), 0)
        for number, data in enumerate(mutations(target, count, seed)):
            try:
                tally[judge(target, folder / "in", data).outcome] += 1
            except Finding as finding:
                place = folder / f"{name}-{seed}-{number}".replace(" ", "-")
                place.write_bytes(data)
                print(f"finding in {place.name}: {str(finding)[:300]}")
        print(f"{name}: {', '.join(f'{n} {outcome}' for outcome, n in tally.items())}", flush=True)


if __name__ == "__main__":
    main()
