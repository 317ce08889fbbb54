"""What each choice of a recipe is worth, on people of the training side.

    python benchmarks/ablation.py benchmarks/recipes/au.json --data train=train.h5 mixed=mixed.h5 \
        --run runs/ablation --seeds 0 1 --change auxiliary_weight=0 first_side=112 ema=0 dropout=0.3

The recipe's first stage is trained whole, then once for each ``--change`` with that setting alone
given another value (or those that ``+`` joins: ``mirror=0+relabel_mirrored=false``), all of them
for ``--epochs`` epochs and with each seed, which draws weights, order and the development people.
``--with`` changes a setting in all of them, such as the files. Nobody whom the final evaluation is
about takes part. The table, ``ablation-NAME.csv`` of the recipe or ``--output``, holds the last
epoch's figures on the development people. What is interrupted goes on where it stopped.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from compare import RESULTS, write_csv
from reference import named_file, read_recipe, train

NOTHING = "nothing"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--run", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--change", nargs="+", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--with", nargs="+", default=[], metavar="SETTING=VALUE", dest="always")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(arguments)
    recipe, files = read_recipe(args.recipe), dict(named_file(text) for text in args.data)
    shared = {**recipe["stages"][0], "epochs": args.epochs, "no_export": True}
    for setting in args.always:
        shared |= changed(setting)
    rows = []
    for seed in args.seeds:
        for change in (NOTHING, *args.change):
            settings = {**shared, "seed": seed, **changed(change)}
            folder = args.run / f"{change}-seed{seed}"
            if status := train(recipe["net"], settings, files, folder, None):
                return status
            rows.append({"change": change, "seed": seed, **figures(folder)})
    columns = dict.fromkeys(name for row in rows for name in row)  # r is missing where undefined
    rows = [{name: row.get(name, "-") for name in columns} for row in rows]
    write_csv(args.output or RESULTS / f"ablation-{args.recipe.stem}.csv", rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    return 0


def changed(change: str) -> dict[str, Any]:
    """The settings that a change gives other values: JSON, or else texts."""
    if change == NOTHING:
        return {}
    return dict(_setting(part) for part in re.split(r"\+(?=\w+=)", change))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"{text}: expected SETTING=VALUE, such as ema=0")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def figures(folder: Path) -> dict[str, Any]:
    """The last epoch's figures of a finished training, and what it took."""
    epochs = json.loads((folder / "training_history.json").read_text("utf-8"))["epochs"]
    names = ("correlation", "correlation_without_mean", "mae")
    found = {name: epochs[-1]["metrics"].get(name) for name in names}
    metrics = {name: round(value, 4) for name, value in found.items() if value is not None}
    minutes = sum(epoch["seconds"] for epoch in epochs) / 60
    return {"epochs": len(epochs), **metrics, "minutes": round(minutes, 2)}


if __name__ == "__main__":
    sys.exit(main())
