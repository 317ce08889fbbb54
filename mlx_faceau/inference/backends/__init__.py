"""The four backends that run a net: Core ML, MLX, ONNX Runtime and PyTorch.

A backend's library is imported in its own file alone, and that file only when it was chosen.
"""

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.libraries import LOAD_ERRORS, library_error
from mlx_faceau.errors import BackendError, CheckpointError, UsageError
from mlx_faceau.weights import builtin

from .choice import (
    AUTO,
    BACKENDS,
    Damaged,
    check_kind,
    choose,
    find_files,
    installed_libraries,
    this_machine,
)

logger = logging.getLogger(__name__)

_CROPS = {"original": "the original tool's crop", "unknown": "a crop that is not recorded"}


class Backend:
    """An opened net: float32 images in, float32 arrays out. Safe to call from several threads."""

    name: ClassVar[str]  # in BACKENDS
    library: str  # with its version
    path: Path
    config: ModelConfig
    metadata: dict[str, Any] | None  # None: the original tool's file, which has none
    device: str
    max_batch = 64  # images of one run that suit its memory, or exactly those that a file takes

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, 112, 112, 3) float32 RGB in [0, 1] to float32 arrays with a leading N, by output.

        N is in [1, ``max_batch``].
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """``backend``, ``path``, ``kind``, ``device``, ``library`` and ``metadata``."""
        return {
            "backend": self.name,
            "path": str(self.path),
            "kind": self.config.kind,
            "device": self.device,
            "library": self.library,
            "metadata": self.metadata,
        }


def open_backend(
    path: str | os.PathLike[str],
    kind: str,
    requested: str | None = None,
    prefer_coreml: bool = True,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
    **options: Any,
) -> Backend:
    """Choose a backend for a model of this kind, open it, and log the choice.

    Arguments and errors are those of :func:`mlx_faceau.inference.predictor.load_predictor` and of
    :func:`choose`; ``options`` are the torch backend's ``device``, ``width_mult`` and ``dropout``.
    """
    if providers is not None:
        if requested not in (None, AUTO, "onnx"):
            raise UsageError(f"providers are of ONNX Runtime, but the backend is {requested!r}")
        requested = "onnx"
    if threads is not None and not (isinstance(threads, Integral) and threads >= 1):
        raise UsageError(f"threads {threads!r}: expected at least 1, or None for all cores")
    machine, files = this_machine(), find_files(path, kind)
    libraries = installed_libraries(machine)
    while True:
        choice = choose(machine, files, libraries, requested, prefer_coreml)
        if choice.path.parent == builtin.FOLDER:
            builtin.check(choice.path)
        try:
            module = import_module(f".{choice.backend}_backend", __name__)
            backend_class = getattr(module, BACKENDS[choice.backend].class_name)
            own = {"providers": providers, "threads": threads, "kind": kind}
            backend: Backend = backend_class(
                choice.path, **(own if choice.backend == "onnx" else options)
            )
            break
        # Such as a file that is newer than the library, or a package that Core ML refuses.
        except (BackendError, CheckpointError) as error:
            rest = {n: Damaged(error) if f == choice.path else f for n, f in files.items()}
            if requested not in (None, AUTO) or not any(isinstance(f, Path) for f in rest.values()):
                raise
            files = rest
        except LOAD_ERRORS as error:
            if (problem := library_error(error)) is None:
                raise
            libraries = libraries | {choice.backend: str(problem)}
    description = backend.describe()
    check_kind(choice.path, description["kind"], kind)
    for name, reason in choice.passed_over:
        logger.info("%s passed over: %s", BACKENDS[name].title, reason)
    for damage in dict.fromkeys(found for found in files.values() if isinstance(found, Damaged)):
        logger.warning("%s; %s is taken", damage, choice.path)
    logger.info("%s runs %s", BACKENDS[choice.backend].title, choice.path)
    crop = (description.get("metadata") or {"crop": "unknown"})["crop"]
    if crop != "standard":
        logger.warning(
            "%s: trained on %s; it predicts on the standard crop all the same, so check its "
            "figures with 'mlx-faceau evaluate', or continue its training with --init",
            *(choice.path, _CROPS[crop]),
        )
    return backend
