"""What a model that a command names records about itself, read without opening its backend."""

from pathlib import Path
from typing import Any

from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.core.artifact_metadata import (
    COMBINED,
    COREML_SUFFIX,
    ONNX_SUFFIX,
    read_exported_metadata,
)
from mlx_faceau.core.checkpoint import BEST_NAME, WEIGHTS_SUFFIX, read_metadata
from mlx_faceau.errors import CheckpointError
from mlx_faceau.weights import builtin


def read_models(model: str) -> list[dict[str, Any]]:
    """The metadata of each net that a model path names, both of ``builtin``."""
    if builtin.is_builtin(model):
        return [read_metadata(builtin.checkpoint_of(kind)) for kind in CONFIGS]
    return [read_model(Path(model))]


def read_model(path: Path) -> dict[str, Any]:
    """The metadata of a model's folder or file, which must record its ``kind``."""
    if path.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        return {"kind": read_pyfaceau(path)[0].kind}
    if path.is_dir() and path.suffix != COREML_SUFFIX and not (path / BEST_NAME).is_file():
        path = _exported_in(path)
    exported = path.suffix in (ONNX_SUFFIX, COREML_SUFFIX)
    metadata = read_exported_metadata(path) if exported else read_metadata(path)
    if metadata is None or "kind" not in metadata:
        raise CheckpointError(f"{path}: does not say which net it is; export it again")
    return metadata


def _exported_in(folder: Path) -> Path:
    """The exported file of the one net, or of both, that a folder without a checkpoint holds."""
    suffixes = (ONNX_SUFFIX, COREML_SUFFIX, WEIGHTS_SUFFIX)
    names = [f"{kind}{suffix}" for kind in CONFIGS for suffix in suffixes]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found and (combined := folder / f"{COMBINED}{ONNX_SUFFIX}").is_file():
        return combined
    if not found:
        wanted = ", ".join(names)
        raise CheckpointError(f"{folder}: holds neither {BEST_NAME} nor an exported net ({wanted})")
    if len({path.stem for path in found}) > 1:
        both = f"{found[0].name} and {found[-1].name}"
        raise CheckpointError(f"{folder}: holds two nets, {both}; name one of these files")
    return found[0]
