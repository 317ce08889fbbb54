"""The table of backends and the choice among them, as a pure function.

:func:`choose` depends on its arguments alone, so that tests cover its whole truth table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX
from mlx_faceau.errors import BackendError, UsageError

AUTO = "auto"


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
    """Pick the backend that runs a model.

    Args:
        machine: platform facts.
        files: of the model.
        libraries: for each backend why its library cannot be used, None where it can.
        requested: a backend's name; None or ``"auto"`` takes the first that can run.
        prefer_coreml: whether ``auto`` tries Core ML first, or last, on Apple Silicon.

    Raises:
        ValueError: for a name that is no backend.
        BackendError: if what was requested, or everything, cannot run; with cause and remedy.
    """
    if requested is not None and requested not in (AUTO, *BACKENDS):
        names = ", ".join([AUTO, *BACKENDS])
        raise UsageError(f"unknown backend {requested!r}, expected one of {names}")
    automatic = requested is None or requested == AUTO
    order = auto_order(machine, prefer_coreml) if automatic else (str(requested),)
    passed_over: list[tuple[str, str]] = []
    for name in order:
        found = _file_or_obstacle(name, machine, files, libraries)
        if isinstance(found, Path):
            return Choice(name, found, tuple(passed_over))
        passed_over.append((name, found))
    reasons = "; ".join(f"{BACKENDS[name].title}: {reason}" for name, reason in passed_over)
    raise BackendError(f"no backend can run this model here: {reasons}" if automatic else reasons)


def _file_or_obstacle(
    name: str, machine: Machine, files: Files, libraries: Mapping[str, str | None]
) -> Path | str:
    """What a backend opens; or why it cannot run, by platform, then library, then file."""
    if name == "coreml" and machine.system != "Darwin":
        return f"predicts on macOS only, this is {machine.system}; use the .onnx file here"
    if name == "mlx" and machine.system == "Darwin" and not machine.apple_silicon:
        return "has no build for Intel Macs; use the .onnx file here"
    return libraries.get(name) or files.get(name, "no file that it reads")
