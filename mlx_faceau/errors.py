"""Errors that the user can correct: every text says what, where and what to do.

The command line turns each into one line and exit status 2. Any other exception is a defect of the
package, a plain ``ValueError`` or ``TypeError`` too.
"""


class FaceauError(Exception):
    """Base of all errors of this package.

    Args:
        text: one line. Names from strangers' files may hold line breaks and orders to the
            terminal: they become spaces and question marks.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


def printable(text: str) -> str:
    """A text on one line, with question marks in the place of what does not print."""
    spaced = "".join(" " if character.isspace() else character for character in text)
    return "".join(character if character.isprintable() else "?" for character in spaced)


def counted(count: int, noun: str) -> str:
    """``1 face``, ``2 faces``: a count with its noun, whose plural takes an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class UsageError(FaceauError, ValueError):
    """A bad argument, in Python or on the command line."""


class FunctionError(UsageError):
    """A function of the user's own failed, which is its cause, or returned something unusable."""


class DatasetError(FaceauError):
    """A training file cannot be read, is malformed, or holds too little."""


class CheckpointError(FaceauError):
    """A checkpoint cannot be read, is malformed, or belongs to another net."""


class ExportError(FaceauError):
    """A model cannot be written in the format that was asked for, or fails its check."""


class BackendError(FaceauError):
    """The backend that was asked for cannot run here."""


class VideoError(FaceauError):
    """A video or picture cannot be read, or a camera is not there."""


class MissingDependency(FaceauError, ImportError):
    """A library is not installed.

    Args:
        library: the name that failed to import, such as ``"onnxruntime"``.
        extra: the extra that brings it, such as ``"cpu"``; None for one that every installation
            brings, of the same name as its package.
    """

    def __init__(self, library: str, extra: str | None = None) -> None:
        package = f'"mlx-faceau[{extra}]"' if extra else library
        super().__init__(f"{library} is not installed; run: pip install {package}")
        self.library = library
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingDependency"], tuple[str, str | None]]:
        return type(self), (self.library, self.extra)


class BrokenLibrary(FaceauError, ImportError):
    """A library is installed but does not load; see :mod:`mlx_faceau.core.libraries`."""
