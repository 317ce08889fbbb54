"""The command line shared by latency.py, throughput.py and train_step.py."""

import argparse
import os
from pathlib import Path

from cases import CASES
from compare import RESULTS, compare, plot, print_table, write_csv

from mlx_faceau.core.architectures import CONFIGS


def main(name: str, task: str, batches: list[int], rounds: int) -> None:
    """Measure every combination of net, batch and threads; each is one round-robin of all cases."""
    parser = argparse.ArgumentParser(description=f"{name}: median times of {task} by case")
    parser.add_argument("--nets", nargs="+", default=[*CONFIGS], choices=[*CONFIGS])
    parser.add_argument("--cases", nargs="+", default=[*CASES[task]], choices=[*CASES[task]])
    parser.add_argument("--batch", nargs="+", type=int, default=batches)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--width-mult", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.csv")
    args = parser.parse_args()
    rows = []
    for net in args.nets:
        for batch in args.batch:
            for threads in args.threads:
                settings = {
                    "net": net,
                    "task": task,
                    "batch": batch,
                    "threads": threads,
                    "width_mult": args.width_mult,
                }
                cases = [{"case": case, **settings} for case in args.cases]
                rows += compare(cases, args.rounds)
                write_csv(args.output, rows)
    print_table(rows)
    plot(args.output.with_suffix(".png"), rows, f"mlx-faceau: {name.replace('_', ' ')}")
    print(f"\n{args.output} and {args.output.with_suffix('.png')}")
