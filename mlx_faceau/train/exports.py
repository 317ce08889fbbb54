"""The deployable files of a finished training and their model card."""

import logging
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

    By file name ``"written"``, or the one line that says why not and what would help: a training
    never fails because a file cannot be made.
    """
    results = {}
    for name in (*(f"{kind}{suffix}" for suffix in FORMATS), CARD_NAME):
        path = folder / name
        try:
            if name == CARD_NAME:
                write_model_card(folder / BEST_NAME, folder)
            else:
                module, function = FORMATS[path.suffix]
                getattr(import_module(module), function)(folder / BEST_NAME, path)
        except (FaceauError, ImportError, OSError, ValueError, RuntimeError) as error:
            named = str(error).startswith(f"{path} ")  # a failed check says all by itself
            _LOG.warning("%s", error if named else f"{path} not written: {error}")
            results[name] = str(error)
        else:
            _LOG.info("%s written", path)
            results[name] = "written"
    return results
