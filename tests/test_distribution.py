"""The wheel and the source archive: everything needed is in them, nothing else, and they run."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution, distributions, files
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mlx_faceau.core.architectures import CONFIGS

pytest.importorskip("build")

WEIGHTS = "mlx_faceau/weights/"
BESIDE = ("CHANGELOG.md", "constraints.txt")
FOLDERS = {"mlx_faceau": "", "convert": "mlx_faceau/", "torch_fallback": "mlx_faceau/"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the source, since setuptools writes into the tree it builds."""
    tree = tmp_path_factory.mktemp("tree") / "source"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", *BESIDE):
        shutil.copy(REPOSITORY / name, tree)
    (tree / "tests").mkdir()
    shutil.copy(__file__, tree / "tests")
    return tree


@pytest.fixture(scope="module")
def built(tmp_path_factory, tree) -> Path:
    """A folder with the archive, and the wheel that was built from it."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stdout + done.stderr
    return target


def test_the_wheel_holds_the_package_and_nothing_else(built, tree):
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        FOLDERS[folder] + path.relative_to(tree).as_posix()
        for folder in FOLDERS
        for path in (tree / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    code = {name for name in names if not name.startswith(WEIGHTS)}
    assert {Path(name).suffix for name in code} <= {".py", ".typed", ".html", ".md"}
    assert {Path(name).name for name in names - code} >= {
        *(f"{kind}{end}" for kind in CONFIGS for end in (".onnx", ".safetensors")),
        *("builtin.json", "open_pdm.txt", "MODEL_CARD.md", "LICENSE"),
        *("NOTICE-ICT-FaceKit.txt", "NOTICE-MediaPipe.txt"),
    }
    assert wheel.stat().st_size < 60e6


def test_the_archive_builds_without_the_repository(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = file.getnames()
    (root,) = {name.split("/")[0] for name in names}
    code = ("convert/check.py", "mlx_faceau/cli/main.py")
    for name in ("pyproject.toml", "README.md", "LICENSE", *BESIDE, *code):
        assert f"{root}/{name}" in names
    assert not [name for name in names if name.startswith(f"{root}/tests")]


def test_no_upload_while_the_readme_has_relative_links():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    links = re.findall(r"\]\((?!https:|#)", (REPOSITORY / "README.md").read_text("utf-8"))
    assert ("Private :: Do Not Upload" in project["classifiers"]) == bool(links)


def test_an_installed_wheel_predicts_and_tells_about_itself(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    command = [*install, "--target", str(tmp_path), str(wheel)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    code = """
import sys
from importlib.util import find_spec
sys.path.insert(0, sys.argv[1])
import mlx_faceau, mlx_faceau.convert.variants
from mlx_faceau.cli.main import main
for origin in (mlx_faceau.__file__, find_spec("mlx_faceau.torch_fallback").origin):
    assert origin.startswith(sys.argv[1]), origin
sys.exit(main(["convert", "none.pt", "--output", "a.safetensors"]))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("mlx-faceau: none.pt: ")


BARE = """
import pathlib, socket, sys

def unplugged(*_, **__):
    raise OSError("the network is off")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = unplugged
sys.path[:0] = sys.argv[1:]

import cv2, numpy
import mlx_faceau
from mlx_faceau.cli.main import main

assert mlx_faceau.__file__.startswith(sys.argv[1]), mlx_faceau.__file__
image = numpy.random.default_rng(0).integers(0, 256, (240, 320, 3), numpy.uint8)
cv2.imwrite("crop.png", image[:112, :112])
assert main(["predict", "--aligned", "crop.png", "--output", "crop.json"]) == 0
pipeline = mlx_faceau.FacePipeline(detector=lambda frame: [(90, 60, 100, 100)])
(face,) = pipeline.image(image).faces
assert face.landmarks.shape == (68, 2) and face.au_intensities.shape == (17,)
print(pipeline.describe()["landmark_model"]["model"]["name"])
for name in ("landmark_pose.onnx", "au_prediction.onnx"):
    path = pathlib.Path(mlx_faceau.__file__).parent / "weights" / name
    path.rename(path.with_suffix(".lost"))
    assert main(["predict", "--aligned", "crop.png"]) == 2
    path.with_suffix(".lost").rename(path)
"""


def test_numpy_opencv_and_onnxruntime_predict_from_the_installed_wheel_alone(built, tmp_path):
    pytest.importorskip("onnxruntime")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    opencv = {"opencv-python", "opencv-python-headless"} & {d.name for d in distributions()}
    (tmp_path / "libraries").mkdir()
    for name in ("numpy", "onnxruntime", *opencv):
        top = {path.parts[0] for path in files(name) or () if path.parts[0] != ".."}
        for part in top - {"__pycache__"}:
            (tmp_path / "libraries" / part).symlink_to(distribution(name).locate_file(part))
    (tmp_path / "work").mkdir()
    bare = [sys.executable, "-I", "-S", "-c", BARE]  # no other library is found
    done = subprocess.run(
        [*bare, str(tmp_path / "site"), str(tmp_path / "libraries")],
        capture_output=True,
        text=True,
        cwd=tmp_path / "work",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 crop -> crop.json, crop.run.json", "builtin-1"]
    lost = [line for line in done.stderr.splitlines() if "missing from the built-in pair" in line]
    assert len(lost) == 2
    (rows,) = json.loads((tmp_path / "work" / "crop.json").read_text())
    assert len(rows["au_intensities"]) == 17
