"""The table of backends, what each would open of a model, and the choice among them.

Nothing here imports a backend's library. :func:`choose` depends on its arguments only, so that
tests cover its whole truth table.
"""

import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.core.artifact_metadata import (
    COMBINED,
    COREML_SUFFIX,
    ONNX_SUFFIX,
    read_exported_metadata,
)
from mlx_faceau.core.checkpoint import BEST_NAME, WEIGHTS_SUFFIX, file_hash, read_metadata
from mlx_faceau.core.libraries import installed_version
from mlx_faceau.errors import BackendError, CheckpointError, MissingDependency, UsageError
from mlx_faceau.weights import builtin

AUTO = "auto"
_LOADERS = {
    "landmark_pose": "load_predictor, or name it with --landmark-model",
    "au_prediction": "load_au_predictor, or name it with --au-model",
}


@dataclass(frozen=True)
class BackendInfo:
    """What one backend needs: a library, and a file of one of these endings."""

    name: str
    title: str
    library: str
    suffixes: tuple[str, ...]
    class_name: str  # in the module <name>_backend


BACKENDS = {
    info.name: info
    for info in (
        BackendInfo("coreml", "Core ML", "coremltools", (COREML_SUFFIX,), "CoreMLBackend"),
        BackendInfo("mlx", "MLX", "mlx", (".safetensors",), "MLXBackend"),
        BackendInfo("onnx", "ONNX Runtime", "onnxruntime", (ONNX_SUFFIX,), "ONNXBackend"),
        BackendInfo("torch", "PyTorch", "torch", (".safetensors", ".pt"), "TorchBackend"),
    )
}


@dataclass(frozen=True)
class Machine:
    """Platform facts that the choice depends on."""

    system: str  # "Darwin", "Linux" or "Windows"
    processor: str  # "arm64", "x86_64", ...
    nvidia: bool = False  # an NVIDIA GPU is there
    cuda_libraries: frozenset[str] = frozenset()  # libraries installed in their CUDA build

    @property
    def apple_silicon(self) -> bool:
        return self.system == "Darwin" and self.processor == "arm64"


class Damaged(str):
    """Why a file that is there is passed over: none of ours is so."""

    __slots__ = ()


# By backend the file of a model that it would open, or why it would open none.
Files = Mapping[str, Path | str]


@dataclass(frozen=True)
class Choice:
    """The backend that is taken, its file, and why those before it were passed over."""

    backend: str
    path: Path
    passed_over: tuple[tuple[str, str], ...] = ()


def auto_order(machine: Machine, prefer_coreml: bool = True) -> tuple[str, ...]:
    """Backends of ``auto`` on a machine, best first.

    With an NVIDIA GPU a runtime that can use it comes before one that cannot.
    """
    if machine.apple_silicon:
        rest = ("mlx", "onnx", "torch")
        return ("coreml", *rest) if prefer_coreml else (*rest, "coreml")
    if machine.system == "Darwin":
        return ("onnx", "torch")
    runtimes = ["onnx", "torch"]
    if machine.nvidia:
        runtimes.sort(key=lambda name: BACKENDS[name].library not in machine.cuda_libraries)
    return (*runtimes, "mlx")


def choose(
    machine: Machine,
    files: Files,
    libraries: Mapping[str, str | None],
    requested: str | None = None,
    prefer_coreml: bool = True,
) -> Choice:
    """Pick the backend that runs a model: the requested one, or the first of ``auto`` that can.

    ``libraries`` say for each backend why its library cannot be used, None where it can.
    BackendError has cause and remedy where nothing can run.
    """
    if requested is not None and requested not in (AUTO, *BACKENDS):
        names = ", ".join([AUTO, *BACKENDS])
        raise UsageError(f"unknown backend {requested!r}, expected one of {names}")
    automatic = requested is None or requested == AUTO
    order = auto_order(machine, prefer_coreml) if automatic else (str(requested),)
    passed_over: list[tuple[str, str]] = []
    for name in order:
        found = obstacle(name, machine, libraries) or files.get(name, "no file that it reads")
        if isinstance(found, Path):
            return Choice(name, found, tuple(passed_over))
        passed_over.append((name, found))
    reasons = "; ".join(f"{BACKENDS[name].title}: {reason}" for name, reason in passed_over)
    raise BackendError(f"no backend can run this model here: {reasons}" if automatic else reasons)


def obstacle(name: str, machine: Machine, libraries: Mapping[str, str | None]) -> str | None:
    """Why a backend cannot run whatever the file, by platform, then library; None if it can."""
    if name == "coreml" and machine.system != "Darwin":
        return f"predicts on macOS only, this is {machine.system}; use the .onnx file here"
    if name == "mlx" and machine.system == "Darwin" and not machine.apple_silicon:
        return "has no build for Intel Macs; use the .onnx file here"
    return libraries.get(name)


def this_machine() -> Machine:
    """Platform facts of the computer this runs on."""
    driver = Path("/proc/driver/nvidia/version")
    cuda_libraries = {"onnxruntime"} if installed_version("onnxruntime-gpu") else set()
    if (torch := installed_version("torch")) and "+cpu" not in torch:
        cuda_libraries.add("torch")
    return Machine(
        system=platform.system(),
        processor=platform.machine(),
        nvidia=shutil.which("nvidia-smi") is not None or driver.exists(),
        cuda_libraries=frozenset(cuda_libraries),
    )


def installed_libraries(machine: Machine) -> dict[str, str | None]:
    """For each backend None where its library is installed, else the line that installs it."""
    extras = {
        "coreml": "mac",
        "mlx": "mac" if machine.apple_silicon else "mlx-cpu",
        "onnx": "cuda" if machine.nvidia else "cpu",
        "torch": "torch",
    }
    return {
        name: None
        if importlib.util.find_spec(info.library)
        else str(MissingDependency(info.library, extra=extras[name]))
        for name, info in BACKENDS.items()
    }


def find_files(path: str | os.PathLike[str], kind: str) -> Files:
    """The file of a model that each backend would open, or why it would open none.

    The path is ``"builtin"``, a model directory (``checkpoint_best.safetensors`` or else
    ``<kind>.safetensors``, ``<kind>.onnx`` or else ``combined.onnx``, ``<kind>.mlpackage``), one of
    these files, or a ``.pt`` file. An exported file that was made from another checkpoint than the
    ``checkpoint_best.safetensors`` beside it counts as missing.
    CheckpointError is raised if nothing is there, or only a net of the other kind.
    """
    if builtin.is_builtin(path):
        checkpoint = builtin.checkpoint_file(kind)
        own: Path | str = "'mlx-faceau export builtin --to coreml' makes its file"
        with suppress(RuntimeError, PermissionError):  # no home folder, or another user's
            if (package := builtin.coreml_file(kind)).exists():
                own = _exported_file(package, _hashes(builtin.check(checkpoint)))
        # ``open_backend`` checks the file that it opens.
        onnx = builtin.onnx_file(kind)
        return {"coreml": own, "mlx": checkpoint, "onnx": onnx, "torch": checkpoint}
    if not isinstance(path, (str, Path)):
        raise UsageError(f"a model is {builtin.BUILTIN!r} or a path, got {path!r}")
    path = Path(path)
    if path.is_dir() and path.suffix != COREML_SUFFIX:
        return _directory_files(path, kind)
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file or directory; name a training's folder or a model file"
        )
    endings = sorted({suffix for info in BACKENDS.values() for suffix in info.suffixes})
    if path.suffix not in endings:
        raise CheckpointError(f"{path}: not a model file; expected one of {', '.join(endings)}")
    return {
        name: path
        if path.suffix in info.suffixes
        else f"reads {' or '.join(info.suffixes)}, not {path.name}; see 'mlx-faceau export'"
        for name, info in BACKENDS.items()
    }


def _directory_files(folder: Path, kind: str) -> Files:
    checkpoint, holds, sources = folder / BEST_NAME, None, None
    weights = folder / f"{kind}{WEIGHTS_SUFFIX}"
    if weights.is_file() and not checkpoint.exists():
        checkpoint = weights
    own: Path | str = f"no {BEST_NAME} in {folder}; train a net there or import one"
    if checkpoint.is_file():
        try:
            holds = read_metadata(checkpoint).get("kind")
            own = f"{checkpoint} holds a net of kind {holds}, expected {kind}"
        except CheckpointError as error:
            own = Damaged(error)
    if holds == kind:
        own = checkpoint
        if checkpoint != weights or read_metadata(weights).get("source_hash"):
            sources = _hashes(checkpoint)
    onnx, both = (folder / f"{name}{ONNX_SUFFIX}" for name in (kind, COMBINED))
    if both.is_file() and not onnx.exists():
        onnx = both
    files = {
        "coreml": _exported_file(folder / f"{kind}{COREML_SUFFIX}", sources),
        "mlx": own,
        "onnx": _exported_file(onnx, sources, kind),
        "torch": own,
    }
    if all(isinstance(found, str) for found in files.values()):
        # A net of the other kind is refused by the name of what opens it.
        suffixes = (ONNX_SUFFIX, COREML_SUFFIX, WEIGHTS_SUFFIX)
        others = [
            other for other in CONFIGS if any((folder / f"{other}{s}").exists() for s in suffixes)
        ]
        for other in [holds, *others] if holds else others:
            check_kind(folder, other, kind)
    return files


def _hashes(checkpoint: Path) -> set[str]:
    """What an exported file may name as its source: this checkpoint, or the one it came from."""
    origin = read_metadata(checkpoint).get("source_hash")
    return {file_hash(checkpoint), *([origin] if origin else [])}


def _exported_file(path: Path, sources: set[str] | None, kind: str = "") -> Path | str:
    """An exported file of a model directory; or why it is passed over."""
    if not (path.is_dir() if path.suffix == COREML_SUFFIX else path.is_file()):
        return f"no {path.name} in {path.parent}; 'mlx-faceau export' makes it"
    try:
        metadata = read_exported_metadata(path) or {}
    except CheckpointError as error:
        return Damaged(error)
    nets = metadata.get("nets") or {kind: metadata}  # of a file that holds both, or one
    recorded = (nets.get(kind) or {}).get("source_hash")
    if sources is not None and recorded not in sources:
        return (
            f"{path} was exported from another checkpoint than the weights beside it; export it "
            "again"
        )
    return path


def check_kind(path: Path, holds: object, kind: str) -> None:
    """Refuse a model of another kind than the predictor's, naming what opens it."""
    if holds != kind:
        remedy = f"; open it with {_LOADERS[holds]}" if holds in _LOADERS else ""
        raise CheckpointError(f"{path} holds a net of kind {holds}, expected {kind}{remedy}")
