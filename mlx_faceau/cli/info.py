"""``mlx-faceau info``: what is installed, what can run here, and why the rest cannot."""

import argparse
import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_faceau.core.libraries import (
    OPENCV,
    broken,
    installed_version,
    opencv_conflict,
    package_version,
)
from mlx_faceau.errors import MissingDependency

LIBRARIES = (
    "numpy",
    *OPENCV,
    "av",
    "pillow",
    "pillow-heif",
    "safetensors",
    "mlx",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "coremltools",
    "h5py",
    "filelock",
    "matplotlib",
    "tqdm",
    "dlib-bin",
    "ai-edge-litert",
    "pyarrow",
    "tensorboardX",
    "shtab",
)
# Modules of compiled code beside the backends' libraries, which may be installed and not load.
_MODULES = ("cv2", "safetensors", "h5py", "matplotlib", "dlib", "pyarrow")
_WIDTH = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model files or folders, or builtin, to describe instead",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.models:
        models = {name: about for path in args.models for name, about in _described(path)}
        report: dict[str, Any] = {"models": models}
        lines = [
            line
            for name, about in models.items()
            for line in (name, *(f"  {key:16} {value}" for key, value in about.items()))
        ]
    else:
        report = installation()
        lines = list(_lines(report))
    print(json.dumps(report, indent=1) if args.json else "\n".join(lines))
    return 0


def _described(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and description of the net of a path, or of both nets of the built-in pair."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights.builtin import is_builtin

    from .model_metadata import read_builtin, read_description

    if is_builtin(path):
        for kind in CONFIGS:
            yield f"{path} {kind}", _about(path, read_builtin(kind))
    else:
        yield path, _about(path, read_description(Path(path)))


def _about(path: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Kind, width and origin of a model, and what runs it here and why not the others."""
    from mlx_faceau.core.provenance import pdm_of
    from mlx_faceau.errors import BackendError
    from mlx_faceau.inference.backends import choose, find_files, installed_libraries, this_machine

    keys = ("builtin", "kind", "model", "package_version", "crop", "color_order", "licence_note")
    about = {key: metadata[key] for key in keys if key in metadata}
    if pdm := pdm_of(metadata):
        about["pdm"] = f"{pdm['name']}, SHA-256 {pdm['hash'] or 'unknown'}"
    machine = this_machine()
    try:
        choice = choose(machine, find_files(path, metadata["kind"]), installed_libraries(machine))
    except BackendError as error:
        return {**about, "runs with": str(error)}
    over = {f"not with {name}": reason for name, reason in choice.passed_over}
    return {**about, "runs with": f"{choice.backend} ({choice.path.name})", **over}


def installation() -> dict[str, Any]:
    """Everything about this machine that decides what runs, as JSON values."""
    import platform

    from mlx_faceau.inference.backends import this_machine

    machine = this_machine()
    backends, problems = _states(machine)
    accelerators = ["Apple GPU (Metal)", "Neural Engine (Core ML)"] if machine.apple_silicon else []
    accelerators += ["NVIDIA GPU (CUDA)"] if machine.nvidia else []
    blas = None
    if installed_version("mlx") is not None:
        from mlx_faceau.core.blas import prepare

        blas = str(prepare())
    return {
        "mlx-faceau": package_version(),
        "python": platform.python_version(),
        "platform": f"{machine.system} {platform.release()} {machine.processor}",
        "cores": os.cpu_count(),
        "accelerators": accelerators,
        "backends": backends,
        "training": _training_states(backends, problems),
        "face detectors": _detector_states(machine.system, problems),
        "mlx blas": blas,
        "c++ compiler": shutil.which("g++") or shutil.which("c++") or shutil.which("clang++"),
        "libraries": {name: installed_version(name) for name in LIBRARIES},
        "problems": problems,
        "built-in pair": _builtin_state(),
    }


def _states(machine: Any) -> tuple[dict[str, str], dict[str, str]]:
    """For each backend "usable" and on what, or why not; and what is wrong with other libraries.

    What chooses backends decides first; then each library is loaded in a process of its own.
    """
    from mlx_faceau.errors import BackendError
    from mlx_faceau.inference.backends import BACKENDS, Files, choose, installed_libraries

    from .probe import probe

    libraries = installed_libraries(machine)
    states = {}
    for name in BACKENDS:
        try:
            choose(machine, Files({name: Path("any")}), libraries, name)
        except BackendError as error:
            states[name] = str(error).removeprefix(f"{BACKENDS[name].title}: ")
    asked = [name for name in BACKENDS if name not in states]
    answers = probe([*asked, *(name for name in _MODULES if find_spec(name) is not None)])
    for name in asked:
        loads, text = answers.pop(name)
        states[name] = (
            f"usable, sees {text}" if loads else str(broken(BACKENDS[name].library, text))
        )
    problems = {
        name: str(broken(name, text)) for name, (loads, text) in answers.items() if not loads
    }
    if conflict := opencv_conflict():
        problems.setdefault("cv2", str(conflict))
    return {name: states[name] for name in BACKENDS}, problems


def _training_states(backends: dict[str, str], problems: dict[str, str]) -> dict[str, str]:
    """For each framework "usable", or what it needs: itself, and what every training needs."""
    missing = [name for name in ("h5py", "filelock", "tqdm") if find_spec(name) is None]
    common = [str(MissingDependency(missing[0], extra="train"))] if missing else []
    common += [problems[name] for name in ("cv2", "h5py") if name in problems]
    own = {
        name: [] if backends[name].startswith("usable") else [backends[name]]
        for name in ("mlx", "torch")
    }
    return {name: "; ".join([*reasons, *common]) or "usable" for name, reasons in own.items()}


def _detector_states(system: str, problems: dict[str, str]) -> dict[str, str]:
    yunet = "needs its file: face_detection_yunet_*.onnx beside the landmark model"
    states = {"yunet": problems.get("cv2", yunet)}
    for name, module, there in (("vision", "Vision", system == "Darwin"), ("dlib", "dlib", True)):
        if not there:
            states[name] = "macOS only"
        elif find_spec(module) is None:
            states[name] = str(MissingDependency(module, extra="detect"))
        else:
            states[name] = problems.get("cv2") or problems.get(module, "usable")
    return states


def _builtin_state() -> str:
    """Name of the built-in pair, or what is wrong with it."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.errors import CheckpointError
    from mlx_faceau.weights import builtin

    try:
        for kind in CONFIGS:
            for path in (builtin.onnx_file(kind), builtin.checkpoint_file(kind)):
                builtin.check(path)
        return str(builtin.read_index()["name"])
    except CheckpointError as error:
        return str(error)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """One screen: what is installed first, then what is missing with its remedy."""
    machine = f"{report['platform']}, {report['cores']} cores"
    yield f"mlx-faceau {report['mlx-faceau']}, Python {report['python']}, {machine}"
    yield f"accelerators   {', '.join(report['accelerators']) or 'none found'}"
    yield f"MLX's BLAS     {report['mlx blas'] or 'MLX is not installed'}"
    compiler = report["c++ compiler"]
    yield f"C++ compiler   {compiler or 'none: mx.compile runs uncompiled on CPU'}"
    for title, key in (("predicting", "backends"), ("training", "training")):
        yield title
        yield from (f"  {name:8} {state}" for name, state in report[key].items())
    yield "face detectors"
    yield from (f"  {name:8} {state}" for name, state in report["face detectors"].items())
    libraries = report["libraries"]
    there = ", ".join(f"{name} {number}" for name, number in libraries.items() if number)
    yield from _wrapped("libraries", there)
    for name, text in report["problems"].items():
        yield from _wrapped(f"! {name}", text)
    absent = [name for name, number in libraries.items() if not number and name not in OPENCV[1:]]
    if absent:
        yield from _wrapped("not installed", ", ".join(absent))
    yield from _wrapped("built-in pair", report["built-in pair"])


def _wrapped(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{title:15}",
        subsequent_indent=" " * 15,
        break_on_hyphens=False,
    )
