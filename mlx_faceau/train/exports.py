"""The deployable files of a finished training; one that cannot be made never fails it."""

import logging
from importlib import import_module
from pathlib import Path

from mlx_faceau.checkpoint import BEST_NAME
from mlx_faceau.errors import FaceauError

_LOG = logging.getLogger(__name__)

# Suffix -> module and function that writes it from a checkpoint.
FORMATS = {
    ".onnx": ("mlx_faceau.convert.export_onnx", "export_to_onnx"),
    ".mlpackage": ("mlx_faceau.convert.export_coreml", "export_to_coreml"),
}


def export_best(folder: Path, kind: str) -> dict[str, str]:
    """Export a run's best checkpoint beside it, in every format this machine can write.

    Args:
        folder: holds ``checkpoint_best.safetensors``.
        kind: of net; the files are named after it.

    Returns:
        By file name: ``"written"``, or the one line that says why not and what would help.
    """
    results = {}
    for suffix, (module, function) in FORMATS.items():
        path = folder / f"{kind}{suffix}"
        try:
            getattr(import_module(module), function)(folder / BEST_NAME, path)
            results[path.name] = "written"
            _LOG.info("%s written", path)
        except (FaceauError, ImportError, OSError, ValueError, RuntimeError) as error:
            results[path.name] = str(error)
            _LOG.warning("%s not written: %s", path, error)
    return results
