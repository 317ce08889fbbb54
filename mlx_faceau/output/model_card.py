"""``MODEL_CARD.md`` beside exported files: what the net is, learned from, reaches, and is not for.

It says what the checkpoint, its training history and an evaluation record, and nothing else.

Reference:
    Mitchell et al., Model cards for model reporting, FAT* 2019 (the sections).
"""

import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_faceau.core.architectures import CONFIGS, ModelConfig, count_parameters
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.checkpoint import (
    LICENCE_NOTE,
    config_of,
    describe,
    file_hash,
    find_checkpoint,
    read_metadata,
)
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.provenance import ESSENTIALS, stages
from mlx_faceau.errors import CheckpointError

from .accuracy_section import recorded_accuracy

CARD_NAME = "MODEL_CARD.md"

WEIGHTS_SUFFIX = ".safetensors"

_LOG = logging.getLogger(__name__)
_FORMATS = {ONNX_SUFFIX: "ONNX", COREML_SUFFIX: "Core ML", WEIGHTS_SUFFIX: "weights"}
_START = "<!-- mlx-faceau {}: every export writes this part anew; yours goes before or after it -->"
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
_USE = """\
Meant for measuring faces in pictures and videos whose use the people shown, and the law, allow:
facial behaviour research, animation, interface prototypes. Validate it on pictures like yours
before you rely on a figure.

Not meant for telling who somebody is, nor for judging emotion, intent, truthfulness, health or
fitness for anything: an action unit is a movement of the face, not its reason. Not meant for
decisions about a person."""
_LIMITS = """\
- It reads the standard crop: the square around the 68 landmarks' bounding box, 1.4 times its longer
  side. Crops from a face detector's box alone differ from it; the accuracy under such crops stands
  above where it was measured.
- It repeats its labels, their errors included: labels made by another program are not the
  judgement of trained FACS coders, and the figures above say how well the net agrees with them.
- Poses, lighting, occlusion and picture quality that are rare in its training faces were learned
  from few examples.
- Training files of mlx-faceau do not label age, gender, skin colour, ethnicity or disability, so
  nothing is known about how accuracy differs between such groups. Do not take it for equal."""


def write_model_card(
    checkpoint: Path | str, folder: Path | str, width_mult: float | None = None
) -> Path:
    """Write the card of a net into the folder that its exported files lie in.

    A folder that holds both nets gets one card with a section for each. What else stands in the
    card is kept. A file of that name without such a section is left alone (which is logged).

    Args:
        checkpoint: ``.safetensors``, a run's folder, or a ``.pt`` file of the original tool. The
            training history and an evaluation of this very checkpoint are quoted where they lie
            beside it; an evaluation also where it lies in ``folder``.
        folder: gets ``MODEL_CARD.md``.
        width_mult: of a ``.pt`` file's net, where it cannot be found out.

    Returns:
        The card's path.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OSError: if the card cannot be read or written.
    """
    path, metadata = _open(Path(checkpoint), width_mult)
    folder = Path(folder)
    card = folder / CARD_NAME
    old = _old_card(card)
    if old is None:
        _LOG.warning("%s is not ours and stays as it is: remove it to get a model card", card)
        return card
    config = config_of(metadata, path)
    paragraphs = "\n\n".join(_section(config, metadata, path, folder))
    section = f"{_START.format(config.kind)}\n{paragraphs}\n{_END.format(config.kind)}"
    with atomic_file(card) as temporary:
        temporary.write_bytes(_with_section(old, config.kind, section).encode())
    return card


def _old_card(card: Path) -> str | None:
    """The text that stands there, to the byte; None where it has no section of ours."""
    if not card.exists():
        return ""
    if not card.is_file():
        return None
    try:
        old = card.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return old if not old or _SECTION.search(old) else None


def _with_section(old: str, kind: str, section: str) -> str:
    """A card with one net's section renewed in its place, or put beside the other net's."""
    there = {found[1]: found for found in _SECTION.finditer(old)}
    if kind in there:
        return _SECTION.sub(lambda found: section if found[1] == kind else found[0], old)
    kinds = list(CONFIGS)
    later = [there[other].start() for other in kinds[kinds.index(kind) :] if other in there]
    if later:
        return f"{old[: later[0]]}{section}\n\n{old[later[0] :]}"
    if not there:
        return f"{section}\n"
    end = max(found.end() for found in there.values())
    return f"{old[:end]}\n\n{section}{old[end:]}"


def _open(path: Path, width_mult: float | None) -> tuple[Path, dict[str, Any]]:
    if path.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        return path, describe(read_pyfaceau(path, width_mult)[0])
    return find_checkpoint(path), read_metadata(path)


def _section(
    config: ModelConfig, metadata: Mapping[str, Any], path: Path, folder: Path
) -> Iterator[str]:
    name, gives = _NETS[config.kind]
    own = file_hash(path)
    # Of weights that were taken out of a checkpoint, the checkpoint's evaluation and files as well.
    sources = {own, metadata.get("source_hash", own)}
    yield f"# {name}"
    yield (
        f"Gives {gives}, of a 112 x 112 RGB crop of one face. {count_parameters(config):,} "
        f"parameters (width {config.width_mult:g}), made with mlx-faceau "
        f"{metadata['package_version']}."
    )
    yield "\n".join(
        f"- `{key}` {_shape(config, key)}: {_OUTPUTS[key]}" for key in config.output_shapes
    )
    yield f"Checkpoint, SHA-256: `{own}`"
    yield from _files(config.kind, sources, folder)
    yield "## Training data"
    yield from _data(metadata)
    yield "## Accuracy"
    yield from recorded_accuracy(metadata, sources, path.parent, folder)
    yield f"## Intended use\n\n{_USE}"
    yield f"## Limits\n\n{_LIMITS}"
    yield f"## Licence\n\n{_licence(metadata)}"


def _shape(config: ModelConfig, output: str) -> str:
    return f"({', '.join(map(str, config.output_shapes[output]))})"


def _files(kind: str, sources: Collection[str], folder: Path) -> Iterator[str]:
    """The exported files in the folder whose weights are this checkpoint's."""
    rows = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in _FORMATS):
        metadata = _metadata_of(path)
        own = metadata.get("nets", {}).get(kind, metadata)
        if own.get("source_hash") in sources:
            digest = f"`{file_hash(path)}`" if path.is_file() else "(a folder)"
            precision = metadata.get("precision", "float32")
            rows.append(f"| `{path.name}` | {_FORMATS[path.suffix]} | {precision} | {digest} |")
    if rows:
        yield "\n".join(["| file | format | precision | SHA-256 |", "|---|---|---|---|", *rows])


def _metadata_of(path: Path) -> Mapping[str, Any]:
    """What a file says about itself; nothing where it is not ours."""
    try:
        read = read_metadata if path.suffix == WEIGHTS_SUFFIX else read_exported_metadata
        return read(path) or {}
    except CheckpointError:
        return {}


def _data(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What each training saw, in their order, and how far the last one's faces reach."""
    trainings = stages(metadata)[::-1]
    if len(trainings) > 1:
        yield (
            f"{len(trainings)} stages, each of which started from the weights of the one before."
        )
    for number, training in enumerate(trainings, 1):
        stage = f"**Stage {number}.** " if len(trainings) > 1 else ""
        yield f"{stage}{_faces(training)}"
    yield from _spread(metadata)


def _faces(training: Mapping[str, Any]) -> str:
    data = training.get("data")
    if not data:
        which = f" (SHA-256 `{training['hash']}`)" if "hash" in training else ""
        return (
            f"Not recorded: the weights{which} were imported, or trained by another program or "
            "an older version."
        )
    people = f" of {data['people']:,} people, as far as they are named" if "people" in data else ""
    settings = training.get("training") or {}
    shown = (f"{key} {settings[key]}" for key in ESSENTIALS if settings.get(key) is not None)
    return (
        f"{data['faces']:,} faces{people}: {data['training']:,} to train on, "
        f"{data['validation']:,} to choose the best epoch (split by: {data['split_by']}). "
        f"SHA-256 of the labels and of eight images: `{data['hash']}`."
        + (f" Trained with {', '.join(shown)}." if settings else "")
    )


def _spread(metadata: Mapping[str, Any]) -> Iterator[str]:
    """How far the training faces reach, as far as means and deviations tell."""
    statistics = metadata.get("target_statistics") or {}
    if metadata["kind"] == "landmark_pose" and "global_params" in statistics:
        pose = statistics["global_params"]
        turns = zip(
            ("pitch", "yaw", "roll"), pose["mean"][1:4], pose["deviation"][1:4], strict=True
        )
        shown = (f"{n} {math.degrees(m):.0f} ± {math.degrees(d):.0f}" for n, m, d in turns)
        yield f"Head pose in degrees, mean ± standard deviation: {', '.join(shown)}."
    elif metadata["kind"] == "au_prediction" and "au_intensities" in statistics:
        aus = statistics["au_intensities"]
        both = zip(AU_NAMES, aus["mean"], aus["deviation"], strict=True)
        shown = (f"{name.removesuffix('_r')} {m:.2f} ± {d:.2f}" for name, m, d in both)
        yield f"Intensities, mean ± standard deviation: {', '.join(shown)}."


def _licence(metadata: Mapping[str, Any]) -> str:
    note = metadata.get("licence_note", LICENCE_NOTE)
    found = [training.get("data") for training in stages(metadata)]
    known = [data for data in found if data]
    if not known:
        return f"{note} What these are is not recorded: ask where the weights come from."
    named = [who for data in known for who in data.get("labellers") or ()]
    lines = [f"- {who['labeller']}: {who['licence'] or 'names none'}" for who in named]
    paragraphs = [note]
    if lines:
        paragraphs[0] += " What the training files record of their labels:"
        paragraphs.append("\n".join(dict.fromkeys(lines)))
    if not all(data.get("labellers") for data in known):
        which = "Some of the" if lines else "The"
        paragraphs.append(
            f"{which} training files do not say who labelled them: ask who made them."
        )
    if len(known) < len(found):
        paragraphs.append("An earlier stage is not recorded: ask where its weights come from.")
    return "\n\n".join(paragraphs)
