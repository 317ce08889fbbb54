"""Does any file break a reader?  python benchmarks/fuzz.py

Every reader of foreign files gets seeded random changes of a tiny corpus; tests/hostile_files.py
has the readers and the rule. Where a native parser reads the bytes, each input has a process of its
own, whose death is counted as the parser's.

    fuzz.csv   by reader: inputs accepted, refused, deaths of native parsers, findings

A finding breaks the rule: another exception, a message of several lines, more than five seconds,
more than 512 MiB. Its input is kept in --folder and named; the exit status is 1 then.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import RESULTS, Row, write_csv

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from hostile_corpus import TARGETS  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1200, help="inputs of each reader")
    parser.add_argument("--targets", nargs="*", default=[*TARGETS], choices=[*TARGETS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where inputs of findings are kept")
    parser.add_argument("--output", type=Path, default=RESULTS / "fuzz.csv")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    rows = [fuzz(name, args.runs, args.seed, folder) for name in args.targets]
    write_csv(args.output, rows)
    print(f"inputs of findings are in {folder}")
    sys.exit(1 if any(row["findings"] for row in rows) else 0)


def fuzz(name: str, runs: int, seed: int, folder: Path) -> Row:
    """One reader's inputs, in a process of its own, which is a finding if it ends early."""
    started = time.monotonic()
    command = [sys.executable, TESTS / "hostile_files.py", folder, str(runs), str(seed), name]
    found = subprocess.run(command, capture_output=True, text=True)
    findings = [line for line in found.stdout.splitlines() if line.startswith("finding in ")]
    counts = re.findall(r"(\d+) (accepted|refused|died)", found.stdout.rpartition(": ")[2])
    if not counts:
        findings.append(f"{name}: the process ended: {found.stderr[-2000:]}")
    print(*findings, sep="\n", end="\n" if findings else "", flush=True)
    return {
        "target": name,
        "inputs": runs,
        **{outcome: int(count) for count, outcome in counts},
        "findings": len(findings),
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    main()
