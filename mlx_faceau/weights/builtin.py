"""The built-in pair of nets: its name, its files, and a check that they are the published ones.

``mlx_faceau/weights/`` holds each net twice, with the same bits of every weight: ``<kind>.onnx``
for ONNX Runtime, ``<kind>.safetensors`` for MLX and PyTorch. ``builtin.json`` names the pair and
the SHA-256 of every file. Core ML packages are made on the user's Mac and kept in a cache.
"""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX
from mlx_faceau.core.checkpoint import file_hash
from mlx_faceau.core.pdm import PDM, read_pdm
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.errors import CheckpointError

BUILTIN = "builtin"  # the latest pair
NAMES = (BUILTIN, "builtin-1")
FOLDER = Path(__file__).parent
INDEX_NAME = "builtin.json"
PDM_NAME = "open_pdm.txt"
_REMEDY = "reinstall mlx-faceau, or name another model"


def is_builtin(model: object) -> bool:
    """Whether a model path names the built-in pair; a folder of that name is ``./builtin``."""
    return isinstance(model, (str, os.PathLike)) and os.fspath(model) in NAMES


def read_index() -> dict[str, Any]:
    """``name`` of the pair and the SHA-256 of its ``files``.

    Raises:
        CheckpointError: if this installation has no built-in pair, or a damaged one.
    """
    path = FOLDER / INDEX_NAME
    try:
        index = json.loads(path.read_text("utf-8"))
        name, files = index["name"], dict(index["files"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing, so there is no built-in pair here; {_REMEDY}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: damaged; {_REMEDY}") from None
    return {"name": name, "files": files}


def onnx_file(kind: str) -> Path:
    """The net's ONNX file; see :func:`check`."""
    return FOLDER / f"{kind}{ONNX_SUFFIX}"


def checkpoint_file(kind: str) -> Path:
    """The net's checkpoint; see :func:`check`."""
    return FOLDER / f"{kind}.safetensors"


def checkpoint_of(kind: str) -> Path:
    """The net's checkpoint, checked.

    Raises:
        CheckpointError: if it is missing or has another SHA-256.
    """
    return check(checkpoint_file(kind))


def coreml_file(kind: str) -> Path:
    """Where ``mlx-faceau export builtin --to coreml`` leaves the net's Core ML package."""
    caches = "Library/Caches" if platform.system() == "Darwin" else ".cache"
    folder = Path.home() / caches / "mlx-faceau" / str(read_index()["name"])
    return folder / f"{kind}{COREML_SUFFIX}"


def check(path: Path) -> Path:
    """Check that a file of the pair is there and is the one that was published.

    Raises:
        CheckpointError: if it is missing or has another SHA-256.
    """
    recorded = read_index()["files"].get(path.name)
    if recorded is None or not path.is_file():
        raise CheckpointError(f"{path}: missing from the built-in pair; {_REMEDY}")
    if file_hash(path) != recorded:
        raise CheckpointError(f"{path}: damaged, its SHA-256 is not the recorded one; {_REMEDY}")
    return path


def pdm_for(metadata: Mapping[str, Any] | None) -> PDM | None:
    """The open PDM where a net's metadata records that one, else None."""
    recorded, path = pdm_of(metadata or {}), FOLDER / PDM_NAME
    if not (recorded and recorded["hash"] and path.is_file()):
        return None
    pdm = read_pdm(path)
    return pdm if pdm.hash == recorded["hash"] else None


def identity(description: Mapping[str, Any]) -> dict[str, str | None]:
    """Which model a backend's description is of, for results to record.

    Returns:
        ``name``: of the built-in pair, else the file's; ``hash``: SHA-256 of the checkpoint that
        the weights come from, or of the file where it names none.
    """
    metadata = description.get("metadata") or {}
    path = Path(description.get("path") or "")
    own = file_hash(path) if path.is_file() and "source_hash" not in metadata else None
    return {
        "name": metadata.get("builtin") or str(path),
        "hash": metadata.get("source_hash") or own,
    }
