"""Accuracy of a recipe against the number of training people.

    python benchmarks/learning_curve.py benchmarks/recipes/au.json --train train.h5 --dev dev.h5 \
        --run runs/curve --epochs 12 8 --halvings 3

The recipe's first stages, one for each number of ``--epochs``, are trained on all faces of
``--train``, then on those of half of its people, of a quarter and so on. The number of steps stays
the same: half the faces are trained for twice as many epochs. ``--dev`` holds other people, not
those of the final evaluation. The result is ``learning-curve-NAME.csv`` of the recipe. The same
command resumes an interrupted run.
"""

import argparse
import json
import sys
from pathlib import Path

from reference import read_recipe, train
from timing import RESULTS, Row, write_csv

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import people_names

METRICS = ("correlation", "correlation_without_mean", "mae")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--train", type=Path, required=True, metavar="FILE")
    parser.add_argument("--dev", type=Path, required=True, metavar="FILE")
    parser.add_argument("--run", type=Path, required=True, help="folder of parts and trainings")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[4], help="over all faces, stage by stage"
    )
    parser.add_argument("--halvings", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    recipe = read_recipe(args.recipe)
    if len(args.epochs) > len(recipe["stages"]):
        raise SystemExit(f"{args.recipe}: {len(recipe['stages'])} stages; give fewer --epochs")
    rows: list[Row] = []
    for halving in range(args.halvings + 1):
        files = {"part": share_of(args.train, halving, args.run), "dev": args.dev}
        faces, before = FaceDataset(files["part"]), None
        people = len({*people_names(faces, strict=False)[1].tolist()})
        for number, epochs in enumerate(args.epochs, 1):
            settings = {**recipe["stages"][number - 1], "data": ["part"], "val_data": ["dev"]}
            settings |= {"epochs": epochs * 2**halving, "no_export": True}
            settings["patience"] = settings["epochs"]  # few faces overfit early
            folder = args.run / f"half{halving}" / f"stage{number}"
            if status := train(recipe["net"], settings, files, folder, before):
                return status
            row = {"stage": number, "faces": len(faces), "people": people}
            rows.append(row | last_epoch(folder))
            before = folder
    write_csv(args.results / f"learning-curve-{args.recipe.stem}.csv", rows)
    return 0


def share_of(whole: Path, halving: int, folder: Path) -> Path:
    """A file with half of the people, of half of the people ..., of a file."""
    if halving == 0:
        return whole
    parts = folder / f"parts{halving}"
    if not (parts / "train.h5").is_file():
        before = share_of(whole, halving - 1, folder)
        split = ["data", "split", str(before), "--output", str(parts), "--val", "0.5"]
        if mlx_faceau(split):
            raise SystemExit(f"{before}: cannot be halved")
    return parts / "train.h5"


def last_epoch(folder: Path) -> Row:
    """The last epoch's figures of a finished training (those that are defined), and its time."""
    epochs = json.loads((folder / "training_history.json").read_text("utf-8"))["epochs"]
    found = {name: epochs[-1]["metrics"].get(name) for name in METRICS}
    metrics = {name: round(value, 4) for name, value in found.items() if value is not None}
    minutes = sum(epoch["seconds"] for epoch in epochs) / 60
    return {"epochs": len(epochs), **metrics, "minutes": round(minutes, 2)}


if __name__ == "__main__":
    sys.exit(main())
