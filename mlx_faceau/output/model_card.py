"""``MODEL_CARD.md`` beside exported files: what the net is, its training data, accuracy and limits.

It quotes what the checkpoint, its training history and an evaluation record, and nothing else.

Reference:
    Mitchell et al., Model cards for model reporting, FAT* 2019 (the sections).
"""

import json
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mlx_faceau.core.architectures import CONFIGS, HOGHeadConfig, ModelConfig, count_parameters
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.checkpoint import (
    LICENCE_NOTE,
    WEIGHTS_SUFFIX,
    config_of,
    describe,
    file_hash,
    find_checkpoint,
    read_metadata,
)
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import ANGLES
from mlx_faceau.core.provenance import ESSENTIALS, training_hashes, training_stages
from mlx_faceau.core.setting_names import current_settings
from mlx_faceau.errors import CheckpointError

from .tables import Table, accuracy_tables
from .templates import render

CARD_NAME = "MODEL_CARD.md"
EVALUATION_NAME = "evaluation.json"
_HISTORY_NAME = "training_history.json"
_NOT_MEASURED = (
    "Not measured. `mlx-faceau evaluate` with `--output` beside the checkpoint, and an export "
    "after that, put the figures here."
)
# What a JSON file with other values than ours raises while it is quoted.
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

_QUOTED = ("faces", "training", "validation", "split_by", "hash")  # of a training's data

_LOG = logging.getLogger(__name__)
_FORMATS = {ONNX_SUFFIX: "ONNX", COREML_SUFFIX: "Core ML", WEIGHTS_SUFFIX: "weights"}
_START = "<!-- mlx-faceau {}: every export rewrites this part; add your text before or after it -->"
_END = "<!-- end of {} -->"
_SECTION = re.compile(r"<!-- mlx-faceau (\w+)\b[^\n]*-->.*?<!-- end of \1 -->", re.DOTALL)
_NETS = {
    "landmark_pose": (
        "UnifiedLandmarkPoseNet",
        "68 facial landmarks, 6 global (pose) and 34 local shape parameters of a point "
        "distribution model",
    ),
    "au_prediction": (
        "AUPredictionNet",
        "the intensity, 0 to 5, of 17 facial action units (FACS)",
    ),
}
_OUTPUTS = {
    "landmarks": "pixels of the crop, x to the right and y down",
    "global_params": "scale, rx, ry, rz in radians, tx, ty in pixels of the crop",
    "local_params": "shape coefficients",
    "au_intensities": "0 to 5 after clamping, in the order "
    + ", ".join(name.removesuffix("_r") for name in AU_NAMES),
}


def write_model_card(
    checkpoint: Path | str,
    folder: Path | str,
    width_mult: float | None = None,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Write the card of a net into the folder of its exported files; its path.

    A folder that holds both nets gets one card with a section for each. Other text in the card is
    kept. A file of that name without such a section is not changed (which is logged). The training
    history and an evaluation of this very checkpoint are quoted where they lie beside it; an
    evaluation also where it lies in ``folder``.

    Args:
        checkpoint: ``.safetensors``, a run's folder, or a ``.pt`` file of the original tool.
        width_mult: of a ``.pt`` file's net, where it cannot be found out.
        made: metadata of another net that was made of the checkpoint, whose card it is.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
    """
    path, folder = Path(checkpoint), Path(folder)
    if path.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        metadata: Mapping[str, Any] = describe(read_pyfaceau(path, width_mult)[0])
    else:
        path = find_checkpoint(path)
        metadata = read_metadata(path) if made is None else made
    card = folder / CARD_NAME
    old = _old_card(card)
    if old is None:
        _LOG.warning("%s was written by another program: remove it to get a model card", card)
        return card
    config = config_of(metadata, path)
    own = file_hash(path) if made is None else metadata["source_hash"]
    section = _section(config, metadata, own, path, folder).strip()
    section = f"{_START.format(config.kind)}\n{section}\n{_END.format(config.kind)}"
    with atomic_file(card) as temporary:
        temporary.write_bytes(
            _with_section(old, config.kind, section).encode(errors="backslashreplace")
        )
    return card


def _old_card(card: Path) -> str | None:
    """The card's text, to the byte; None where the file has no section of ours."""
    if not card.exists():
        return ""
    try:
        old = card.read_bytes().decode("utf-8") if card.is_file() else None
    except UnicodeDecodeError:
        return None
    return old if not old or _SECTION.search(old) else None


def _with_section(old: str, kind: str, section: str) -> str:
    """A card with one net's section replaced, or inserted beside the other net's."""
    there = {found[1]: found for found in _SECTION.finditer(old)}
    if kind in there:
        return _SECTION.sub(lambda found: section if found[1] == kind else found[0], old)
    if not there:
        return f"{section}\n"
    other = next(iter(there.values()))
    if kind == next(iter(CONFIGS)):
        return f"{old[: other.start()]}{section}\n\n{old[other.start() :]}"
    return f"{old[: other.end()]}\n\n{section}{old[other.end() :]}"


def _section(
    config: ModelConfig, metadata: Mapping[str, Any], own: str, path: Path, folder: Path
) -> str:
    net, predicts = _NETS[config.kind]
    if isinstance(config, HOGHeadConfig):
        net += f" with a {'refitted ' if metadata.get('refitted') else ''}HOG head"
    # Of weights that were taken out of a checkpoint, the checkpoint's evaluation and files as well.
    sources = {own, metadata.get("source_hash", own)}
    trainings = training_stages(metadata)
    known = [training["data"] for training in trainings if training.get("data")]
    stages = []
    for training in trainings[::-1]:
        settings = current_settings(training.get("training") or {})
        shown = [f"{k} {settings[k]}" for k in ESSENTIALS if settings.get(k) is not None]
        data = training.get("data") or {}
        complete = all(data.get(key) is not None for key in _QUOTED)
        stage = {"hash": training.get("hash"), "data": data if complete else None}
        stages.append({**stage, "settings": ", ".join(shown)})
    labellers = [
        f"{who['labeller']}: {who.get('licence') or 'names none'}"
        for data in known
        for who in data.get("labellers") or ()
    ]
    try:
        spread = _spread(metadata)
    except _DAMAGED:
        spread = "Mean and deviation of its labels are damaged and are not quoted."
    return render(
        "model_card.md",
        net=net,
        predicts=predicts,
        parameters=count_parameters(config),
        width=config.width_mult,
        version=metadata.get("package_version") or "unknown",
        outputs=[(name, shape, _OUTPUTS[name]) for name, shape in config.output_shapes.items()],
        hash=own,
        files=_exported_files(config.kind, sources, folder),
        stages=stages,
        spread=spread,
        accuracy=recorded_accuracy(metadata, sources, path.parent, folder),
        licence_note=metadata.get("licence_note") or LICENCE_NOTE,
        any_data=bool(known),
        labellers=list(dict.fromkeys(labellers)),
        unlabelled=not all(data.get("labellers") for data in known),
        unrecorded_stage=len(known) < len(trainings),
    )


def _exported_files(kind: str, sources: Collection[str], folder: Path) -> Sequence[tuple[str, ...]]:
    """Name, format, precision and hash of the exported files in the folder that are of this net."""
    rows = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in _FORMATS):
        if path.name.startswith("."):  # left by an export that was killed, or in its hands
            continue
        try:
            read = read_metadata if path.suffix == WEIGHTS_SUFFIX else read_exported_metadata
            metadata = read(path) or {}
        except CheckpointError:  # not a file of ours
            continue
        own = (metadata.get("nets") or {}).get(kind) or metadata
        if own.get("source_hash") in sources:
            precision = metadata.get("precision", "float32")
            file = f"`{file_hash(path)}`" if path.is_file() else "(a folder)"
            rows.append((path.name, _FORMATS[path.suffix], precision, file))
    return rows


def _spread(metadata: Mapping[str, Any]) -> str:
    """Mean and deviation of the training faces' pose or intensities, where they are recorded."""
    statistics = metadata.get("target_statistics") or {}
    if metadata["kind"] == "landmark_pose" and "global_params" in statistics:
        pose = statistics["global_params"]
        turns = zip(ANGLES, pose["mean"][1:4], pose["deviation"][1:4], strict=True)
        shown = (f"{n} {math.degrees(m):z.0f} ± {math.degrees(d):.0f}" for n, m, d in turns)
        return f"Head pose in degrees, mean ± standard deviation: {', '.join(shown)}."
    if metadata["kind"] == "au_prediction" and "au_intensities" in statistics:
        aus = statistics["au_intensities"]
        both = zip(AU_NAMES, aus["mean"], aus["deviation"], strict=True)
        shown = (f"{name.removesuffix('_r')} {m:.2f} ± {d:.2f}" for name, m, d in both)
        return f"Intensities, mean ± standard deviation: {', '.join(shown)}."
    return ""


def recorded_accuracy(
    metadata: Mapping[str, Any], sources: Collection[str], run: Path, folder: Path
) -> list[str]:
    """Paragraphs and tables about the accuracy of a net, from its run's folder or another one.

    An evaluation counts if it is of this very checkpoint, whose SHA-256 is among ``sources``; else
    the training's own validation after the epoch at which the checkpoint was saved.
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
