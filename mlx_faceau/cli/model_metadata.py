"""What a model that a command names says about itself, without opening it for prediction."""

from pathlib import Path
from typing import Any

from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.checkpoint import BEST_NAME, read_metadata
from mlx_faceau.errors import CheckpointError
from mlx_faceau.weights import builtin


def read_builtin(kind: str) -> dict[str, Any]:
    """The metadata of a net of the built-in pair.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    return read_metadata(builtin.check(builtin.checkpoint_file(kind)))


def read_description(path: Path) -> dict[str, Any]:
    """The metadata of a model's folder or file: at least its ``kind``.

    Raises:
        CheckpointError: if there is no model, or it records no kind.
    """
    if path.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        return {"kind": read_pyfaceau(path)[0].kind}
    if path.is_dir() and path.suffix != COREML_SUFFIX and not (path / BEST_NAME).is_file():
        path = _exported_in(path)
    exported_file = path.suffix in (ONNX_SUFFIX, COREML_SUFFIX)
    metadata = read_exported_metadata(path) if exported_file else read_metadata(path)
    if metadata is None or "kind" not in metadata:
        raise CheckpointError(f"{path}: does not say which net it is; export it again")
    return metadata


def _exported_in(folder: Path) -> Path:
    """The exported file of the one net that a folder without a checkpoint holds."""
    names = [[f"{kind}{suffix}" for suffix in (ONNX_SUFFIX, COREML_SUFFIX)] for kind in CONFIGS]
    there = [[folder / name for name in of_kind if (folder / name).exists()] for of_kind in names]
    found = [of_kind[0] for of_kind in there if of_kind]
    if not found:
        wanted = ", ".join(name for of_kind in names for name in of_kind)
        raise CheckpointError(f"{folder}: holds neither {BEST_NAME} nor an exported net ({wanted})")
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: holds two nets, {both}; name one of these files")
    return found[0]
