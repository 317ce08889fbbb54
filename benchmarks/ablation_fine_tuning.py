"""Do composed faces, or rare units sampled or weighed more, help to fine-tune the built-in net?

    python benchmarks/ablation_fine_tuning.py few.h5 people.h5

Each change alone, from the built-in action unit net on the few faces, in as many steps; evaluated
on other people.
"""

import argparse
import json
import tempfile
from pathlib import Path

from timing import RESULTS, Row, load, timed_process, write_csv

COMMON = (
    "--init builtin --lr 0.0003 --epochs 6 --framework torch --augment light --num-workers 1 "
    "--no-export --ema 0.99 --patience 100 --precision bfloat16 --auxiliary-weight 4 "
    "--ccc-weight 1 --dropout 0.1 --seed 0"
)
CHANGES = {
    "nothing": "",
    "balance_aus": "--balance-aus",
    "au_weights=auto": "--au-weights auto",
    "cutmix_faces=1082": "--cutmix-faces 1082 --epochs 3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("few", type=Path)
    parser.add_argument("people", type=Path, help="others, to evaluate on")
    args = parser.parse_args()
    rows = [arm(args, change, extra) for change, extra in CHANGES.items()]
    write_csv(RESULTS / "ablation-fine-tuning.csv", rows)


def arm(args: argparse.Namespace, change: str, extra: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        files = ["--data", str(args.few), "--val-data", str(args.people), "--output", folder]
        flags = [*COMMON.split(), *extra.split()]
        cpu, _ = timed_process(["mlx-faceau", "train", "au", *files, *flags])
        history = json.loads((Path(folder) / "training_history.json").read_text())
    last = history["epochs"][-1]
    return {
        "change": change,
        "faces": history["data"]["training"],
        "epochs": last["epoch"],
        "mean_r": round(last["metrics"]["correlation"], 4),
        "mae": round(last["metrics"]["mae"], 4),
        "cpu_minutes": round(cpu / 60, 2),
        "load": load(),
    }


if __name__ == "__main__":
    main()
