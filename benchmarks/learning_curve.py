"""What more faces, and more time, are worth to a recipe, on people of the training side.

    python benchmarks/learning_curve.py benchmarks/recipes/au.json --train train.h5 --dev dev.h5 \
        --run runs/curve --epochs 12 8 --halvings 3

The recipe's first stages, one for each number of ``--epochs``, are trained on all faces of
``--train``, on those of half of its people, of a quarter and so on, each time with as many steps:
half the faces are shown twice as often. ``--with`` changes a setting in all of them. ``--dev``
holds other people, not those of the final evaluation, and tells how well it went. ``--histories``
are of finished trainings (``training_history.json``, one stage after the other): their validation
over time is drawn beside it. ``learning-curve-NAME.csv`` and ``.png`` of the recipe are the result.
What is interrupted goes on where it stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ablation import changed, figures
from compare import RESULTS, write_csv
from reference import read_recipe, train

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.validation_split import people_names
from mlx_faceau.output.matplotlib_figure import new_figure

MEASURE = {"au": "correlation", "landmark-pose": "correlation_without_mean"}
Row = dict[str, Any]


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
    parser.add_argument("--with", nargs="+", default=[], metavar="SETTING=VALUE", dest="always")
    parser.add_argument("--histories", type=Path, nargs="*", default=[])
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    recipe = read_recipe(args.recipe)
    if len(args.epochs) > len(recipe["stages"]):
        raise SystemExit(f"{args.recipe}: {len(recipe['stages'])} stages; give fewer --epochs")
    always = {name: value for text in args.always for name, value in changed(text).items()}
    stages = [
        {**stage, **always, "data": ["part"], "val_data": ["dev"], "no_export": True}
        for stage in recipe["stages"]
    ]
    rows: list[Row] = []
    for halving in range(args.halvings + 1):
        files = {"part": share_of(args.train, halving, args.run), "dev": args.dev}
        size, before = counts(files["part"]), None
        for number, epochs in enumerate(args.epochs, 1):
            settings = {**stages[number - 1], "epochs": epochs * 2**halving}
            settings["patience"] = settings["epochs"]  # few faces are learned by heart early
            folder = args.run / f"half{halving}" / f"stage{number}"
            if status := train(recipe["net"], settings, files, folder, before):
                return status
            rows.append({"stage": number, **size, **figures(folder)})
            before = folder
    measure = MEASURE[recipe["net"]]
    rows = [{measure: float("nan"), **row} for row in rows]  # where undefined
    name = args.results / f"learning-curve-{args.recipe.stem}"
    write_csv(name.with_suffix(".csv"), rows)
    draw(rows, over_time(args.histories), measure, name.with_suffix(".png"))
    for row in rows:
        print("  ".join(f"{column} {value}" for column, value in row.items()))
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


def counts(path: Path) -> Row:
    faces = FaceDataset(path)
    people = people_names(faces, strict=False)[1]
    return {"faces": len(faces), "people": len({*people.tolist()})}


def over_time(histories: list[Path]) -> list[Row]:
    """Every epoch of the trainings: hours since the first began, and its metrics."""
    seconds, rows = 0.0, []
    for path in histories:
        for epoch in json.loads(path.read_text("utf-8"))["epochs"]:
            seconds += epoch["seconds"]
            rows.append({"hours": seconds / 3600, **epoch["metrics"]})
    return rows


def draw(rows: list[Row], epochs: list[Row], measure: str, path: Path) -> None:
    figure = new_figure(10 if epochs else 5, 4)
    axes = figure.subplots(1, 2 if epochs else 1, squeeze=False)[0]
    label = measure.replace("_", " ")
    for stage in dict.fromkeys(row["stage"] for row in rows):
        of_stage = [row for row in rows if row["stage"] == stage]
        faces = [row["faces"] for row in of_stage]
        values = [row[measure] for row in of_stage]
        axes[0].plot(faces, values, "o-", label=f"after stage {stage}")
    axes[0].set(xscale="log", xlabel="faces trained on, equal steps", ylabel=label)
    axes[0].set_xticks(faces, [f"{count:,}" for count in faces])
    axes[0].legend(loc="lower right")
    axes[0].minorticks_off()
    if epochs:
        axes[1].plot(
            [row["hours"] for row in epochs],
            [row.get(measure, float("nan")) for row in epochs],
            "o-",
        )
        axes[1].set(xlabel="hours of the reference training", ylabel=label)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1)  # small differences look small
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
