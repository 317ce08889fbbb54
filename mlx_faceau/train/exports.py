"""The deployable files of a finished training and their model card.

What cannot be made never fails it.
"""

import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mlx_faceau.core.checkpoint import BEST_NAME
from mlx_faceau.errors import FaceauError
from mlx_faceau.output.model_card import CARD_NAME, write_model_card

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
        results[path.name] = _written(path, _exporter(module, function, folder / BEST_NAME, path))
    card = folder / CARD_NAME
    results[card.name] = _written(card, lambda: write_model_card(folder / BEST_NAME, folder))
    return results


def _exporter(module: str, function: str, checkpoint: Path, path: Path) -> Callable[[], object]:
    """The exporter's module is imported when it runs: its library may be missing."""
    return lambda: getattr(import_module(module), function)(checkpoint, path)


def _written(path: Path, write: Callable[[], object]) -> str:
    try:
        write()
    except (FaceauError, ImportError, OSError, ValueError, RuntimeError) as error:
        _LOG.warning("%s not written: %s", path, error)
        return str(error)
    _LOG.info("%s written", path)
    return "written"
