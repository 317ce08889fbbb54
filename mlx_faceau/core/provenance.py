"""The trainings behind a net's weights: the last one, and those whose weights it started from.

A checkpoint records its own training, and under ``init`` that of the checkpoint which ``--init``
named, with its ``init`` in turn. Files made from a checkpoint pass this on.
"""

from collections.abc import Mapping
from typing import Any

from .checkpoint import Checkpoint, describe
from .facs import PRESENCE_KEY
from .setting_names import current_settings

# Of a training's settings those that a reader wants; paths concern one machine alone.
ESSENTIALS = (
    *("framework", "epochs", "batch_size", "lr", "augment", "ema", "seed"),
    *("horizontal_flip", "relabel_flipped", "auxiliary_weight", "cutmix_faces"),
)


def training_stages(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The metadata of a net's file, then each ``init`` in it: its trainings, the last one first.

    An ``init`` has the ``hash`` of that checkpoint's file, and ``data`` and ``training`` where they
    are known. Older checkpoints know the hash alone; imported weights have neither.
    """
    found = [metadata]
    while init := found[-1].get("init"):
        found.append(init)
    return found


def provenance(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a file made from a checkpoint records about all trainings behind it; no paths."""
    carried: dict[str, Any] = {}
    for stage in reversed(training_stages(metadata)):
        recorded = {key: stage[key] for key in ("hash", "data") if stage.get(key)}
        training = current_settings(stage.get("training") or {})
        if settings := {key: training[key] for key in ESSENTIALS if key in training}:
            recorded["training"] = settings
        carried = {**recorded, **({"init": carried} if carried else {})}
    return carried


def carried_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata of a file made from a checkpoint: the net, its source and all trainings."""
    carried = provenance(checkpoint.metadata)
    for key in (
        *("crop", "target_statistics", "confidence", PRESENCE_KEY),
        *("builtin", "licence_note", "refitted"),
    ):
        if checkpoint.metadata.get(key):
            carried[key] = checkpoint.metadata[key]
    if pdm := pdm_of(checkpoint.metadata):
        carried["pdm"] = pdm
    return describe(checkpoint.config, source_hash=checkpoint.hash, **carried)


def pdm_of(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """The point distribution model that a net's shape parameters belong to.

    Its ``name`` and ``hash`` (empty where its file was not at hand), from the labels of the last
    training; None where that is not recorded, or the labels are of several.
    """
    if recorded := metadata.get("pdm"):
        return dict(recorded)
    labellers = (metadata.get("data") or {}).get("labellers") or []
    pdms = {(p["name"], p["hash"]) for who in labellers if (p := who.get("pdm"))}
    return dict(zip(("name", "hash"), pdms.pop(), strict=True)) if len(pdms) == 1 else None


def training_hashes(metadata: Mapping[str, Any]) -> list[str]:
    """Hashes of the files that the net was trained on, in any of its trainings, and of some faces.

    Checkpoints that do not name each file have one hash of all: of a file, or of several in a row.
    Older ones have no fingerprint of their faces.
    """
    hashes: list[str] = []
    for stage in training_stages(metadata):
        data = stage.get("data") or {}
        hashes += data.get("files") or ([data["hash"]] if "hash" in data else [])
        hashes += data.get("fingerprint") or data.get("sketch") or []  # the older name
    return hashes
