"""Detects the machine, the installed libraries and the files of a model.

Nothing here imports a backend's library.
"""

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.core.artifact_metadata import (
    COREML_SUFFIX,
    ONNX_SUFFIX,
    is_mlpackage,
    read_exported_metadata,
)
from mlx_faceau.core.checkpoint import BEST_NAME, file_hash, read_metadata
from mlx_faceau.core.libraries import installed_version
from mlx_faceau.errors import CheckpointError, MissingDependency
from mlx_faceau.weights import builtin

from .choice import BACKENDS, Files, Machine

_LOADERS = {"landmark_pose": "load_predictor", "au_prediction": "load_au_predictor"}


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
    """The file of a model that each backend would open.

    Args:
        path: ``"builtin"``, a model directory (``checkpoint_best.safetensors``, ``<kind>.onnx``,
            ``<kind>.mlpackage``), one of these files, or a ``.pt`` file.
        kind: ``"landmark_pose"`` or ``"au_prediction"``.

    Returns:
        By backend its file, or why it has none. An exported file that was made from another
        checkpoint than the one beside it counts as missing.

    Raises:
        CheckpointError: if nothing is there, or only a net of the other kind.
    """
    if builtin.is_builtin(path):
        checkpoint, package = builtin.checkpoint_file(kind), builtin.coreml_file(kind)
        own: Path | str = "'mlx-faceau export builtin --to coreml' makes its file"
        if package.exists():
            own = _exported_file(package, _hashes(builtin.check(checkpoint)))
        # ``open_backend`` checks the file that it opens.
        onnx = builtin.onnx_file(kind)
        return {"coreml": own, "mlx": checkpoint, "onnx": onnx, "torch": checkpoint}
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
    own: Path | str = f"no {BEST_NAME} in {folder}; train a net there or import one"
    if checkpoint.is_file():
        try:
            holds = read_metadata(checkpoint).get("kind")
            own = f"{checkpoint} holds a net of kind {holds}, expected {kind}"
        except CheckpointError as error:
            own = str(error)
    if holds == kind:
        own, sources = checkpoint, _hashes(checkpoint)
    files = {
        "coreml": _exported_file(folder / f"{kind}{COREML_SUFFIX}", sources),
        "mlx": own,
        "onnx": _exported_file(folder / f"{kind}{ONNX_SUFFIX}", sources),
        "torch": own,
    }
    if all(isinstance(found, str) for found in files.values()):
        # A net of the other kind is refused by the name of what opens it.
        suffixes = (ONNX_SUFFIX, COREML_SUFFIX)
        others = [
            other for other in CONFIGS if any((folder / f"{other}{s}").exists() for s in suffixes)
        ]
        for other in [holds, *others] if holds else others:
            check_kind(folder, other, kind)
    return files


def _hashes(checkpoint: Path) -> set[str]:
    """What an exported file may name as its source: this checkpoint, or the one it came from."""
    origin = read_metadata(checkpoint).get("source_hash")
    return {file_hash(checkpoint), *([origin] if isinstance(origin, str) else [])}


def _exported_file(path: Path, sources: set[str] | None) -> Path | str:
    """An exported file of a model directory; or why it is passed over."""
    if not (is_mlpackage(path) if path.suffix == COREML_SUFFIX else path.is_file()):
        return f"no {path.name} in {path.parent}; 'mlx-faceau export' makes it"
    try:
        recorded = (read_exported_metadata(path) or {}).get("source_hash")
    except CheckpointError as error:
        return str(error)
    if sources is not None and recorded not in sources:
        return (
            f"{path} was exported from another checkpoint than the {BEST_NAME} beside it; "
            "export it again"
        )
    return path


def check_kind(path: Path, holds: object, kind: str) -> None:
    """Refuse a model of another kind than the predictor's.

    Raises:
        CheckpointError: naming the function that opens it.
    """
    if holds != kind:
        remedy = f"; open it with {_LOADERS[holds]}" if holds in _LOADERS else ""
        raise CheckpointError(f"{path} holds a net of kind {holds}, expected {kind}{remedy}")
