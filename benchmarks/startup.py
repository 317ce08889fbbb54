"""How long the program takes to answer: python benchmarks/startup.py

Fresh processes, taken in turns: a bare interpreter, ``import mlx_faceau``, ``mlx-faceau --help``.
What counts is the import's excess over the bare interpreter (target: 50 ms) and the help as a whole
(target: 200 ms), medians of 20.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from compare import RESULTS, write_csv

BARE, IMPORT, HELP = "bare interpreter", "import mlx_faceau", "mlx-faceau --help"
CASES = {
    BARE: [sys.executable, "-c", "pass"],
    IMPORT: [sys.executable, "-c", "import mlx_faceau"],
    HELP: [sys.executable, "-m", "mlx_faceau", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.csv")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [
        {
            "case": case,
            "rounds": args.rounds,
            "cpu_ms_median": round(1000 * statistics.median(cpu), 1),
            "wall_ms_median": round(1000 * statistics.median(wall), 1),
            "load_at_start": round(load, 2),
        }
        for case, (cpu, wall) in measure(args.rounds).items()
    ]
    write_csv(args.output, rows)
    for row in rows:
        print(f"{row['case']:20} CPU {row['cpu_ms_median']:6.1f} ms, wall {row['wall_ms_median']}")
    print(args.output)


def measure(rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """CPU and wall seconds of every case, a list of each; one round before does not count."""
    times: dict[str, tuple[list[float], list[float]]] = {case: ([], []) for case in CASES}
    for number in range(rounds + 1):
        for case, command in CASES.items():
            cpu, wall = timed(command)
            if number:
                times[case][0].append(cpu)
                times[case][1].append(wall)
    return times


def timed(command: list[str]) -> tuple[float, float]:
    """CPU seconds (user and system) and wall seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


if __name__ == "__main__":
    main()
