"""The floors of the house, read from every file's imports (CONTRIBUTING.md draws them)."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

import mlx_faceau

FOLDERS = {
    "mlx_faceau": REPOSITORY / "mlx_faceau",
    "mlx_faceau.torch_fallback": REPOSITORY / "torch_fallback",
    "mlx_faceau.convert": REPOSITORY / "convert",
}
# From the ground up: a room imports from rooms below its own floor alone. "" is the package itself.
FLOORS = (
    {"errors"},
    {"core"},
    {"weights"},
    {"models", "torch_fallback"},
    {"convert"},
    {"inference"},
    {"video"},
    {"output"},
    {"data"},
    {"train"},
    {"evaluation"},
    {"cli"},
    {"", "__main__", "train_landmark_pose", "train_au_prediction"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Libraries that a room leaves to others.
FOREIGN = {
    "core": {"mlx", "torch", "coremltools", "onnx", "onnxruntime", "h5py", "matplotlib", "tqdm"},
    "models": {"torch"},
    "torch_fallback": {"mlx"},
    "convert": {"mlx"},
    "inference": {"h5py"},
    "train.loop": {"mlx", "torch"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


MODULES = dict(modules())


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement that may run: inside functions too, under ``TYPE_CHECKING`` not."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from statements(child)


def imports_of(name: str) -> set[str]:
    """Absolute names of everything a module imports."""
    path = MODULES[name]
    package = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    found = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = [*base, *([node.module] if node.module else [])]
            found |= {".".join([*target, alias.name]) for alias in node.names}
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return {name: imports_of(name) for name in MODULES}


def module_of(imported: str) -> str:
    """The module of ours that an imported name is, or is defined in."""
    return imported if imported in MODULES else imported.rpartition(".")[0]


@pytest.fixture(scope="module")
def graph(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    return {
        name: {module_of(imported) for imported in found} & MODULES.keys() - {name}
        for name, found in imports.items()
    }


def floor(name: str) -> int:
    return FLOOR[room(name)]


def room(name: str) -> str:
    return name.partition(".")[2].partition(".")[0]


def test_every_import_points_to_a_lower_floor(graph):
    up = {
        f"{name} imports {target}"
        for name, targets in graph.items()
        for target in targets
        if room(target) != room(name) and floor(target) >= floor(name)
    }
    assert not up


def test_no_files_import_each_other_in_a_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_rooms_leave_other_rooms_libraries_alone(imports):
    found = {
        f"{name} imports {imported}"
        for prefix, libraries in FOREIGN.items()
        for name, names in imports.items()
        if f"{name}.".startswith(f"mlx_faceau.{prefix}.")
        for imported in names
        if imported.partition(".")[0] in libraries
    }
    assert not found


def test_a_checkpoint_is_read_without_opencv():
    check = "import sys, mlx_faceau.core.checkpoint; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_top_level_names_of_the_folders_are_never_imported(imports):
    tops = {imported.partition(".")[0] for names in imports.values() for imported in names}
    assert not tops & {"convert", "torch_fallback"}


def test_the_package_list_names_every_folder_with_code():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = set(listed["tool"]["setuptools"]["packages"])
    assert packages == {name for name, path in MODULES.items() if path.name == "__init__.py"}


def test_the_walk_sees_imports_that_are_known_to_exist(imports):
    assert "mlx_faceau.errors.CheckpointError" in imports["mlx_faceau.core.checkpoint"]
    assert "torch" in imports["mlx_faceau.torch_fallback.layers"]


def test_type_checkers_find_every_public_name_where_it_is_loaded_from():
    tree = ast.parse((REPOSITORY / "mlx_faceau" / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname: f".{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == mlx_faceau._HOMES
