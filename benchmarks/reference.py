"""Train and evaluate a reference net from its recipe, in one command.

    python benchmarks/reference.py benchmarks/recipes/au.json --people val.h5 --run runs/au \
        --data train=train.h5 mixed=mixed.h5

A recipe is a JSON object: ``net`` (``landmark-pose`` or ``au``), ``stages``, a list of settings as
``mlx-faceau train --config`` takes them, ``averaged``, of how many last stages the weights are
averaged (1), and ``hog_head``, true where what is evaluated is that net as ``mlx-faceau export
--hog-head`` makes it, or "refit" for ``--hog-head --refit``. Each stage names its ``data`` (and
``val_data``) by the names on the command line, ``train`` where it names none, and starts from the
weights of the stage before. Given again, the command resumes what was interrupted, trains no
finished stage twice, and evaluates; a changed recipe takes another ``--run``.

``--results`` (default ``benchmarks/results/NAME`` of the recipe) gets the recipe, every stage's
history and curves, the evaluation on ``--people``, and ``record.json``: hashes of data and weights,
each stage's commit, machine and versions. No face, label or weight enters it, nor a path of this
machine.

Reference:
    Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time, ICML 2022.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from timing import RESULTS, machine

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.core.auxiliary_head import with_auxiliary_prefix, without_auxiliary_prefix
from mlx_faceau.core.checkpoint import (
    BEST_NAME,
    file_hash,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from mlx_faceau.data.format.check import find_overlap
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.train.checkpoints import LAST_NAME
from mlx_faceau.train.history import CURVES_NAME, HISTORY_NAME
from mlx_faceau.weights.builtin import BUILTIN, FOLDER

CODE = ("mlx_faceau", "torch_fallback", "convert", "benchmarks/*.py")
DATA = ("data", "val_data")  # settings that name files
ENDED = ("finished", "patience")  # how a stage stops that is not resumed
PRIVATE = ("fingerprint", "sketch")  # keys of digests of single faces


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--people", type=Path, required=True, help="faces of people not trained on")
    parser.add_argument("--run", type=Path, required=True, help="folder of the stages")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--backend", default="auto", help="what runs the evaluated net")
    args = parser.parse_args(arguments)
    recipe, files = read_recipe(args.recipe), dict(map(named_file, args.data))
    names = {n for stage in recipe["stages"] for key in DATA for n in stage.get(key, ())}
    if missing := sorted(names - set(files)):
        raise SystemExit(f"the recipe trains on {missing[0]!r}: give --data {missing[0]}=FILE")
    check_files([files[name] for name in sorted(names)], args.people)
    folders: list[Path] = []
    for number, stage in enumerate(recipe["stages"], 1):
        paths = {key: [str(files[name]) for name in stage[key]] for key in DATA if key in stage}
        before = {"init": str(folders[-1])} if folders else {}
        folders.append(args.run.resolve() / f"stage{number}")
        if status := train(recipe["net"], {**stage, **paths, **before}, folders[-1]):
            return status
    results = args.results or RESULTS / args.recipe.stem
    results.mkdir(parents=True, exist_ok=True)
    people, net, averaged = args.people.resolve(), folders[-1], None
    if recipe["averaged"] > 1:
        averaged = net = args.run.resolve() / "averaged"
        average(folders[-recipe["averaged"] :], averaged)
    if recipe["hog_head"]:
        trained, net = net, args.run.resolve() / "hog_head.safetensors"
        command = ["export", str(trained), "--hog-head", "--to", "safetensors"]
        command += ["--refit"] if recipe["hog_head"] == "refit" else []
        if status := mlx_faceau([*command, "--output", str(net)]):
            return status
    evaluation = ["evaluate", str(net), "--data", str(people), "--output", str(results)]
    status = mlx_faceau([*evaluation, "--backend", args.backend])
    if not status:
        shown = {str(path): f"{name}.h5" for name, path in files.items()}
        shown[str(people)] = people.name
        publish(args.recipe, folders, averaged, results, shown, people)
    return status


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe, its shape checked; the training itself checks the settings."""
    recipe = {"hog_head": False, "averaged": 1, **json.loads(path.read_text("utf-8"))}
    if set(recipe) != {"net", "stages", "hog_head", "averaged"} or not recipe["stages"]:
        raise SystemExit(f"{path}: expected an object with 'net' and 'stages', a list of settings")
    stages, averaged = recipe["stages"], recipe["averaged"]
    if type(averaged) is not int or not 1 <= averaged <= len(stages):
        raise SystemExit(f"{path}: 'averaged' is {averaged!r}, expected 1 to {len(stages)} stages")
    if averaged > 1 and not all(stage.get("ema") for stage in stages[-averaged:]):
        raise SystemExit(f"{path}: 'averaged' needs 'ema' in each of the last {averaged} stages")
    for stage in stages:
        stage.setdefault("data", ["train"])
    return recipe


def named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        raise SystemExit(f"--data {text}: expected NAME=FILE, such as train=faces.h5")
    return name, Path(path).resolve()


def check_files(training: list[Path], people: Path) -> None:
    """Stop before hours of training where the end would fail, or measure people trained on."""
    for path in (*training, people):
        if not path.is_file():
            raise SystemExit(f"{path}: no such file")
    unseen = FaceDataset(people, keep_outside=True)
    for path in training:
        if found := find_overlap(FaceDataset(path, keep_outside=True), unseen):
            raise SystemExit(f"{path}: {found[0]}; give --people whom no stage trains on")


def train(net: str, settings: dict[str, Any], folder: Path) -> int:
    """Train one stage, or the rest of it; the exit status."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_name(f"{folder.name}.settings.json")
    if (folder / LAST_NAME).is_file():
        if not config.is_file() or json.loads(config.read_text("utf-8")) != settings:
            raise SystemExit(f"{folder}: trained with other settings; give another --run")
        history = folder / HISTORY_NAME
        if history.is_file() and json.loads(history.read_text("utf-8"))["stopped"] in ENDED:
            return 0
        return mlx_faceau(["train", net, "--resume", str(folder)])
    config.write_text(json.dumps(settings, indent=1) + "\n")
    folder.with_name(f"{folder.name}.commit.txt").write_text(commit() + "\n")
    return mlx_faceau(["train", net, "--config", str(config), "--output", str(folder)])


def average(folders: list[Path], target: Path) -> None:
    """The last training's checkpoint with the mean of all trainings' averaged weights."""
    checkpoints = [load_checkpoint(folder) for folder in folders]
    last = checkpoints[-1].metadata
    for folder, checkpoint in zip(folders, checkpoints, strict=True):
        if checkpoint.metadata["target_statistics"] != last["target_statistics"]:
            raise SystemExit(
                f"{folder}: trained on other faces than {folders[-1]}; no mean of both"
            )
    every = [without_auxiliary_prefix(checkpoint.arrays) for checkpoint in checkpoints]
    for name in [name for name in every[-1] if name.startswith("ema.")]:
        mean = np.mean([arrays[name] for arrays in every], axis=0, dtype=np.float64)
        every[-1][name] = mean.astype(np.float32)
    target.mkdir(exist_ok=True)
    save_checkpoint(target / BEST_NAME, with_auxiliary_prefix(every[-1]), last)


def commit() -> str:
    """The code's commit, marked if the code differs from it; "-" without git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("diff", "HEAD", "--", *CODE)
        return git("rev-parse", "--short=12", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "-"


def publish(
    recipe: Path,
    folders: list[Path],
    averaged: Path | None,
    results: Path,
    shown: dict[str, str],
    people: Path,
) -> None:
    """Add recipe, histories, curves and record to the evaluation in ``results``.

    ``shown`` has the absolute paths that may occur in them, and what stands for each.
    """
    if recipe.resolve() != (results / "recipe.json").resolve():
        shutil.copyfile(recipe, results / "recipe.json")
    for earlier in results.glob("stage*.training_*"):  # the recipe may have had more of them
        earlier.unlink()
    stages, shown = [], shown | {str(folders[0].parent): "RUN", str(FOLDER): BUILTIN}
    for folder in folders:
        shutil.copyfile(folder / CURVES_NAME, results / f"{folder.name}.{CURVES_NAME}")
        write_public(folder / HISTORY_NAME, results / f"{folder.name}.{HISTORY_NAME}", shown)
        metadata = read_metadata(folder / BEST_NAME)
        stages.append(
            {
                "weights_sha256": file_hash(folder / BEST_NAME),
                "data": {k: v for k, v in metadata["data"].items() if k not in PRIVATE},
                "commit": folder.with_name(f"{folder.name}.commit.txt").read_text().strip(),
                "seed": metadata["training"]["seed"],
            }
        )
    for suffix in ("json", "txt"):
        path = results / f"evaluation.{suffix}"
        write_public(path, path, shown)
    (results / "evaluation.html").unlink()  # the PNG again, and the JSON's figures
    record = {"people": {"hash": FaceDataset(people).hash}, "stages": stages, "machine": machine()}
    if averaged is not None:
        record["averaged_weights_sha256"] = file_hash(averaged / BEST_NAME)
    (results / "record.json").write_text(json.dumps(record, indent=1) + "\n")


def write_public(source: Path, target: Path, shown: dict[str, str]) -> None:
    """A text or JSON file without paths of this machine and digests of single faces."""
    text = source.read_text("utf-8")
    if source.suffix == ".json":
        values = json.loads(
            text, object_hook=lambda found: {k: v for k, v in found.items() if k not in PRIVATE}
        )
        text = json.dumps(values, indent=1) + "\n"
    for path in sorted(shown, key=len, reverse=True):
        text = text.replace(path, shown[path])
    target.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
