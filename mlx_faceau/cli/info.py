"""``mlx-faceau info``: what is installed, what can run here, and why the rest cannot."""

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from mlx_faceau.core.atomic_io import json_text
from mlx_faceau.core.libraries import (
    OPENCV,
    broken,
    installed_version,
    opencv_conflict,
    package_version,
)
from mlx_faceau.errors import BackendError, CheckpointError, MissingDependency

LIBRARIES = (
    "numpy", *OPENCV, "av", "pillow", "pillow-heif", "safetensors", "mlx", "torch", "onnx",
    "onnxruntime", "onnxruntime-gpu", "coremltools", "h5py", "filelock", "jinja2", "matplotlib",
    "tqdm", "dlib-bin", "ai-edge-litert", "pyarrow", "tensorboardX", "shtab",
)  # fmt: skip
# Modules of compiled code beside the backends' libraries, which may be installed and not load.
_MODULES = ("cv2", "av", "PIL", "safetensors", "h5py", "matplotlib", "dlib", "Vision", "pyarrow")
# What a fresh interpreter runs: for a backend it prints what that would compute on, of another
# library it only imports the module.
_PROBES = {
    "coreml": "import coremltools; print('Core ML')",
    "mlx": "import mlx.core as mx; print(mx.default_device().type.name)",
    "onnx": "import onnxruntime as o; print(', '.join(sorted("
    "p.removesuffix('ExecutionProvider') for p in o.get_available_providers() "
    "if p != 'AzureExecutionProvider')))",  # that one calls models over the network
    "torch": "import torch; print('cuda' if torch.cuda.is_available() else "
    "'mps' if torch.backends.mps.is_available() else 'cpu')",
}
_PROBE_SECONDS = 60  # a first import from a slow disk may take long
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
        report = {"models": {name: about for path in args.models for name, about in _models(path)}}
        lines = [
            line
            for name, about in report["models"].items()
            for line in (name, *(f"  {key:16} {_text(value)}" for key, value in about.items()))
        ]
    else:
        report = installation()
        lines = list(_lines(report))
    print(json_text(report) if args.json else "\n".join(lines))
    return 0


def _models(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and description of each net of a path: kind, width, origin, and what runs it here."""
    from mlx_faceau.core.artifact_metadata import net_metadata
    from mlx_faceau.core.provenance import pdm_of
    from mlx_faceau.inference.backends import choice

    from .model_metadata import read_models

    machine = choice.this_machine()
    models = [
        net_metadata(metadata, kind)
        for metadata in read_models(path)
        for kind in metadata.get("nets") or [metadata["kind"]]
    ]
    keys = ("builtin", "kind", "model", "refitted", "package_version", "crop", "color_order")
    for metadata in models:
        about = {key: metadata[key] for key in (*keys, "licence_note") if key in metadata}
        if pdm := pdm_of(metadata):
            about["pdm"] = f"{pdm['name']}, SHA-256 {pdm['hash'] or 'unknown'}"
        files = choice.find_files(path, metadata["kind"])
        try:
            taken = choice.choose(machine, files, choice.installed_libraries(machine))
            about["runs with"] = f"{taken.backend} ({taken.path.name})"
            about |= {f"not with {name}": reason for name, reason in taken.passed_over}
        except BackendError as error:
            about["runs with"] = str(error)
        yield path if len(models) == 1 else f"{path} {metadata['kind']}", about


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value


def installation() -> dict[str, Any]:
    """Everything about this machine that decides what runs, as JSON values."""
    import platform

    from mlx_faceau.inference.backends.choice import this_machine

    machine = this_machine()
    backends, problems = _backend_states(machine)
    accelerators = ["Apple GPU (Metal)", "Neural Engine (Core ML)"] if machine.apple_silicon else []
    accelerators += ["NVIDIA GPU (CUDA)"] if machine.nvidia else []
    blas = None
    if installed_version("mlx") is not None:
        from mlx_faceau.core.blas import prepare

        blas = prepare()
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


def _backend_states(machine: Any) -> tuple[dict[str, str], dict[str, str]]:
    """For each backend "usable" and on what, or why not; and what is wrong with other libraries.

    What chooses backends decides first; then each library is loaded in a process of its own.
    """
    from mlx_faceau.inference.backends.choice import BACKENDS, installed_libraries, obstacle

    libraries = installed_libraries(machine)
    states = {name: reason for name in BACKENDS if (reason := obstacle(name, machine, libraries))}
    modules = [name for name in _MODULES if find_spec(name) is not None]
    found = probe([*(name for name in BACKENDS if name not in states), *modules])
    for name in BACKENDS.keys() - states.keys():
        loads, text = found[name]
        library = BACKENDS[name].library
        states[name] = f"usable, sees {text}" if loads else str(broken(library, text))
    problems = {name: str(broken(name, found[name][1])) for name in modules if not found[name][0]}
    if conflict := opencv_conflict():
        problems.setdefault("cv2", str(conflict))
    return {name: states[name] for name in BACKENDS}, problems


def probe(names: Iterable[str]) -> dict[str, tuple[bool, str]]:
    """Whether each backend's library or module loads, and what it sees, or why it does not load.

    Each is loaded in a process of its own, all at the same time: a wheel for another machine may
    end it, by instructions that this processor lacks.
    """
    names = list(names)
    with ThreadPoolExecutor(len(names) or 1) as pool:
        return dict(zip(names, pool.map(_probe, names), strict=True))


def _probe(name: str) -> tuple[bool, str]:
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _PROBES.get(name, f"import {name}")],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {_PROBE_SECONDS} s"
    status = ended.returncode
    lines = (ended.stderr if status else ended.stdout).strip().splitlines()
    return not status, lines[-1] if lines else f"its process ended with status {status}"


def _training_states(backends: dict[str, str], problems: dict[str, str]) -> dict[str, str]:
    """For each framework "usable", or what it needs: itself, and what every training needs."""
    missing = [name for name in ("h5py", "filelock", "tqdm") if find_spec(name) is None]
    common = [str(MissingDependency(missing[0], extra="train"))] if missing else []
    common += [problems[name] for name in ("cv2", "h5py") if name in problems]
    states = {}
    for name in ("mlx", "torch"):
        own = [] if backends[name].startswith("usable") else [backends[name]]
        states[name] = "; ".join([*own, *common]) or "usable"
    return states


def _detector_states(system: str, problems: dict[str, str]) -> dict[str, str]:
    yunet = "needs its file: face_detection_yunet_*.onnx beside the landmark model"
    states = {"yunet": problems.get("cv2", yunet), "vision": "macOS only"}
    for name, module in (("vision", "Vision"), ("dlib", "dlib")):
        if name == "vision" and system != "Darwin":
            continue
        if find_spec(module) is None:
            by_hand = name == "dlib" and system == "Darwin"  # where the extra brings Vision
            missing = MissingDependency("dlib-bin") if by_hand else None
            states[name] = str(missing or MissingDependency(module, extra="detect"))
        else:
            states[name] = problems.get("cv2") or problems.get(module, "usable")
    return states


def _builtin_state() -> str:
    """Name of the built-in pair, or what is wrong with it."""
    from mlx_faceau.weights import builtin

    try:
        index = builtin.read_index()
        for name in index["files"]:
            builtin.check(builtin.FOLDER / name)
        return str(index["name"])
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
    sections = {"predicting": "backends", "training": "training", "face detectors": None}
    for title, key in sections.items():
        yield title
        yield from (f"  {name:8} {state}" for name, state in report[key or title].items())
    libraries = report["libraries"]
    versions = ", ".join(f"{name} {number}" for name, number in libraries.items() if number)
    missing = [name for name, number in libraries.items() if not number and name not in OPENCV[1:]]
    paragraphs = {
        "libraries": versions,
        **{f"! {name}": text for name, text in report["problems"].items()},
        "not installed": ", ".join(missing),
        "built-in pair": report["built-in pair"],
    }
    for title, text in paragraphs.items():
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"{title:15}",
            subsequent_indent=" " * 15,
            break_on_hyphens=False,
        )
