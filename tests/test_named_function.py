"""Functions named on the command line, found where their user stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_faceau.core.named_function import load_function

ASK = "from mlx_faceau.core.named_function import load_function as f; print(f('{}', 'labeller')())"


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
