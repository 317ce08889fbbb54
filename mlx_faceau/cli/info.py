"""``mlx-faceau info``: what is installed, what can run here, and why the rest cannot."""

import argparse
import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_faceau.core.libraries import OPENCV, broken, installed_version, opencv_conflict

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
_MOST_MODELS = 6


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
        models = {k: v for path in args.models for k, v in _described(path).items()}
        report: dict[str, Any] = {"models": models}
        lines = [line for path, about in models.items() for line in _model_lines(path, about)]
    else:
        report = installation()
        lines = list(_lines(report))
    print(json.dumps(report, indent=1) if args.json else "\n".join(lines))
    return 0


def _described(path: str) -> dict[str, dict[str, Any]]:
    """The nets of a path: one, or the two of the built-in pair."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights.builtin import is_builtin

    from .model_metadata import read_builtin

    if not is_builtin(path):
        return {path: describe_model(path)}
    return {f"{path} {kind}": _about(path, read_builtin(kind)) for kind in CONFIGS}


def installation() -> dict[str, Any]:
    """Everything about this machine that decides what runs, as JSON values."""
    import platform

    from mlx_faceau.core.libraries import package_version
    from mlx_faceau.inference.backends import this_machine

    machine = this_machine()
    backends, problems = _states(machine)
    return {
        "mlx-faceau": package_version(),
        "python": platform.python_version(),
        "platform": f"{machine.system} {platform.release()} {machine.processor}",
        "cores": os.cpu_count(),
        "accelerators": _accelerators(machine.apple_silicon, machine.nvidia),
        "backends": backends,
        "training": _training_states(backends, problems),
        "face detectors": _detector_states(machine.system, problems),
        "mlx blas": _blas(),
        "c++ compiler": shutil.which("g++") or shutil.which("c++") or shutil.which("clang++"),
        "libraries": {name: installed_version(name) for name in LIBRARIES},
        "problems": problems,
        "built-in pair": _builtin_state(),
        "models here": {str(path): _short(path) for path in _models_below(Path())},
    }


def _states(machine: Any) -> tuple[dict[str, str], dict[str, str]]:
    """For each backend "usable" and on what, or why not; and what ails which other library.

    Asked of what chooses backends, then of the libraries.
    """
    from importlib.util import find_spec

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
    from importlib.util import find_spec

    from mlx_faceau.errors import MissingDependency

    missing = [name for name in ("h5py", "filelock", "tqdm") if find_spec(name) is None]
    common = [str(MissingDependency(missing[0], extra="train"))] if missing else []
    common += [problems[name] for name in ("cv2", "h5py") if name in problems]
    own = {
        name: [] if backends[name].startswith("usable") else [backends[name]]
        for name in ("mlx", "torch")
    }
    return {name: "; ".join([*reasons, *common]) or "usable" for name, reasons in own.items()}


def _detector_states(system: str, problems: dict[str, str]) -> dict[str, str]:
    from importlib.util import find_spec

    from mlx_faceau.errors import MissingDependency

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


def _accelerators(apple_silicon: bool, nvidia: bool) -> list[str]:
    found = ["Apple GPU (Metal)", "Neural Engine (Core ML)"] if apple_silicon else []
    return [*found, "NVIDIA GPU (CUDA)"] if nvidia else found


def _blas() -> str | None:
    if installed_version("mlx") is None:
        return None
    from mlx_faceau.core.blas import status

    return str(status())


def _models_below(folder: Path) -> list[Path]:
    """Folders with a checkpoint or an exported net, at most two below, in order."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX
    from mlx_faceau.core.checkpoint import BEST_NAME

    names = {
        BEST_NAME,
        *(f"{kind}{end}" for kind in CONFIGS for end in (ONNX_SUFFIX, COREML_SUFFIX)),
    }
    found = {
        path.parent
        for depth in ("", "*/", "*/*/")
        for path in folder.glob(f"{depth}*")
        if path.name in names
    }
    return sorted(found)


def _short(path: Path) -> str:
    """One clause about a model, or what is wrong with it."""
    from mlx_faceau.errors import FaceauError

    try:
        about = describe_model(str(path))
    except FaceauError as error:
        return str(error)
    width = about.get("model", {}).get("width_mult", "unknown")
    return f"{about['kind']}, width {width}, {about['runs with']}"


def describe_model(path: str) -> dict[str, Any]:
    """Kind, width, origin of a model, and what would run it, from what its file says about itself.

    Raises:
        CheckpointError: if there is no model, or it does not say.
    """
    from .model_metadata import read_description

    return _about(path, read_description(Path(path)))


def _about(path: str, metadata: dict[str, Any]) -> dict[str, Any]:
    from mlx_faceau.core.provenance import pdm_of

    keys = ("builtin", "kind", "model", "package_version", "crop", "color_order", "licence_note")
    about = {key: metadata[key] for key in keys if key in metadata}
    if pdm := pdm_of(metadata):
        about["pdm"] = f"{pdm['name']}, SHA-256 {pdm['hash'] or 'unknown'}"
    return about | _choice(path, metadata["kind"])


def _choice(path: str, kind: str) -> dict[str, str]:
    """The backend that ``auto`` takes for a model here, and why not those before it."""
    from mlx_faceau.errors import BackendError
    from mlx_faceau.inference.backends import choose, find_files, installed_libraries, this_machine

    machine = this_machine()
    try:
        choice = choose(machine, find_files(path, kind), installed_libraries(machine))
    except BackendError as error:
        return {"runs with": str(error)}
    over = {f"not with {name}": reason for name, reason in choice.passed_over}
    return {"runs with": f"{choice.backend} ({choice.path.name})", **over}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """One screen: what is there first, what is missing with its remedy below it."""
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
        yield from _wrapped("not there", ", ".join(absent))
    yield from _wrapped("built-in pair", report["built-in pair"])
    yield from _found_lines(report["models here"])


def _found_lines(models: dict[str, str]) -> Iterator[str]:
    if not models:
        yield "models         none of your own here or in two levels of folders below"
        return
    yield "models"
    shown = list(models.items())[:_MOST_MODELS]
    yield from (f"  {path}: {about}" for path, about in shown)
    if len(models) > len(shown):
        yield f"  and {len(models) - len(shown)} more"


def _wrapped(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{title:15}",
        subsequent_indent=" " * 15,
        break_on_hyphens=False,
    )


def _model_lines(path: str, about: dict[str, Any]) -> list[str]:
    return [path, *(f"  {key:16} {value}" for key, value in about.items())]
