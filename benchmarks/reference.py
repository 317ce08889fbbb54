"""A reference net from its recipe to its figures, in one command.

    python benchmarks/reference.py benchmarks/recipes/au.json --people val.h5 --run runs/au \
        --data train=train.h5 mixed=mixed.h5

A recipe is a JSON object: ``net`` (``landmark-pose`` or ``au``) and ``stages``, a list of settings
as ``mlx-faceau train --config`` takes them. Each stage names its ``data`` (and ``val_data``) by the
names on the command line, ``train`` where it names none, and starts from the weights of the stage
before. What is interrupted goes on where it stopped when the command is given again, and a finished
stage is not trained twice; a changed recipe takes another ``--run``.

``--results`` (default ``benchmarks/results/NAME`` of the recipe) gets the recipe, every stage's
history and curves, the evaluation on ``--people``, and ``record.json``: hashes of data and weights,
machine and versions. No face, label or weight enters it, nor a path of this machine.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from compare import RESULTS, machine_stamp

from mlx_faceau.checkpoint import BEST_NAME, file_hash, read_metadata
from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.output import atomic_file
from mlx_faceau.recorded_accuracy import EVALUATION_NAME
from mlx_faceau.train.checkpoints import LAST_NAME
from mlx_faceau.train.history import HISTORY_NAME

RECIPE_NAME = "recipe.json"
RECORD_NAME = "record.json"
CONFIG_NAME = "settings.json"
KEPT = (HISTORY_NAME, "training_curves.png")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument(
        "--people", type=Path, required=True, help="faces of people never trained on"
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of the stages; ignored by git"
    )
    parser.add_argument("--results", type=Path)
    parser.add_argument("--backend", default="auto", help="what runs the evaluated net")
    args = parser.parse_args(arguments)
    recipe = read_recipe(args.recipe)
    files = dict(named_file(text) for text in args.data)
    folders = [args.run / f"stage{number}" for number in range(1, len(recipe["stages"]) + 1)]
    for number, folder in enumerate(folders):
        before = folders[number - 1] if number else None
        status = train(recipe["net"], recipe["stages"][number], files, folder, before)
        if status:
            return status
    results = args.results or RESULTS / args.recipe.stem
    results.mkdir(parents=True, exist_ok=True)
    evaluation = [
        "evaluate",
        str(folders[-1]),
        "--data",
        str(args.people),
        "--output",
        str(results),
    ]
    status = mlx_faceau([*evaluation, "--backend", args.backend])
    if not status:
        paths = {str(args.people): args.people.name, str(args.run): "RUN"}
        paths |= {str(path): f"{name}.h5" for name, path in files.items()}
        collect(args.recipe, folders, results, args.people, paths)
    return status


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe, its shape checked; the training itself checks the settings."""
    recipe = json.loads(path.read_text("utf-8"))
    if set(recipe) != {"net", "stages"} or not recipe["stages"]:
        raise SystemExit(f"{path}: expected an object with 'net' and 'stages', a list of settings")
    return recipe


def named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        raise SystemExit(f"--data {text}: expected NAME=FILE, such as train=faces.h5")
    return name, Path(path)


def train(
    net: str, settings: dict[str, Any], files: dict[str, Path], folder: Path, before: Path | None
) -> int:
    """Train one stage, or the rest of it; the exit status."""
    settings = {"data": ["train"], **settings}
    for key in ("data", "val_data"):
        if key in settings:
            settings[key] = [str(file_called(name, files)) for name in settings[key]]
    settings |= {"init": str(before)} if before else {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.parent / f"{folder.name}.{CONFIG_NAME}"
    if (folder / LAST_NAME).is_file():
        if not config.is_file() or json.loads(config.read_text("utf-8")) != settings:
            raise SystemExit(f"{folder}: trained with other settings; give another --run")
        return 0 if is_finished(folder) else mlx_faceau(["train", net, "--resume", str(folder)])
    config.write_text(json.dumps(settings, indent=1) + "\n")
    return mlx_faceau(["train", net, "--config", str(config), "--output", str(folder)])


def is_finished(folder: Path) -> bool:
    history = folder / HISTORY_NAME
    ended = ("finished", "patience")
    return history.is_file() and json.loads(history.read_text("utf-8"))["stopped"] in ended


def file_called(name: str, files: dict[str, Path]) -> Path:
    if name not in files:
        raise SystemExit(f"the recipe trains on {name!r}: give --data {name}=FILE")
    return files[name]


def collect(
    recipe: Path, folders: list[Path], results: Path, people: Path, paths: dict[str, str]
) -> None:
    """Bring together what may be published: histories, curves, record; without paths."""
    shutil.copyfile(recipe, results / RECIPE_NAME)
    for folder in folders:
        for name in KEPT:
            shutil.copyfile(folder / name, results / f"{folder.name}.{name}")
    (results / EVALUATION_NAME).with_suffix(
        ".html"
    ).unlink()  # the PNG again, and the JSON's figures
    record = {
        "people": {"hash": FaceDataset(people).hash},
        "stages": [stage_record(folder) for folder in folders],
        "machine": machine_stamp(),
    }
    with atomic_file(results / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    for path in [*results.glob("*.json"), *results.glob("*.txt")]:
        text = path.read_text("utf-8")
        for given, shown in sorted(paths.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(given, shown)
        path.write_text(text, "utf-8")


def stage_record(folder: Path) -> dict[str, Any]:
    best = folder / BEST_NAME
    metadata = read_metadata(best)
    return {
        "weights_sha256": file_hash(best),
        "data": metadata["data"],
        "seed": metadata["training"]["seed"],
    }


if __name__ == "__main__":
    sys.exit(main())
