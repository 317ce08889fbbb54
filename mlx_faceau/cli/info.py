"""``mlx-faceau info``: what is installed, what can run here, and why the rest cannot."""

import argparse
import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HELP = "show the platform, libraries, usable backends and settings of this machine"
LIBRARIES = (
    "numpy",
    "opencv-python",
    "safetensors",
    "mlx",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "coremltools",
    "h5py",
    "matplotlib",
    "tqdm",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="model files to describe")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    report = installation()
    if args.models:
        report["models"] = {path: describe_model(path) for path in args.models}
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(_lines(report)))
    return 0


def installation() -> dict[str, Any]:
    """Everything about this machine that decides what runs, as JSON values."""
    from mlx_faceau import __version__
    from mlx_faceau.backends import BACKENDS, installed_libraries, this_machine

    machine = this_machine()
    libraries = installed_libraries(machine)
    return {
        "mlx-faceau": __version__,
        "python": platform.python_version(),
        "platform": f"{machine.system} {platform.release()} {machine.processor}",
        "accelerators": _accelerators(machine.apple_silicon, machine.nvidia),
        "backends": {name: _backend_state(name, machine, libraries) for name in BACKENDS},
        "mlx blas": _blas(),
        "c++ compiler": shutil.which("g++") or shutil.which("c++") or shutil.which("clang++"),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _backend_state(name: str, machine: Any, libraries: dict[str, str | None]) -> str:
    """ "usable", or why not; asked of the same function that chooses."""
    from mlx_faceau.backends import Files, choose
    from mlx_faceau.errors import BackendError

    try:
        choose(machine, Files({name: Path("any")}), libraries, name)
    except BackendError as error:
        return str(error)
    return "usable"


def _accelerators(apple_silicon: bool, nvidia: bool) -> list[str]:
    found = ["Apple GPU (Metal)", "Neural Engine (Core ML)"] if apple_silicon else []
    return [*found, "NVIDIA GPU (CUDA)"] if nvidia else found


def _blas() -> str | None:
    if _version("mlx") is None:
        return None
    from mlx_faceau.blas import status

    return str(status())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_model(path: str) -> dict[str, Any]:
    """Kind, width and origin of a model, from what its file says about itself.

    Raises:
        CheckpointError: if there is no model, or it does not say.
    """
    from .evaluate import read_description

    metadata = read_description(Path(path))
    keys = ("kind", "model", "package_version", "crop", "color_order", "licence_note")
    return {key: metadata[key] for key in keys if key in metadata}


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"mlx-faceau {report['mlx-faceau']}, Python {report['python']}, {report['platform']}",
        f"accelerators   {', '.join(report['accelerators']) or 'none found'}",
        f"MLX's BLAS     {report['mlx blas'] or 'MLX is not installed'}",
        f"C++ compiler   {report['c++ compiler'] or 'none: mx.compile runs uncompiled on CPU'}",
        "backends",
        *(f"  {name:8} {state}" for name, state in report["backends"].items()),
        "libraries",
        *(f"  {name:16} {number or '-'}" for name, number in report["libraries"].items()),
    ]
    for path, about in report.get("models", {}).items():
        lines.append(path)
        lines += [f"  {key:16} {value}" for key, value in about.items()]
    return lines
