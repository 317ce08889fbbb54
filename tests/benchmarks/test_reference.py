"""One command takes a recipe to its figures: on a few synthetic faces, in two stages."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("matplotlib")

from conftest import REPOSITORY

from mlx_faceau.cli.main import main as mlx_faceau
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import BEST_NAME, file_hash, load_checkpoint
from mlx_faceau.train.config import TRAIN_CONFIGS, resolve
from mlx_faceau.train.hog_head import with_hog_head
from mlx_faceau.train.loop import TrainingLoop

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import reference

STAGE = {
    "framework": "torch",
    "device": "cpu",
    "width_mult": 0.1,
    "batch_size": 8,
    "num_workers": 0,
    "no_export": True,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("faces")
    for name, count, seed in (("train", 40, 1), ("extra", 24, 2), ("people", 24, 3)):
        arguments = ["--output", str(folder / f"{name}.h5"), "--count", str(count)]
        assert mlx_faceau(["data", "synth", *arguments, "--seed", str(seed)]) == 0
    return {name: folder / f"{name}.h5" for name in ("train", "extra", "people")}


def run(files: dict[str, Path], place: Path, recipe: Path | None = None) -> int:
    recipe = recipe or place / "tiny.json"
    stages = [{**STAGE, "epochs": 2}, {**STAGE, "epochs": 1, "lr": 1e-4, "data": ["extra"]}]
    recipe.write_text(json.dumps({"net": "au", "stages": stages}))
    data = [f"train={files['train']}", f"extra={files['extra']}"]
    places = ["--run", str(place / "run"), "--results", str(place / "results")]
    people = ["--people", str(files["people"]), "--backend", "torch"]
    return reference.main([str(recipe), "--data", *data, *people, *places])


def interrupted_after_an_epoch(monkeypatch: pytest.MonkeyPatch, *given: Any) -> int:
    """The exit status of a run that gets Ctrl-C when it has written its first epoch."""
    write = TrainingLoop.write_history

    def write_once(loop: TrainingLoop, stopped: str | None) -> None:
        write(loop, stopped)
        if stopped is None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "write_history", write_once)
        return run(*given)


@pytest.mark.slow
def test_a_recipe_gives_the_same_weights_and_figures_again(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is interrupted in the first stage and given again."""
    outcomes, weights = [], []
    for name in ("first", "second"):
        place = tmp_path / name
        place.mkdir()
        if name == "second":
            assert interrupted_after_an_epoch(monkeypatch, files, place) == 130
            assert not (place / "run" / "stage2").exists()
        assert run(files, place) == 0
        record = json.loads((place / "results" / "record.json").read_text())
        evaluation = json.loads((place / "results" / "evaluation.json").read_text())
        assert all(re.fullmatch(r"[0-9a-f]{12}(-changed)?|-", of["commit"])
                   for of in record["stages"])  # fmt: skip
        outcomes.append((record["people"], evaluation["net"], evaluation["jittered"]))
        stages = [place / "run" / "stage1", place / "run" / "stage2"]
        best = [file_hash(stage / BEST_NAME) for stage in stages]
        arrays = load_checkpoint(stages[1]).arrays
        weights.append({key: of for key, of in arrays.items() if key.startswith("model.")})
        assert [stage["weights_sha256"] for stage in record["stages"]] == best
        assert record["stages"][0]["data"]["hash"] != record["stages"][1]["data"]["hash"]
        assert evaluation["model"]["checkpoint"] == best[1]
        assert not evaluation["trained_on"]
    assert outcomes[0] == outcomes[1]
    for key, values in weights[0].items():
        np.testing.assert_array_equal(weights[1][key], values)

    # Given again, nothing is trained a second time, and only what may be published is collected.
    written = (tmp_path / "second" / "run" / "stage1" / BEST_NAME).stat().st_mtime_ns
    published = tmp_path / "second" / "results" / "recipe.json"
    (published.parent / "stage3.training_history.json").touch()  # of a longer, earlier recipe
    assert run(files, tmp_path / "second", published) == 0
    assert (tmp_path / "second" / "run" / "stage1" / BEST_NAME).stat().st_mtime_ns == written
    results = sorted((tmp_path / "second" / "results").iterdir())
    assert [path.name for path in results] == [
        "evaluation.json",
        "evaluation.png",
        "evaluation.txt",
        "recipe.json",
        "record.json",
        "stage1.training_curves.png",
        "stage1.training_history.json",
        "stage2.training_curves.png",
        "stage2.training_history.json",
    ]
    for path in results:
        assert str(tmp_path).encode() not in path.read_bytes()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; none is."""
    commands: list[list[str]] = []
    monkeypatch.setattr(reference, "mlx_faceau", lambda command: bool(commands.append(command)))
    return commands


def test_a_stage_killed_in_its_first_epoch_is_resumed(
    asked: list[list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "stage1"
    assert reference.train("au", {"epochs": 2}, folder) == 0
    assert asked[-1][:3] == ["train", "au", "--config"]
    folder.mkdir()
    (folder / "checkpoint_last.safetensors").touch()
    assert reference.train("au", {"epochs": 2}, folder) == 0
    assert asked[-1] == ["train", "au", "--resume", str(folder)]
    for stopped, commands in (("interrupted", 3), ("finished", 3), ("patience", 3)):
        (folder / "training_history.json").write_text(json.dumps({"stopped": stopped}))
        assert reference.train("au", {"epochs": 2}, folder) == 0
        assert len(asked) == commands


def test_a_changed_recipe_does_not_reuse_an_old_training(
    asked: list[list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "stage1"
    reference.train("au", {"epochs": 2, "data": ["a.h5"]}, folder)
    folder.mkdir()
    (folder / "checkpoint_last.safetensors").touch()
    for settings in ({"epochs": 3, "data": ["a.h5"]}, {"epochs": 2, "data": ["b.h5"]}):
        with pytest.raises(SystemExit, match="other settings; give another --run"):
            reference.train("au", settings, folder)
    assert len(asked) == 1


def test_missing_data_of_the_recipe_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"net": "au", "stages": [{"data": ["mixed"]}]}))
    given = ["--data", "train=t.h5", "--people", "p.h5", "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="give --data mixed=FILE"):
        reference.main([str(recipe), *given])


def tiny_recipe(place: Path) -> str:
    path = place / "recipe.json"
    path.write_text(json.dumps({"net": "au", "stages": [{"epochs": 1}]}))
    return str(path)


def test_missing_files_and_shared_people_fail_before_training(
    files: dict[str, Path], asked: list[list[str]], tmp_path: Path
) -> None:
    recipe, places = tiny_recipe(tmp_path), ["--run", str(tmp_path / "run")]
    train, gone = files["train"], tmp_path / "gone.h5"
    for given in (["--data", f"train={gone}", "--people", str(files["people"])],
                  ["--data", f"train={train}", "--people", str(gone)]):  # fmt: skip
        with pytest.raises(SystemExit, match=r"gone\.h5: no such file"):
            reference.main([recipe, *given, *places])
    with pytest.raises(SystemExit, match=r"subjects also in .* give --people whom no stage trains"):
        reference.main([recipe, "--data", f"train={train}", "--people", str(train), *places])
    assert asked == []


def test_neither_paths_nor_digests_of_faces_are_published(tmp_path: Path) -> None:
    shown = {"/data/a b": "OTHER", "/data/a b.h5": "val.h5"}
    values = {"lr": 0.5, "file": "/data/a b.h5", "in": ["/data/a b/c"], "fingerprint": ["12ab"]}
    (tmp_path / "a.json").write_text(json.dumps({"data": values}))
    reference.write_public(tmp_path / "a.json", tmp_path / "b.json", shown)
    expected = {"lr": 0.5, "file": "val.h5", "in": ["OTHER/c"]}
    assert json.loads((tmp_path / "b.json").read_text()) == {"data": expected}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks/results").glob("*/*.json")))
def test_the_published_results_name_no_absolute_path(path: Path) -> None:
    assert re.findall(r'": "/[^"]*', path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks/recipes").glob("*.json")))
def test_every_setting_of_the_recipes_that_come_along_exists(path: Path) -> None:
    recipe = reference.read_recipe(path)
    training = {kind.model_name: kind for kind in TRAIN_CONFIGS}[recipe["net"]]
    for stage in recipe["stages"]:
        assert {*stage["data"]} <= {"train", "mixed", "open", "photographs", "wide", "made"}
        resolve(training, {**stage, "data": ["faces.h5"]})


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"net": "au", "stages": []}))
    with pytest.raises(SystemExit, match="an object with 'net' and 'stages'"):
        reference.main([str(recipe), "--data", "t=t.h5", "--people", "p.h5", "--run", "run"])


def test_a_recipe_with_a_hog_head_measures_the_net_that_has_it(
    files: dict[str, Path], tmp_path: Path
) -> None:
    faces, recipe = tmp_path / "train.h5", tmp_path / "hog.json"
    assert mlx_faceau(["data", "synth", "--output", str(faces), "--count", "240"]) == 0
    stage = {**STAGE, "epochs": 1, "auxiliary_weight": 4.0, "ema": 0.9}
    settings = {"net": "au", "stages": [stage, stage], "averaged": 2, "hog_head": "refit"}
    recipe.write_text(json.dumps(settings))
    places = ["--run", str(tmp_path / "run"), "--results", str(tmp_path / "results")]
    people = ["--people", str(files["people"]), "--backend", "torch"]
    assert reference.main([str(recipe), "--data", f"train={faces}", *people, *places]) == 0
    measured = json.loads((tmp_path / "results" / "evaluation.json").read_text())["model"]
    assert measured["file"] == "RUN/hog_head.safetensors"
    net = load_checkpoint(tmp_path / "run" / "hog_head.safetensors")
    assert measured["checkpoint"] == net.metadata["source_hash"]
    _, plain = with_hog_head(load_checkpoint(tmp_path / "run" / "averaged"))
    weights, same = net.weights(), "backbone.stem.conv.weight"
    assert np.array_equal(weights[same], plain[same])
    for head in ("geometry_head", "hog_head"):  # both were fitted once more
        name = f"{head}.layers.0.weight"
        assert np.abs(weights[name] - plain[name]).max() > 1e-4
    first, second, mean = (
        auxiliary_weights(load_checkpoint(tmp_path / "run" / name).arrays)
        for name in ("stage1", "stage2", "averaged")
    )
    for name, array in mean.items():
        np.testing.assert_allclose(array, (first[name] + second[name]) / 2, rtol=1e-5, atol=1e-6)
    assert any(np.abs(first[name] - second[name]).max() > 1e-4 for name in mean)


def test_a_recipe_s_last_stages_are_averaged(files: dict[str, Path], tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "averaged.json"
    stages = [{**STAGE, "epochs": 1, "ema": 0.9}, {**STAGE, "epochs": 1, "ema": 0.9}]
    recipe.write_text(json.dumps({"net": "au", "stages": stages, "averaged": 2}))
    command = [str(recipe), "--data", f"train={files['train']}", "--people", str(files["people"])]
    places = ["--run", str(run), "--results", str(tmp_path / "results"), "--backend", "torch"]
    assert reference.main([*command, *places]) == 0
    first, second, mean = (
        load_checkpoint(run / name).weights() for name in ("stage1", "stage2", "averaged")
    )
    for name, array in mean.items():
        np.testing.assert_allclose(array, (first[name] + second[name]) / 2, rtol=1e-5, atol=1e-6)
    assert any(np.abs(first[name] - second[name]).max() > 1e-4 for name in mean)
    measured = json.loads((tmp_path / "results" / "evaluation.json").read_text())["model"]
    assert measured["file"] == "RUN/averaged/checkpoint_best.safetensors"

    record = json.loads((tmp_path / "results" / "record.json").read_text())
    assert record["averaged_weights_sha256"] == file_hash(run / "averaged" / BEST_NAME)

    places[1] = str(tmp_path / "other")
    for averaged, last, problem in (
        (2, {}, "'averaged' needs 'ema'"),
        (3, {"ema": 0.9}, "'averaged' is 3, expected 1 to 2 stages"),
        (True, {"ema": 0.9}, "'averaged' is True, expected"),
    ):
        stages[1] = {**STAGE, "epochs": 1, **last}
        recipe.write_text(json.dumps({"net": "au", "stages": stages, "averaged": averaged}))
        with pytest.raises(SystemExit, match=problem):
            reference.main([*command, *places])
    stages[1] = {**STAGE, "epochs": 1, "ema": 0.9, "data": ["extra"]}
    recipe.write_text(json.dumps({"net": "au", "stages": stages, "averaged": 2}))
    command.insert(3, f"extra={files['extra']}")
    with pytest.raises(SystemExit, match=r"stage1: trained on other faces than .*stage2"):
        reference.main([*command, *places])
