"""Fill ``mlx_faceau/weights/`` with a pair of trained nets.

    python benchmarks/build_builtin.py LANDMARK_CKPT AU_CKPT [--faces FACES.h5 ...] \
        [--figures EVALUATION.json] [--version builtin-1] [--output DIR]

Averaged weights are taken where a checkpoint has them. Every file is written by the exporters of
the package, which check it. The same checkpoints give the same bytes.

``--faces`` are openly labelled faces of people whom no net was trained on: from them comes the
intensity from which each unit counts as present. ``--figures`` is the ``evaluation.json`` of
``builtin_evaluation.py`` on the pair that was built so, with ``evaluation.md`` beside it; without
it the model card says that nothing is measured. What the pair was trained on, and why, stands in
``builtin_model_card.md``.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

import numpy as np

from mlx_faceau import load_au_predictor
from mlx_faceau.convert.export_onnx import export_to_onnx
from mlx_faceau.convert.source_model import CombinedModel, SourceModel, read_source, save_weights
from mlx_faceau.convert.variants import HALF_WEIGHTS
from mlx_faceau.core.architectures import count_parameters
from mlx_faceau.core.checkpoint import file_hash, load_checkpoint
from mlx_faceau.core.facs import AU_NAMES, PRESENCE_KEY
from mlx_faceau.core.libraries import package_version
from mlx_faceau.core.metrics import MINIMUM_SUPPORT
from mlx_faceau.core.pdm import read_pdm
from mlx_faceau.core.provenance import pdm_of, training_stages
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import FaceauError
from mlx_faceau.output.openface_csv import PRESENCE_THRESHOLD
from mlx_faceau.output.tables import Table, au_label, number
from mlx_faceau.weights import builtin

CARD = Path(__file__).with_name("builtin_model_card.md")
CARD_NAME = "MODEL_CARD.md"
LICENCE_NOTE = "MIT: these weights may be used for any purpose; see MODEL_CARD.md."
STRONG, FAIR = (0.85, 0.8), (0.7, 0.65)  # least r with the labeller, and AUC on posed faces
# Figures of presence in an evaluation, and their digits in the card.
PRESENCE = (("presence_threshold", 2), ("faces_present", 0), ("f1", 2), ("balanced_accuracy", 2))
CANDIDATES = np.round(np.arange(0.3, 3.01, 0.05), 2)  # thresholds of presence
NETS = {
    "landmark_pose": "UnifiedLandmarkPoseNet | 68 landmarks, pose, 34 shape parameters",
    "au_prediction": "AUPredictionNet | intensities of 17 action units",
}
RESEARCH_ONLY = ("openface", "pyfaceau")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landmark_model", metavar="LANDMARK_CKPT")
    parser.add_argument("au_model", metavar="AU_CKPT")
    parser.add_argument("--version", choices=builtin.NAMES[1:], default=builtin.NAMES[-1])
    parser.add_argument("--faces", type=Path, nargs="+", metavar="FACES.h5")
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--output", type=Path, default=builtin.FOLDER)
    args = parser.parse_args()
    try:
        landmarks, units = read_source(args.landmark_model), read_source(args.au_model)
        if args.faces:
            levels = presence_thresholds(args.au_model, args.faces)
            units = replace(units, metadata={**units.metadata, PRESENCE_KEY: levels})
        pair = CombinedModel(landmarks, units)
        build(pair, args.output, args.version)
        write_card(pair, args.output, args.version, args.figures)
    except (FaceauError, ValueError, OSError) as error:
        print(f"build_builtin: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in args.output.iterdir()) / 1e6
    print(f"{args.output}: {args.version}, {size:.1f} MB")
    return 0


def presence_thresholds(model: Path | str, files: Sequence[Path]) -> dict[str, float]:
    """Of each unit the threshold with the highest F1 score; 1 where fewer than 50 faces show it.

    A unit is present in a face whose label is at least 1, FACS level A.
    """
    net, predicted, labels = load_au_predictor(model), [], []
    for faces in map(FaceDataset, files):
        crops = faces.read_images(np.arange(len(faces)))[..., ::-1]
        predicted.append(net.predict_batch(crops)["au_intensities"])
        labels.append(faces.labels["au_intensities"])
    present = np.concatenate(labels) >= PRESENCE_THRESHOLD  # (N, 17)
    found = [np.concatenate(predicted) >= level for level in CANDIDATES]
    f1 = [2 * (f & present).sum(0) / np.maximum(f.sum(0) + present.sum(0), 1) for f in found]
    best = CANDIDATES[np.argmax(f1, axis=0)]
    levels = np.where(present.sum(0) >= MINIMUM_SUPPORT, best, PRESENCE_THRESHOLD)
    return dict(zip((name.removesuffix("_r") for name in AU_NAMES), levels.tolist(), strict=True))


def build(pair: CombinedModel, folder: Path, version: str) -> None:
    """Write both nets twice, and the index; nothing counts before the index is there.

    Raises:
        ExportError: if a file does not compute what its net computes.
        ValueError: if the labels of a net may not be shipped, or its PDM is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / builtin.INDEX_NAME).unlink(missing_ok=True)
    own = builtin.FOLDER
    for name in (builtin.PDM_NAME, *(path.name for path in own.glob("NOTICE-*")), "LICENSE"):
        if not (folder / name).exists():
            shutil.copy(own / name, folder)
    files = [builtin.PDM_NAME]
    for part in pair.parts:
        source = named(part, folder, version)
        onnx, checkpoint = (folder / f"{part.kind}{end}" for end in (".onnx", ".safetensors"))
        print(export_to_onnx(source, onnx, precision=HALF_WEIGHTS).table())
        save_weights(source, checkpoint, HALF_WEIGHTS)
        saved, stored = load_checkpoint(checkpoint).weights(), source.rounded_to_half().weights
        if any(not np.array_equal(saved[name], stored[name]) for name in stored):
            raise ValueError(f"{checkpoint}: reads back as other weights")
        files += [onnx.name, checkpoint.name]
    hashes = {name: file_hash(folder / name) for name in sorted(files)}
    index = {"name": version, "files": hashes}
    (folder / builtin.INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", "utf-8")


def named(source: SourceModel, folder: Path, version: str) -> SourceModel:
    """The net with what the built-in one says about itself; ValueError if it may not be shipped."""
    for stage in training_stages(source.metadata):
        for who in (stage.get("data") or {}).get("labellers") or []:
            if any(name in who["labeller"].lower() for name in RESEARCH_ONLY):
                raise ValueError(
                    f"a {source.kind} net trained on labels of {who['labeller']} may not be shipped"
                )
    pdm = {"name": "open", "hash": read_pdm(folder / builtin.PDM_NAME).hash}
    own = pdm_of(source.metadata)
    if own and own["hash"] != pdm["hash"]:
        raise ValueError(
            f"the {source.kind} net was trained with the {own['name']} PDM {own['hash']}, "
            f"not with {builtin.PDM_NAME}, {pdm['hash']}"
        )
    more = {"builtin": version, "licence_note": LICENCE_NOTE, "pdm": pdm}
    return replace(source, metadata={**source.metadata, **more})


def write_card(
    pair: CombinedModel, folder: Path, version: str, figures: Path | None = None
) -> None:
    """``MODEL_CARD.md`` from its template; ValueError if the figures are no evaluation's."""
    nets = [
        f"| {NETS[part.kind]} | {count_parameters(part.config):,} "
        f"| `{part.metadata['source_hash']}` |"
        for part in pair.parts
    ]
    accuracy = units = "Not measured."
    if figures is not None:
        # The first of its tables; the second one is by unit.
        accuracy = figures.with_suffix(".md").read_text("utf-8").split("\n\n")[0]
        units = unit_table(json.loads(figures.read_text("utf-8"))).markdown()
    text = Template(CARD.read_text("utf-8")).substitute(
        version=version,
        nets="\n".join(nets),
        package_version=package_version(),
        training="\n\n".join(f"{part.kind}: {_training(part)}." for part in pair.parts),
        accuracy=accuracy,
        units=units,
    )
    (folder / CARD_NAME).write_text(text, "utf-8")


def unit_table(evaluation: dict) -> Table:
    """One row an action unit, with its grade."""
    rows = []
    try:
        people = evaluation["people"]
        net, labeller = (evaluation["posed"][name] for name in ("net", "labeller"))
        for name in AU_NAMES:
            unit = name.removesuffix("_r")
            r, area = people["au_r"][unit], net["auc"].get(unit)
            areas = (number(found, 2) for found in (area, labeller["auc"].get(unit)))
            neutral = f"{net['mean_of_neutral_faces'][unit]:.2f}"
            presence = [number(people[f"au_{key}"][unit], digits) for key, digits in PRESENCE]
            rows.append([au_label(name), grade(r, area), f"{r:.2f}", *areas, neutral, *presence])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no evaluation of builtin_evaluation.py: {error!r}") from None
    return Table(
        [
            *("unit", "grade", "net against labeller, r", "posed faces, AUC of the net"),
            *("of the labeller", "mean of neutral faces"),
            *("present from", "faces with it", "F1", "balanced accuracy"),
        ],
        rows,
    )


def grade(r: float, area: float | None) -> str:
    """Of a unit, by its agreement with the labeller and by faces that pose it, where they do."""
    areas = [] if area is None else [area]
    if r >= STRONG[0] and all(a >= STRONG[1] for a in areas):
        return "strong"
    return "fair" if r >= FAIR[0] and all(a >= FAIR[1] for a in areas) else "weak"


def _training(source: SourceModel) -> str:
    """Faces, settings and data hash of each training behind a net, the first one first."""
    trainings = []
    for stage in training_stages(source.metadata)[::-1]:
        data, settings = stage.get("data") or {}, stage.get("training") or {}
        faces = f"{data['training']:,} faces (SHA-256 `{data['hash']}`)" if data else "not recorded"
        shown = (f"{key} {value}" for key, value in settings.items() if value is not None)
        trainings.append(", ".join([faces, *shown]))
    return "; then ".join(trainings)


if __name__ == "__main__":
    sys.exit(main())
