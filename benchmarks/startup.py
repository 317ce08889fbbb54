"""How long the program takes to start: python benchmarks/startup.py

Fresh processes, in turns: a bare interpreter, ``import mlx_faceau``, ``mlx-faceau --help``. The
targets are on CPU time, medians of 20: 50 ms for the import beyond the bare interpreter, 200 ms for
the help.
"""

import argparse
import sys
from pathlib import Path

from timing import RESULTS, Times, milliseconds, timed_process, write_csv

CASES = {
    "bare interpreter": ["-c", "pass"],
    "import mlx_faceau": ["-c", "import mlx_faceau"],
    "mlx-faceau --help": ["-m", "mlx_faceau", "--help"],
}


def measure(rounds: int, cases: dict[str, list[str]] = CASES) -> dict[str, list[Times]]:
    """Each round's times by case; one round before them warms the caches."""
    times: dict[str, list[Times]] = {case: [] for case in cases}
    for _ in range(rounds + 1):
        for case, arguments in cases.items():
            times[case].append(timed_process([sys.executable, *arguments]))
    return {case: found[1:] for case, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.csv")
    args = parser.parse_args()
    rows = [
        {"case": case, "rounds": args.rounds, **milliseconds(times)}
        for case, times in measure(args.rounds).items()
    ]
    write_csv(args.output, rows)


if __name__ == "__main__":
    main()
