"""How long the program takes to start: python benchmarks/startup.py

Fresh processes, in turns: a bare interpreter, ``import mlx_faceau``, ``mlx-faceau --help``. The
targets are on CPU time, medians of 20: 50 ms for the import beyond the bare interpreter, 200 ms for
the help.
"""

import argparse
import statistics
import sys
from pathlib import Path

from timing import RESULTS, load, timed_process, write_csv

CASES = {
    "bare interpreter": ["-c", "pass"],
    "import mlx_faceau": ["-c", "import mlx_faceau"],
    "mlx-faceau --help": ["-m", "mlx_faceau", "--help"],
}


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each round, by case; one round before them warms the caches."""
    times: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(rounds + 1):
        for case, arguments in CASES.items():
            times[case].append(timed_process([sys.executable, *arguments]))
    return {case: found[1:] for case, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.csv")
    args = parser.parse_args()
    load_at_start, rows = load(), []
    for case, found in measure(args.rounds).items():
        cpu, wall = zip(*found, strict=True)
        row = {"case": case, "rounds": args.rounds}
        row["cpu_ms_median"] = round(1000 * statistics.median(cpu), 1)
        row["wall_ms_median"] = round(1000 * statistics.median(wall), 1)
        rows.append({**row, "load_at_start": load_at_start})
    write_csv(args.output, rows)


if __name__ == "__main__":
    main()
