"""The accuracy that is recorded beside a checkpoint, as Markdown for its model card.

An evaluation counts if it is of this very checkpoint; else the training's own validation after
the epoch at which the checkpoint was saved.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from mlx_faceau.core.provenance import training_hashes

from .tables import Table, accuracy_tables

EVALUATION_NAME = "evaluation.json"
_HISTORY_NAME = "training_history.json"
_NOT_MEASURED = (
    "Not measured. `mlx-faceau evaluate` with `--output` beside the checkpoint, and an export "
    "after that, put the figures here."
)
# What a JSON file with other values than ours raises while it is quoted.
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def recorded_accuracy(
    metadata: Mapping[str, Any], sources: Collection[str], run: Path, folder: Path
) -> list[str]:
    """Paragraphs and tables about a net's accuracy.

    Args:
        metadata: the checkpoint's.
        sources: its SHA-256, and that of the file its weights were taken from.
        run: the checkpoint's folder.
        folder: another one in which an evaluation may lie.
    """
    damaged: list[str] = []
    places = [place / EVALUATION_NAME for place in dict.fromkeys((folder, run))]
    for path, quote in [*((p, _evaluation) for p in places), (run / _HISTORY_NAME, _validation)]:
        try:
            if path.exists() and (
                found := quote(json.loads(path.read_text("utf-8")), metadata, sources)
            ):
                return [*damaged, *found]
        except (*_DAMAGED, OSError, RecursionError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            damaged.append(f"`{path.name}` is damaged ({reason}) and is not quoted.")
    return [*dict.fromkeys(damaged), _NOT_MEASURED]


def _evaluation(
    record: Mapping[str, Any], metadata: Mapping[str, Any], sources: Collection[str]
) -> list[str]:
    """What ``evaluation.json`` holds; nothing if it is of another checkpoint."""
    model, data = record["model"], record["data"]["hash"]
    if model["checkpoint"] not in sources or record["kind"] != metadata["kind"]:
        return []
    file = PurePath(model["file"])
    plain = "float32" if file.suffix in (".safetensors", ".pt") else "precision not recorded"
    if "tables" in record:
        summary, notes = record["summary"], record["notes"]
        tables = [Table(**table) for table in record["tables"]]
    else:  # written before evaluations recorded their tables
        summary, notes = f"{record['faces']:,} faces", []
        conditions = {name: record[name] for name in ("net", "jittered", "constant")}
        tables = accuracy_tables(record["kind"], conditions, record["intervals"])
    paragraphs = [
        f"By `mlx-faceau evaluate`: {summary}. SHA-256 of the labels and of eight "
        f"images: `{data}`. The measured file is `{file.name}` "
        f"({model.get('precision') or plain}), run by the {model['backend']} backend; files of "
        "another precision differ a little."
    ]
    if record["trained_on"] or data in training_hashes(metadata):
        paragraphs.append(
            "**The net was trained on some of these very faces**: the figures do not hold for "
            "other people."
        )
    paragraphs += [table.markdown() for table in tables]
    return [*paragraphs, *(["\n".join(f"- {note}" for note in notes)] if notes else [])]


def _validation(
    history: Mapping[str, Any], metadata: Mapping[str, Any], _: Collection[str]
) -> list[str]:
    """The validation after the checkpoint's own epoch; nothing if the history has none of it."""
    data, progress = metadata.get("data") or {}, metadata.get("progress") or {}
    if "hash" not in data or history["data"]["hash"] != data["hash"] or progress.get("batch") != 0:
        return []
    epochs = {entry["epoch"]: entry for entry in history["epochs"]}
    if progress["epoch"] not in epochs:
        return []
    own = epochs[progress["epoch"]]
    tables = accuracy_tables(metadata["kind"], {"net": own["metrics"]})
    losses = {n: e["validation"]["loss"] for n, e in epochs.items()}
    known = {number: float(loss) for number, loss in losses.items() if loss is not None}
    best = min(known, key=lambda number: known[number], default=own["epoch"])
    where = f"On the faces that its training validated on, after epoch {own['epoch']}"
    if (metadata.get("training") or {}).get("overfit"):
        about = (
            f"On the few faces that the net was overfitted to, after epoch {own['epoch']}: **it "
            "was trained on them**, so this says nothing about other faces."
        )
    elif own["epoch"] == best:
        about = f"{where}, the faces that chose the epoch: expect a little less on other people."
    else:
        about = f"{where}; the best epoch was {best}."
    return [about, *(table.markdown() for table in tables)]
