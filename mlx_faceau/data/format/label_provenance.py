"""The labellers of a training file's faces, and the licences of their labels."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_faceau.errors import DatasetError

from . import schema
from .row_io import RowWriter

# Data set of a file made from videos: the videos' reports as JSON.
GENERATION = "metadata/generation"


def labellers(path: Path) -> list[dict[str, Any]]:
    """The labellers of a file made from videos or photographs; none where it records no videos.

    Each that labelled a sample once: ``labeller``, ``licence`` (empty where it names none) and, in
    newer files, ``pdm`` (``name`` and ``hash`` of its parameters' model, empty where unknown).
    """
    once: list[dict[str, Any]] = []
    for report in video_reports(path):
        keys = [key for key in ("labeller", "licence", "pdm") if key in report]
        entry: dict[str, Any] = {key: report[key] for key in keys}
        if report["kept"] and entry["labeller"] and entry not in once:
            once.append(entry)
    return sorted(once, key=lambda entry: (entry["labeller"], entry.get("pdm", {}).get("hash", "")))


def check_same_labels(labels: Mapping[str, Sequence[Mapping[str, Any]]], remedy: str) -> None:
    """Raise DatasetError unless all labels are of one labeller and all parameters of one PDM.

    ``labels`` are for each file what :func:`labellers` returns; what is not recorded agrees with
    everything. ``remedy`` tells in the error what to do.
    """
    names: dict[str, str] = {}  # labeller -> a file
    pdms: dict[str, str] = {}  # hash -> a file
    for name, entries in labels.items():
        for entry in entries:
            names.setdefault(entry["labeller"], name)
            if digest := entry.get("pdm", {}).get("hash"):
                pdms.setdefault(digest, name)
    if len(names) > 1:
        (one, first), (other, second), *_ = names.items()
        raise DatasetError(
            f"{first} is labelled by {one}, {second} by {other}: labels of two conventions, which "
            f"no net can learn at once; {remedy}"
        )
    if len(pdms) > 1:
        first, second, *_ = pdms.values()
        raise DatasetError(
            f"{first} and {second} have parameters of different PDMs: the same numbers mean other "
            f"shapes; {remedy}"
        )


def video_reports(path: Path) -> list[dict[str, Any]]:
    """The report of each video that a file was made from; empty for files made otherwise."""
    with schema.opened(path) as file:
        if GENERATION not in file:
            return []
        reports = json.loads(file[GENERATION].asstr()[()])
    if not isinstance(reports, list) or not all(map(_is_report, reports)):
        raise DatasetError(f"{path}: {GENERATION!r} is not a list of reports; write the file again")
    return reports


def _is_report(value: Any) -> bool:
    kinds = {"video": str, "kept": int, "labeller": str, "licence": str, "pdm": dict}
    older = {"licence": "", "pdm": {}}  # files may lack these
    if not isinstance(value, dict):
        return False
    value = {**older, **value}
    typed = all(isinstance(value.get(name), kind) for name, kind in kinds.items())
    named = typed and all(isinstance(value["pdm"].get(key), str) for key in ("name", "hash"))
    return typed and (named or not value["pdm"])


def copy_provenance(
    file: RowWriter, sources: Sequence[Path], videos: Collection[str] | None = None
) -> None:
    """Record in a new file who labelled its sources: all their ``videos``, or those named."""
    reports = [
        report
        for path in sources
        for report in video_reports(path)
        if videos is None or report["video"] in videos
    ]
    if reports:
        file.write_text(GENERATION, json.dumps(reports))
