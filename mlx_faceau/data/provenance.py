"""Who labelled a file's faces, and what for these labels may be used."""

import json
from pathlib import Path

from . import schema

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
    with schema.opened(path) as file:
        if GENERATION not in file:
            return []
        reports = json.loads(file[GENERATION].asstr()[()])
    used = {(r["labeller"], r["licence"]) for r in reports if r["kept"] and r["labeller"]}
    return [{"labeller": name, "licence": licence} for name, licence in sorted(used)]
