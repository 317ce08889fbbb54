"""How many labels does fine-tuning the built-in action unit net need, against a new net?

    python benchmarks/fine_tuning.py val.h5 --few few.h5 --many many.h5

Both trainings use the same command except for ``--init builtin``, and are evaluated after every
epoch on the people of ``val.h5``, who are in neither training. The built-in net is fine-tuned on
the few faces, the new net is trained on all.
"""

import argparse
import json
import tempfile
from pathlib import Path

from timing import RESULTS, Row, load, timed_process, write_csv

COMMON = "--augment light --num-workers 1 --no-export --ema 0.99 --patience 100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val", type=Path, help="labelled faces of other people")
    parser.add_argument("--few", type=Path, required=True, help="that the built-in net learns from")
    parser.add_argument("--many", type=Path, required=True, help="that a new net learns from")
    parser.add_argument("--epochs", type=int, nargs=2, default=(6, 6), metavar=("FEW", "MANY"))
    parser.add_argument("--framework", default="torch")
    parser.add_argument("--output", type=Path, default=RESULTS / "fine-tuning.csv")
    args = parser.parse_args()
    few, many = args.epochs
    rows = [
        *arm("builtin", args, args.few, few, "--init builtin --lr 0.0003"),
        *arm("nothing", args, args.many, many, ""),
    ]
    write_csv(args.output, rows)


def arm(name: str, args: argparse.Namespace, data: Path, epochs: int, extra: str) -> list[Row]:
    """One training; a row an epoch. CPU seconds are the whole training's, shared out evenly."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--epochs {epochs} --framework {args.framework} {COMMON} {extra}".split()
        command = ["mlx-faceau", "train", "au", "--data", str(data), "--val-data", str(args.val)]
        cpu, _ = timed_process([*command, "--output", folder, *flags])
        history = json.loads((Path(folder) / "training_history.json").read_text())
    return [
        {
            "start": name,
            "faces": history["data"]["training"],
            "epoch": epoch["epoch"],
            "cpu_minutes": round(cpu / 60 * epoch["epoch"] / epochs, 2),
            "mean_r": round(epoch["metrics"]["correlation"], 4),
            "mae": round(epoch["metrics"]["mae"], 4),
            "load": load(),
        }
        for epoch in history["epochs"]
    ]


if __name__ == "__main__":
    main()
