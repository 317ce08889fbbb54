"""Does any file break a reader?  python benchmarks/fuzz.py   (pip install -e ".[fuzz]")

Every reader of foreign files gets thousands of inputs made of a tiny corpus; see
tests/hostile_files.py for the readers and the rule. Those of our own parsers come from libFuzzer
(atheris), led by which of our lines they reach. Where a native parser reads the bytes there is
nothing to be led by: seeded random changes of the corpus, each in a process of its own, whose death
is counted as the parser's.

    fuzz.csv   by reader: inputs, accepted, refused, deaths of native parsers, findings, times

A finding breaks the rule: another exception, a text of several lines, more than five seconds, more
than 512 MiB. Its input is kept in --folder and named; the exit status is 1 then.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import RESULTS, write_csv

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

COUNTERS = ("accepted", "refused", "died", "findings", "slowest_ms")
NATIVE_SHARE = 0.5  # of a pure reader's inputs: each needs a process
_HANG = 20  # seconds after which libFuzzer ends the process; the rule's five are counted within
_MEMORY = 4096  # MiB, likewise
_MAX_LENGTH = 150_000  # bytes of an input
_RESTARTS = 20  # of one reader, after it ended its process

# Modules whose reached lines lead the search, beside those that a reader names itself.
_LED_BY = (
    "core.checkpoint", "core.artifact_metadata", "output.openface_csv", "core.pdm",
    "output.recorded_accuracy", "train.config", "train.class_balance", "video.image_size",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="mutated inputs for every reader of files")
    parser.add_argument("--runs", type=int, default=2200, help="inputs of each pure reader")
    parser.add_argument("--targets", nargs="*", help="readers (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where inputs of findings stay")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of fuzz.csv")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.runs, args.seed, args.folder)
        return
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    rows = [fuzz(name, args, folder) for name in args.targets or known_targets()]
    write_csv(args.output / "fuzz.csv", rows, key="target")
    totals = {name: sum(row[name] for row in rows) for name in ("inputs", *COUNTERS[:4])}
    print(f"{totals}; inputs of findings in {folder}")
    sys.exit(1 if totals["findings"] else 0)


def known_targets() -> list[str]:
    from hostile_corpus import TARGETS

    return list(TARGETS)


def fuzz(name: str, args: argparse.Namespace, folder: Path) -> dict:
    """Run one reader's process until it has seen all its inputs."""
    from hostile_corpus import TARGETS

    target = TARGETS[name]
    runs = round(args.runs * (NATIVE_SHARE if target.native else 1))
    place = folder / name.replace(" ", "-").replace("'", "")
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (place / "corpus" / f"seed{number}").write_bytes(data)
    counters = np.memmap(place / "counters", np.int64, "w+", shape=len(COUNTERS))
    started, ended = time.monotonic(), 0
    for restart in range(_RESTARTS):
        left = runs - int(counters[:4].sum()) - ended
        if left <= 0:
            break
        command = [sys.executable, __file__, "--worker", name, "--runs", str(left)]
        command += ["--seed", str(args.seed + restart), "--folder", str(place)]
        with (place / "log.txt").open("ab") as log:
            status = subprocess.run(command, stdout=log, stderr=log).returncode
        if status:
            ended += 1
            print(f"{name}: its process ended with {status}, see {place / 'log.txt'}", flush=True)
    counts = dict(zip(COUNTERS, counters.tolist(), strict=True))
    counts["findings"] += ended
    row = {
        "target": name,
        "native": target.native,
        "inputs": sum(counts[key] for key in COUNTERS[:4]),
        **counts,
        "seconds": round(time.monotonic() - started, 1),
        "load": round(os.getloadavg()[0], 1),
    }
    print(row, flush=True)
    return row


def work(name: str, runs: int, seed: int, folder: Path) -> None:
    """All inputs of one reader, in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["mlx_faceau"]):
        from hostile_corpus import TARGETS
        from hostile_files import ACCEPTED, DIED, REFUSED, Finding, judge, mutations, warm_up

        target = TARGETS[name]
        for module in (*(f"mlx_faceau.{name}" for name in _LED_BY), *target.modules):
            importlib.import_module(module)
    warm_up(target, folder / "in")
    counters = np.memmap(folder / "counters", np.int64, "r+")
    outcomes = {ACCEPTED: 0, REFUSED: 1, DIED: 2}

    def read(data: bytes) -> None:
        started = time.monotonic()
        try:
            verdict = judge(target, folder / "in", data)
            counters[outcomes[verdict.outcome]] += 1
            if verdict.outcome == DIED:
                keep(folder, "died", data, verdict.text)
        except Finding as finding:
            counters[3] += 1
            keep(folder, "finding", data, str(finding))
        counters[4] = max(counters[4], round(1000 * (time.monotonic() - started)))

    if target.native:
        for data in mutations(target, runs, seed):
            read(data)
        return
    options = {
        "runs": runs, "seed": seed, "timeout": _HANG, "rss_limit_mb": _MEMORY,
        "max_len": _MAX_LENGTH, "artifact_prefix": f"{folder}/", "verbosity": 0,
    }  # fmt: skip
    flags = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(folder / "corpus")], read)
    atheris.Fuzz()


def keep(folder: Path, kind: str, data: bytes, text: str) -> None:
    """An input worth a look, and why."""
    number = len(list(folder.glob(f"{kind}-*.bin")))
    (folder / f"{kind}-{number}.bin").write_bytes(data)
    with (folder / f"{kind}.txt").open("a") as file:
        file.write(f"{kind}-{number}.bin: {text}\n")


if __name__ == "__main__":
    main()
