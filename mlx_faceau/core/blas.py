"""A fast BLAS for MLX on Linux CPUs, loaded before MLX itself.

The Linux CPU wheel of MLX ships the reference BLAS, ten to twenty times slower than OpenBLAS. The
dynamic linker takes the first ``cblas_sgemm`` it finds, so an OpenBLAS that is already in the
process when ``mlx.core`` is first imported serves MLX; afterwards it is too late. One such library
is always at hand: OpenCV's wheels bundle it. numpy's and scipy's copies rename their symbols.

``MLX_FACEAU_BLAS=off`` keeps MLX's own; ``MLX_FACEAU_BLAS=/path/to/libopenblas.so`` names another.
``OPENBLAS_NUM_THREADS`` and ``OMP_NUM_THREADS`` mean what they mean to OpenBLAS.
"""

import ctypes
import importlib.util
import logging
import os
import sys
from functools import cache
from pathlib import Path

from mlx_faceau.errors import BackendError

from .libraries import installed_version

VARIABLE = "MLX_FACEAU_BLAS"
SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # all that MLX calls

logger = logging.getLogger(__name__)


@cache
def prepare() -> str:
    """Load a fast BLAS where it helps; call it before ``mlx.core`` is imported. Acts once.

    Returns which BLAS serves MLX's matrix products from now on, and why; BackendError is raised if
    ``MLX_FACEAU_BLAS`` names a library that cannot.
    """
    wish = os.environ.get(VARIABLE, "")
    if wish == "off":
        return f"MLX's own ({VARIABLE}=off)"
    if not _helps_here():
        return "MLX's own (only MLX for Linux CPUs gains from another)"
    if "mlx.core" in sys.modules:
        logger.warning("mlx was imported before mlx_faceau: its slow BLAS stays in use")
        return "MLX's own (mlx was imported before mlx_faceau)"
    if wish:
        _load(Path(wish))
        return f"{wish} ({VARIABLE})"
    for path in bundled_libraries():
        try:
            _load(path)
        except BackendError as error:
            logger.debug("%s", error)
        else:
            return f"{path} (bundled with OpenCV)"
    logger.warning(
        "no OpenBLAS found for MLX, matrix products will be slow: "
        "install opencv-python-headless or set %s=/path/to/libopenblas.so",
        VARIABLE,
    )
    return "MLX's own (no OpenBLAS found)"


def bundled_libraries() -> list[Path]:
    """OpenBLAS files inside the installed opencv packages, found without importing cv2."""
    spec = importlib.util.find_spec("cv2")
    if spec is None or not spec.submodule_search_locations:
        return []
    site = Path(next(iter(spec.submodule_search_locations))).parent
    return sorted(site.glob("opencv_*.libs/libopenblas*.so*"))


def _helps_here() -> bool:
    if not sys.platform.startswith("linux") or importlib.util.find_spec("mlx") is None:
        return False
    return not any(installed_version(f"mlx-cuda{version}") for version in ("", "-12", "-13"))


def _load(path: Path) -> None:
    """Make the symbols of a BLAS global, after checking that MLX could call them."""
    try:
        library = ctypes.CDLL(str(path))  # local first: a wrong one must not reach MLX
    except OSError as error:
        raise BackendError(f"{VARIABLE}: cannot load {path}: {error}") from error
    missing = [symbol for symbol in SYMBOLS if not hasattr(library, symbol)]
    if missing:
        raise BackendError(f"{VARIABLE}: {path} has no {', '.join(missing)}; name another BLAS")
    if _has_long_integers(library):
        raise BackendError(f"{VARIABLE}: {path} takes 64-bit integers; name a 32-bit (LP64) build")
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _has_long_integers(library: ctypes.CDLL) -> bool:
    if not hasattr(library, "openblas_get_config"):
        return False
    library.openblas_get_config.restype = ctypes.c_char_p
    return b"USE64BITINT" in library.openblas_get_config()
