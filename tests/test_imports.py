"""The arrows between folders, read from every file's imports (CONTRIBUTING.md draws them)."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

FOLDERS = {
    "mlx_faceau": REPOSITORY / "mlx_faceau",
    "mlx_faceau.torch_fallback": REPOSITORY / "torch_fallback",
    "mlx_faceau.convert": REPOSITORY / "convert",
}
HEAVY = {
    "mlx",
    "torch",
    "coremltools",
    "onnx",
    "onnxruntime",
    "h5py",
    "matplotlib",
    "tqdm",
    "filelock",
}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            yield name, path


MODULES = dict(modules())


def imports_of(name: str) -> set[str]:
    """Absolute names of everything a module imports, at the top or inside functions."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            target = [*(base if node.level else []), *([node.module] if node.module else [])]
            found |= {".".join([*target, alias.name]) for alias in node.names}
    return found


def offences(importers: list[str], forbidden: list[str]) -> list[str]:
    return [
        f"{name} imports {target}"
        for name in MODULES
        if any(covers(prefix, name) for prefix in importers)
        for target in sorted(imports_of(name))
        if any(covers(prefix, target) for prefix in forbidden)
    ]


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize(
    ("importers", "forbidden"),
    [
        (["mlx_faceau.models"], ["mlx_faceau.torch_fallback", "torch"]),
        (["mlx_faceau.torch_fallback"], ["mlx_faceau.models", "mlx"]),
        (["mlx_faceau.convert"], ["mlx_faceau.models", "mlx"]),
        (["mlx_faceau.train.loop"], ["mlx", "torch", "mlx_faceau.models"]),
        (["mlx_faceau.train.loop"], ["mlx_faceau.torch_fallback"]),
        (
            ["mlx_faceau.inference.backends", "mlx_faceau.inference.predictor"],
            ["mlx_faceau.data", "h5py"],
        ),
        (["mlx_faceau.inference.backends", "mlx_faceau.inference.predictor"], ["mlx_faceau.train"]),
    ],
)
def test_forbidden_arrows_do_not_exist(importers: list[str], forbidden: list[str]) -> None:
    assert offences(importers, forbidden) == []


def test_the_core_imports_numpy_and_itself_alone() -> None:
    names = ["mlx_faceau.core", "mlx_faceau.errors"]
    others = [
        name
        for name in MODULES
        if name.startswith("mlx_faceau.") and not any(covers(room, name) for room in names)
    ]
    allowed = {
        "mlx_faceau.core.blas imports mlx.core",  # to set its cache, once it is loaded
        "mlx_faceau.core.file_lock imports filelock.FileLock",  # a file about that library
        "mlx_faceau.core.file_lock imports filelock.Timeout",
        "mlx_faceau.core.preprocess imports cv2",  # to swap colours, and only then
    }
    assert set(offences(names, [*others, *HEAVY, "cv2"])) == allowed


def test_a_checkpoint_is_read_without_opencv() -> None:
    check = "import sys, mlx_faceau.core.checkpoint; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_backends_reach_converters_only_to_open_an_original_pt_file() -> None:
    found = offences(
        ["mlx_faceau.inference.backends", "mlx_faceau.inference.predictor"], ["mlx_faceau.convert"]
    )
    assert all(
        line.startswith(
            "mlx_faceau.inference.backends.torch_backend imports mlx_faceau.convert.pyfaceau"
        )
        for line in found
    )


def test_only_the_command_line_imports_the_command_line() -> None:
    importers = [name for name in MODULES if not covers("mlx_faceau.cli", name)]
    allowed = {"mlx_faceau.__main__"}
    entry_points = {"mlx_faceau.train_landmark_pose", "mlx_faceau.train_au_prediction"}
    assert [
        line
        for line in offences(importers, ["mlx_faceau.cli"])
        if line.split()[0] not in allowed | entry_points and "mlx_faceau.cli" not in line.split()[0]
    ] == []


def test_top_level_names_of_the_folders_are_never_imported() -> None:
    assert offences([*FOLDERS], ["convert", "torch_fallback"]) == []


def test_the_package_list_names_every_folder_with_code() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = set(listed["tool"]["setuptools"]["packages"])
    assert packages == {name for name, path in MODULES.items() if path.name == "__init__.py"}


def test_modules_are_read_with_their_real_names() -> None:
    """The walk itself: it sees imports that are known to exist."""
    assert "mlx_faceau.errors.CheckpointError" in imports_of("mlx_faceau.core.checkpoint")
    assert "torch" in imports_of("mlx_faceau.torch_fallback.layers")
