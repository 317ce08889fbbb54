"""The wheel and the source archive: everything needed is in them, nothing else, and they run."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytest.importorskip("build")

FOLDERS = {"mlx_faceau": "", "convert": "mlx_faceau/", "torch_fallback": "mlx_faceau/"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both, built from a copy: setuptools writes into the tree it builds."""
    tree, target = tmp_path_factory.mktemp("tree") / "source", tmp_path_factory.mktemp("dist")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        FOLDERS[folder] + path.relative_to(REPOSITORY).as_posix()
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {Path(name).suffix for name in names} <= {
        ".py",
        ".typed",
        ".html",
        ".css",
        ".js",
        ".txt",
    }


def test_the_archive_builds_without_the_repository(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = file.getnames()
    for end in ("/pyproject.toml", "/LICENSE", "/convert/check.py", "/mlx_faceau/cli/main.py"):
        assert sum(name.endswith(end) for name in names) == 1


def test_an_installed_wheel_predicts_and_tells_about_itself(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    command = [*install, "--target", str(tmp_path), str(wheel)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import mlx_faceau, mlx_faceau.convert.pyfaceau_names, mlx_faceau.torch_fallback
from mlx_faceau.cli.main import main
assert mlx_faceau.__file__.startswith(sys.argv[1]), mlx_faceau.__file__
sys.exit(main(["convert", "none.pt", "--output", "a.safetensors"]))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("mlx-faceau: none.pt: ")
