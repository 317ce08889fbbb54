"""Functions named on the command line, found where their user stands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_faceau.core.user_function import load_function
from mlx_faceau.data.labels.labeller import CallableLabeller
from mlx_faceau.errors import FunctionError
from mlx_faceau.video.results import Frame

ASK = "from mlx_faceau.core.user_function import load_function as f; print(f('{}', 'labeller')())"


def asked(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """In a program that, as an installed command, does not look into the current folder."""
    command = [sys.executable, "-P", "-c", ASK.format(name)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_module_of_the_current_folder_is_found_and_hides_no_library(tmp_path: Path) -> None:
    (tmp_path / "mylabels.py").write_text("def label():\n    return 'mine'\n")
    (tmp_path / "json.py").write_text("def dumps():\n    return 'mine'\n")
    assert asked(tmp_path, "mylabels:label").stdout == "mine\n"
    assert "missing 1 required positional argument" in asked(tmp_path, "json:dumps").stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:label", "No module named 'no_such_module'"),
        ("json:no_such_function", "no attribute 'no_such_function'"),
        ("json:__name__", "not a function"),
        ("json", "has no attribute"),
        (":label", "Empty module name"),
    ],
)
def test_what_is_no_function_is_refused_with_the_option(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^labeller: .*{why}"):
        load_function(name, "labeller")


def test_a_module_that_fails_is_named_with_its_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "halfdone.py").write_text("limit = 3\nlabel = unknown\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = r"labeller x: NameError: name 'unknown' .*halfdone\.py, line 2"
    with pytest.raises(FunctionError, match=text) as caught:
        load_function("halfdone:label", "labeller x")
    assert type(caught.value.__cause__) is NameError


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (lambda image: {}["landmarks"], "KeyError: 'landmarks'"),
        (lambda image: [{"landmarks": np.zeros((68, 2))}], r"a labelled face: missing \["),
        (lambda image: [3], "TypeError: "),
        (lambda image: None, "TypeError: "),
    ],
    ids=["error", "lacking", "a number", "nothing"],
)
def test_a_labelling_function_is_named_whatever_it_does(label: Any, why: str) -> None:
    frame = Frame(0, 0.0, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FunctionError, match=rf"^labeller test_user_function:<lambda>: {why}"):
        CallableLabeller(label).begin(Path("a.mp4"))(frame)
