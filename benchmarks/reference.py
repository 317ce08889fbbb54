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
each stage's commit, machine and versions. No face, label or weight enters it, nor a path of this
machine.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from timing import RESULTS, machine

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.checkpoint import BEST_NAME, file_hash, read_metadata
from mlx_faceau.data.format.check import shared
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.output.recorded_accuracy import EVALUATION_NAME
from mlx_faceau.train.checkpoints import LAST_NAME
from mlx_faceau.train.history import HISTORY_NAME
from mlx_faceau.train.plots import CURVES_NAME

RECIPE_NAME = "recipe.json"
RECORD_NAME = "record.json"
CONFIG_NAME = "settings.json"
COMMIT_NAME = "commit.txt"
ROOT = Path(__file__).parents[1]
CODE = ("mlx_faceau", "torch_fallback", "convert", "benchmarks/*.py")


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
    check_files([path for stage in recipe["stages"] for path in used(stage, files)], args.people)
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
        shown = {str(args.people): args.people.name, str(args.run): "RUN"}
        shown |= {str(path): f"{name}.h5" for name, path in files.items()}
        collect(args.recipe, folders, results, args.people, shown)
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


def used(stage: dict[str, Any], files: dict[str, Path]) -> list[Path]:
    """The files that a stage trains and validates on."""
    names = [*stage.get("data", ["train"]), *stage.get("val_data", [])]
    return [file_called(name, files) for name in names]


def check_files(training: list[Path], people: Path) -> None:
    """Stop before hours of training where the end would fail, or measure people trained on."""
    for path in (*training, people):
        if not path.is_file():
            raise SystemExit(f"{path}: no such file")
    unseen = FaceDataset(people, keep_outside=True)
    for path in dict.fromkeys(training):
        if found := shared(FaceDataset(path, keep_outside=True), unseen):
            raise SystemExit(f"{path}: {found[0]}; give --people whom no stage trains on")


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
    (folder.parent / f"{folder.name}.{COMMIT_NAME}").write_text(commit() + "\n")
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
    recipe: Path, folders: list[Path], results: Path, people: Path, shown: dict[str, str]
) -> None:
    """Bring together what may be published: histories, curves, record; without paths."""
    if recipe.resolve() != (results / RECIPE_NAME).resolve():
        shutil.copyfile(recipe, results / RECIPE_NAME)
    for earlier in results.glob("stage*.training_*"):  # the recipe may have had more of them
        earlier.unlink()
    for folder in folders:
        shutil.copyfile(folder / CURVES_NAME, results / f"{folder.name}.{CURVES_NAME}")
        write_pathless(folder / HISTORY_NAME, results / f"{folder.name}.{HISTORY_NAME}", shown)
    evaluation = results / EVALUATION_NAME
    write_pathless(evaluation, evaluation, shown)
    text = evaluation.with_suffix(".txt")
    report = text.read_text("utf-8")
    for path in (folders[-1], people):
        report = report.replace(str(path), pathless(str(path), shown), 1)  # in its first line
    text.write_text(report, "utf-8")
    evaluation.with_suffix(".html").unlink()  # the PNG again, and the JSON's figures
    record = {
        "people": {"hash": FaceDataset(people).hash},
        "stages": [stage_record(folder) for folder in folders],
        "machine": machine(),
    }
    with atomic_file(results / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def write_pathless(source: Path, target: Path, shown: dict[str, str]) -> None:
    values = pathless(json.loads(source.read_text("utf-8")), shown)
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def pathless(values: Any, shown: dict[str, str]) -> Any:
    """JSON values, in which texts that are one of these paths, or lie in it, show its name; digests
    of single faces stay out too."""
    if isinstance(values, dict):
        return {
            key: pathless(value, shown)
            for key, value in values.items()
            if key not in ("fingerprint", "sketch")
        }
    if isinstance(values, list):
        return [pathless(value, shown) for value in values]
    if isinstance(values, str):
        for path, name in sorted(shown.items(), key=lambda pair: -len(pair[0])):
            if values == path or values.startswith(f"{path}/"):
                return name + values[len(path) :]
    return values


def commit() -> str:
    """The code's commit, with a mark if the code differs from it; "-" where git knows neither."""
    try:
        found, changed = (git("rev-parse", "--short=12", "HEAD"), git("diff", "HEAD", "--", *CODE))
    except (OSError, subprocess.CalledProcessError):
        return "-"
    return found + ("-changed" if changed else "")


def git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def stage_record(folder: Path) -> dict[str, Any]:
    best = folder / BEST_NAME
    metadata, begun = read_metadata(best), folder.parent / f"{folder.name}.{COMMIT_NAME}"
    return {
        "weights_sha256": file_hash(best),
        "data": pathless(metadata["data"], {}),
        "commit": begun.read_text().strip() if begun.is_file() else "-",
        "seed": metadata["training"]["seed"],
    }


if __name__ == "__main__":
    sys.exit(main())
