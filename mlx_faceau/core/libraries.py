"""Libraries that are missing or installed but do not load, with the remedy.

A wheel for another machine, a system library that is not there (OpenCV's libGL), a build for
another NumPy, half an installation: each fails in its own way while the library is imported.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from mlx_faceau.errors import BrokenLibrary, FaceauError, MissingDependency

PACKAGE = "mlx_faceau"
# All four install the same files: of two that are installed together, one breaks the other.
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# Libraries that whole commands need, by the extra that brings them. Others are named by
# the code that needs them.
_EXTRAS = {"h5py": "train"}
_LOADER = "importlib"
# What importing an installed library was seen to raise.
LOAD_ERRORS = (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    from importlib.metadata import PackageNotFoundError, version  # as slow as a whole --help

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def package_version() -> str:
    """This package's own version; of a source tree that was never installed, ``0+unknown``."""
    return installed_version("mlx-faceau") or "0+unknown"


def installed_opencv() -> dict[str, str]:
    """Version by distribution of every OpenCV that is installed with pip."""
    found = {name: installed_version(name) for name in OPENCV}
    return {name: number for name, number in found.items() if number is not None}


def opencv_conflict() -> BrokenLibrary | None:
    """What to do where several distributions of OpenCV overwrite each other; None for one."""
    if len(found := installed_opencv()) < 2:
        return None
    names = " and ".join(f"{name} {number}" for name, number in found.items())
    return BrokenLibrary(f"{names} are both installed, in the same files; {_anew()}")


def _anew() -> str:
    """How to install OpenCV anew, in the build that needs no window system."""
    installed = " ".join(installed_opencv()) or OPENCV[0]
    return f"run: pip uninstall -y {installed}; pip install opencv-python-headless"


def broken(library: str, reason: object) -> BrokenLibrary:
    """The error for an installed library, by the name that is imported, that does not load."""
    from importlib.metadata import distributions

    text = " ".join(str(reason).split())[:300] or type(reason).__name__
    if library == "cv2":
        return BrokenLibrary(f"OpenCV is installed but does not load ({text}); {_anew()}")
    # By their files: dlib-bin does not say that it brings dlib.
    names = sorted(
        each.name
        for each in distributions()
        if any(file.parts[0].partition(".")[0] == library for file in each.files or ())
    )
    return BrokenLibrary(
        f"{library} is installed but does not load ({text}); run: "
        f"pip install --force-reinstall {' '.join(names) or library}"
    )


def import_library(name: str, extra: str | None = None) -> Any:
    """Import a module of a library that may be missing or broken, which the error then says.

    ``extra`` is the one that brings it; None for a dependency of every installation.
    """
    library = name.partition(".")[0]
    try:
        return import_module(name)
    except LOAD_ERRORS as error:
        hidden = sys.modules.get(library, error) is None  # as tests hide a library
        if isinstance(error, ModuleNotFoundError) and (error.name == library or hidden):
            raise MissingDependency(library, extra) from None
        raise library_error(error) or broken(library, error) from None


def library_error(error: BaseException) -> FaceauError | None:
    """The error with its remedy where an exception comes from importing a library; else None."""
    if isinstance(error, FaceauError):
        return None
    importing = _importing(error.__traceback__)
    if isinstance(error, ModuleNotFoundError) and error.name:
        library = error.name.partition(".")[0]
        if library == PACKAGE:
            return None
        hidden = sys.modules.get(error.name, error) is None  # as tests hide a library
        if library == error.name or hidden or find_spec(library) is None:
            if library in _EXTRAS:
                return MissingDependency(library, _EXTRAS[library])
            if library == "cv2":
                return FaceauError(
                    "OpenCV is not installed; run: pip install opencv-python-headless"
                )
            needed = f", which {importing} needs" if importing else ""
            return FaceauError(f"{library} is not installed{needed}; run: pip install {library}")
    elif isinstance(error, ImportError):
        library = importing or (error.name or "").partition(".")[0]
    else:
        library = importing
    return broken(library, error) if library not in ("", PACKAGE) else None


def _importing(traceback: TracebackType | None) -> str:
    """The library whose import raised: the first foreign module that our code was running."""
    foreign: tuple[str, str] | None = None  # top-level package and function
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module == PACKAGE:
            foreign = None
        elif foreign is None and module != _LOADER:
            foreign = module, frame.f_code.co_name
        traceback = traceback.tb_next
    return foreign[0] if foreign is not None and foreign[1] == "<module>" else ""
