"""What does a fault cost?  python benchmarks/faults.py

Kills (SIGKILL at random moments of training, writing, exporting and predicting, again and again on
what the last one left) and refusals (full disks, read-only folders, injected errors, vanished and
locked files, too little memory, clocks that jump).

    faults.csv   by case: faults, what was lost beyond the last step or row, half-written files
                 under final names, results that differ from an undisturbed run's, other problems

Linux alone. The exit status is 1 if there was any damage.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_cases import refusals
from fault_child import KILLED, Moment, in_child, load, run_child
from fault_jobs import Export, Job, Prediction, Training
from timing import RESULTS, write_csv

SHARES = {"train landmark-pose": 40, "train au": 40, "export onnx": 30, "export coreml": 10}
SHARES |= {"predict": 40, "write": 60}  # of 220 kills


def main() -> None:
    parser = argparse.ArgumentParser(description="kills and refused writes, and what they cost")
    parser.add_argument("--kills", type=int, default=220)
    parser.add_argument("--rounds", type=int, default=4, help="of random file size limits")
    parser.add_argument("--only", nargs="*", help="cases whose names begin so")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of faults.csv")
    args = parser.parse_args()
    rng, rows = random.Random(args.seed), []
    # In memory where there is such a disk: what is killed is the process, not the machine.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        for job in jobs(Path(folder)):
            count = round(args.kills * SHARES[job.name] / sum(SHARES.values()))
            if chosen(args, job.name):
                rows.append(shown(kills(job, count, rng)))
        if chosen(args, "write"):
            rows.append(shown(writer_kills(Path(folder), args)))
        for name, tally, seconds in refusals(Path(folder), args.rounds, rng, args.only):
            rows.append(shown(row_of("refusal", name, tally.faults, tally.problems, seconds)))
    write_csv(args.output / "faults.csv", rows, key="case")
    totals = {key: sum(row[key] for row in rows) for key in DAMAGE}
    faults = {kind: sum(r["faults"] for r in rows if r["kind"] == kind) for kind in KINDS}
    print(f"{faults}: {totals}")
    sys.exit(1 if any(totals.values()) else 0)


KINDS = ("kill", "refusal")
MEMORY = Path("/dev/shm")
DAMAGE = ("lost", "broken", "different", "other")


def chosen(args: argparse.Namespace, name: str) -> bool:
    return args.only is None or any(name.startswith(start) for start in args.only)


def shown(row: dict) -> dict:
    print(row, flush=True)
    return row


def jobs(folder: Path) -> list[Job]:
    found: list[Job] = []
    for number, make in enumerate(
        (
            lambda place: Training("landmark-pose", place),
            lambda place: Training("au", place),
            lambda place: Export("onnx", place),
            lambda place: Export("coreml", place),
            Prediction,
        )
    ):
        (folder / str(number)).mkdir()
        found.append(make(folder / str(number)))
    return found


def kills(job: Job, count: int, rng: random.Random) -> dict:
    """Kill a job so many times while it works, each time going on with what is left."""
    in_child(job.prepare)
    load_what_it_loads(job)
    started = time.monotonic()
    told, error = run_child(job.work)
    if error:
        raise RuntimeError(error)
    pause, steps = (time.monotonic() - started) / len(told), len(told)
    expected = job.result() or {}
    clear(job.run)
    problems: list[str] = []
    killed = 0
    started = time.monotonic()
    for _ in range(3 * count):
        moment = Moment(rng.randrange(steps), rng.uniform(0, 1.5 * pause))
        told, error = run_child(job.work, moment)
        killed += error == KILLED
        problems += [f"other: {error}"] if error not in (KILLED, "") else []
        problems += job.check(told)
        result = job.result() or {}
        if not result.items() <= expected.items():
            problems.append("different: from an undisturbed run")
        if error == "" or (isinstance(job, Training) and result):
            clear(job.run)
        if killed == count:
            break
    return row_of("kill", job.name, killed, problems, time.monotonic() - started)


def writer_kills(folder: Path, args: argparse.Namespace) -> dict:
    """The data writer's, by the harness of its own tests."""
    from killing import run_kills

    count = round(args.kills * SHARES["write"] / sum(SHARES.values()))
    started = time.monotonic()
    found = run_kills(folder / "killed.h5", count, args.seed, longest=1.0)
    problems = [f"lost: {kill['lost']} samples" for kill in found if kill["lost"]]
    problems += [f"different: {kill['wrong']} samples" for kill in found if kill["wrong"]]
    return row_of("kill", "write", len(found), problems, time.monotonic() - started)


def row_of(kind: str, case: str, faults: int, problems: list[str], seconds: float) -> dict:
    counts = {key: sum(p.startswith(key) for p in problems) for key in DAMAGE}
    for problem in problems[:5]:
        print(f"{case}: {problem}", flush=True)
    return {
        "kind": kind,
        "case": case,
        "faults": faults,
        **counts,
        "seconds": round(seconds, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def load_what_it_loads(job: Job) -> None:
    """Import here what the work imports late, so that the children need not, each for itself."""

    def work(tell: Callable[[Any], None]) -> None:
        job.work(lambda _: None)
        tell(sorted(sys.modules))

    (names,), _ = run_child(work)
    clear(job.run)
    load(names)


if __name__ == "__main__":
    main()
