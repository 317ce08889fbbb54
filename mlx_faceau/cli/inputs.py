"""The images, videos and webcams that a command line names."""

import glob
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_faceau.core.plural import counted
from mlx_faceau.errors import UsageError, printable
from mlx_faceau.video.images import IMAGE_SUFFIXES, is_image
from mlx_faceau.video.reader import VIDEO_SUFFIXES, is_text

_NAMED = 5  # of the files in a folder that are skipped
# Endings that no text has; TypeScript and Go use two of videos' endings.
_NEVER_TEXT = {*IMAGE_SUFFIXES, *VIDEO_SUFFIXES} - {".ts", ".mod"}


@dataclass(frozen=True)
class Input:
    """One image, video or webcam."""

    path: Path | None  # None for a webcam
    camera: int = 0

    @property
    def name(self) -> str:
        return self.path.name if self.path else f"webcam{self.camera}"

    @property
    def is_image(self) -> bool:
        return self.path is not None and is_image(self.path)


def find_inputs(
    names: Sequence[str], suffixes: Sequence[str] = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
) -> list[Input]:
    """The inputs of these names: folders and patterns expanded in sorted order.

    Folders give their files of these suffixes; what they skip is named on standard error.
    """
    return [found for name in names for found in _expand(name, suffixes)]


def _expand(name: str, suffixes: Sequence[str]) -> Iterator[Input]:
    path = Path(name)
    if path.is_dir():
        yield from map(Input, _in_folder(path, suffixes))
    elif path.is_file():
        yield Input(path)
    elif webcam := re.fullmatch(r"webcam:?|(?:webcam:)?([0-9]+)", name):
        yield Input(None, int(webcam[1] or 0))
    else:
        found = [Path(p) for p in sorted(glob.glob(name, recursive=True)) if Path(p).is_file()]
        if not found:
            raise UsageError(f"{name}: no such file or folder")
        paths = [path for path in found if not _is_other_text(path)]
        taken = {*paths}
        _report_skipped(name, [path for path in found if path not in taken])
        yield from map(Input, paths)


def _in_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "."]
    # Overlays of an earlier run are not measured again.
    paths = [
        p for p in files
        if p.suffix.lower() in suffixes
        and ".overlay" not in p.suffixes[-2:]
        and not _is_other_text(p)
    ]  # fmt: skip
    if not paths:
        kinds = (("images", IMAGE_SUFFIXES), ("videos", VIDEO_SUFFIXES))
        what = " or ".join(kind for kind, own in kinds if own[0] in suffixes)
        raise UsageError(f"{folder}: no {what} in this folder")
    # Where videos alone are wanted OpenFace's files lie beside them, which are not inputs.
    beside = (".csv", ".hog") if IMAGE_SUFFIXES[0] not in suffixes else ()
    taken = {*paths}
    skipped = [p for p in files if p not in taken and p.suffix.lower() not in beside]
    _report_skipped(str(folder), skipped)
    return paths


def _is_other_text(path: Path) -> bool:
    """Whether a file that nobody named itself is plain text, such as pyvenv.cfg and go.mod."""
    return path.suffix.lower() not in _NEVER_TEXT and is_text(path)


def _report_skipped(name: str, skipped: Sequence[Path]) -> None:
    if skipped:
        names = [printable(path.name) for path in skipped[:_NAMED]]
        named = ", ".join(names) + ", ..." * (len(skipped) > _NAMED)
        sys.stderr.write(f"{name}: {counted(len(skipped), 'other file')} skipped ({named})\n")


def shard(inputs: list[Input], text: str | None) -> list[Input]:
    """The Ith of N parts; every Nth input, so that neighbours of like length are spread."""
    if text is None:
        return inputs
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8")
    return inputs[int(first) - 1 :: int(second)]
