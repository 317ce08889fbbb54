"""One command reproduces every figure: it knows every script and what each needs."""

import sys
from pathlib import Path

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from reproduce import HERE as FOLDER
from reproduce import INPUTS, SCRIPTS, command_of

# What runs the others, needs a GPU, explores a recipe, or makes training faces.
OTHERS = {"reproduce.py", "cuda_formats.py", "ablation.py", "make_expressions.py"}


def test_every_script_with_figures_is_run():
    runnable = {
        path.name for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()
    }
    named = {line.split()[0] for line in SCRIPTS}
    assert named == runnable - OTHERS - {"worker.py", "fault_jobs.py"}


def test_every_script_takes_the_words_it_is_given():
    for line in SCRIPTS:
        words, lacking = command_of(line, dict.fromkeys(INPUTS, "x"))
        assert lacking == []
        known = (FOLDER / words[0]).read_text()
        unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in known]
        assert unknown == []


def test_the_recipes_are_found_from_any_folder():
    given = dict.fromkeys(INPUTS, "x")
    recipes = [command_of(line, given)[0][1] for line in SCRIPTS if "{here}" in line]
    assert [Path(path).exists() for path in recipes] == [True] * 4


def test_a_script_without_its_input_is_left_out():
    given = dict.fromkeys(INPUTS) | {"train": "t.h5"}
    assert command_of("label_noise.py {train} {val}", given) == ([], ["val"])
    assert command_of("latency.py", given) == (["latency.py"], [])
