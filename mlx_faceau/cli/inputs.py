"""The images, videos and webcams that a command line names."""

import contextlib
import glob
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_faceau.errors import UsageError, counted, printable
from mlx_faceau.video.images import IMAGE_SUFFIXES, is_image
from mlx_faceau.video.reader import VIDEO_SUFFIXES, is_text

_NAMED = 5  # of the files or folders in a folder that are skipped
_KINDS = {"images": IMAGE_SUFFIXES, "videos": VIDEO_SUFFIXES}
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


def _expand(name: str, suffixes: Sequence[str]) -> list[Input]:
    path = Path(name)
    is_folder = path.is_dir()
    if path.is_file():
        return [Input(path)]
    folders: list[Path] = []
    if is_folder:
        entries = [p for p in sorted(path.iterdir()) if p.name[0] != "."]
        files, folders = list(filter(_is_input, entries)), [p for p in entries if p.is_dir()]
    elif webcam := re.fullmatch(r"webcam:?|(?:webcam:)?([0-9]+)", name):
        return [Input(None, int(webcam[1] or 0))]
    else:
        files = [p for p in map(Path, sorted(glob.glob(name, recursive=True))) if _is_input(p)]
        if not files:
            raise UsageError(f"{name}: no such file or folder")
    paths, skipped = [], []
    for file in files:
        suffix = file.suffix.lower()
        # Of a folder overlays of an earlier run are not measured again.
        foreign = is_folder and (suffix not in suffixes or ".overlay" in file.suffixes[-2:])
        # Nobody named the file itself: it may be plain text, such as pyvenv.cfg and go.mod.
        if foreign or (suffix not in _NEVER_TEXT and _begins_as_text(file)):
            skipped.append(file)
        else:
            paths.append(file)
    kinds = [k for k, own in _KINDS.items() if own[0] in suffixes]
    if not paths:
        where = "in this folder" if is_folder else "among these files"
        hint = "; images need --label-model" if kinds == ["videos"] else ""
        hint += f"; {counted(len(folders), 'folder')} not searched" if folders else ""
        raise UsageError(f"{name}: no {' or '.join(kinds)} {where}{hint}")
    if is_folder and kinds == ["videos"]:  # OpenFace's files lie beside them
        skipped = [file for file in skipped if file.suffix.lower() not in (".csv", ".hog")]
    where = str(path) if is_folder else name
    for left, noun, done in (skipped, "other file", "skipped"), (folders, "folder", "not searched"):
        if left:
            print(f"{where}: {counted(len(left), noun)} {done} ({_named(left)})", file=sys.stderr)
    return [Input(path) for path in paths]


def _begins_as_text(path: Path) -> bool:
    with contextlib.suppress(OSError):  # may not be read: what reads it says so
        return path.is_file() and is_text(path)
    return False


def _named(paths: Sequence[Path]) -> str:
    names = ", ".join(printable(path.name) for path in paths[:_NAMED])
    return names + ", ..." * (len(paths) > _NAMED)


def _is_input(path: Path) -> bool:
    """Whether it is a file, or a link to nothing, which fails by its name where it is read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def shard(inputs: list[Input], text: str | None) -> list[Input]:
    """The Ith of N parts; every Nth input, so that neighbours of like length are spread."""
    if text is None:
        return inputs
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8")
    return inputs[int(first) - 1 :: int(second)]
