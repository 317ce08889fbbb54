"""Who labelled a file's faces, and what for these labels may be used."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from . import schema
from .builder import FileBuilder

# Data set of a file made from videos: the videos' reports as JSON.
GENERATION = "metadata/generation"


def labellers(path: Path) -> list[dict[str, str]]:
    """What labelled the faces of a file made from videos.

    Args:
        path: an HDF5 training file.

    Returns:
        ``labeller`` and ``licence`` (empty where it names none) of each that labelled at least one
        sample, once each; nothing for files that do not record it.

    Raises:
        DatasetError: if the file cannot be read.
    """
    found = video_reports(path)
    used = {(r["labeller"], r["licence"]) for r in found if r["kept"] and r["labeller"]}
    return [{"labeller": name, "licence": licence} for name, licence in sorted(used)]


def video_reports(path: Path) -> list[dict[str, Any]]:
    """What became of each video that a file was made from; empty for files made otherwise.

    Raises:
        DatasetError: if the file cannot be read.
    """
    with schema.opened(path) as file:
        if GENERATION not in file:
            return []
        reports: list[dict[str, Any]] = json.loads(file[GENERATION].asstr()[()])
    return reports


def pass_on(
    builder: FileBuilder, paths: Sequence[Path], videos: Collection[str] | None = None
) -> None:
    """Note in a new file who labelled the files that it is made of.

    Args:
        builder: of the new file.
        paths: of the files.
        videos: those of which there are samples in it; None if of all.
    """
    reports = [
        report
        for path in paths
        for report in video_reports(path)
        if videos is None or report["video"] in videos
    ]
    if reports:
        builder.note(GENERATION, json.dumps(reports))
