"""``mlx-faceau export``: a checkpoint as ONNX, Core ML and plain weights, with a check."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import UsageError

if TYPE_CHECKING:
    from mlx_faceau.convert.check import CalibrationFaces, Check
    from mlx_faceau.convert.source_model import CombinedModel, SourceModel
    from mlx_faceau.convert.variants import Variant

CALIBRATION_FACES, MEASURED_FACES = 256, 512
BOXES_NAME = "detector_boxes.json"  # how each detector's box maps to the crop
SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage", "safetensors": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s CHECKPOINT [options]\n       %(prog)s --combine LANDMARKS AU [options]"
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?",
        help=".safetensors, .pt, a run's folder, or builtin (both)",
    )
    parser.add_argument(
        "--combine",
        nargs="*",
        metavar="LANDMARKS AU",
        help="both nets in one file: two checkpoints, or builtin",
    )
    parser.add_argument(
        "--to",
        default="onnx",
        metavar="FORMATS",
        help="onnx (default), coreml, safetensors (weights alone), or several with commas",
    )
    parser.add_argument(
        "--output",
        metavar="DIR|FILE",
        help="folder, or the one file (default: the checkpoint's folder; of builtin for coreml the "
        "cache that predict reads)",
    )
    parser.add_argument(
        "--width-mult", type=float, metavar="WIDTH", help="width of a .pt's net, if it is unusual"
    )
    parser.add_argument(
        "--hog-head",
        action="store_true",
        help="action units from gradients of the aligned face, nearer to OpenFace's than the "
        "net's own; needs a training with --auxiliary-weight",
    )
    parser.add_argument(
        "--refit",
        nargs="*",
        metavar="FILE.h5",
        help="fit the HOG head's linear parts to the training faces as the trained net finds them; "
        "name the training's files if they have moved, those of --val-data last (minutes; nearer "
        "still)",
    )
    group = parser.add_argument_group("which file (docs/export.md has the table)")
    group.add_argument(
        "--precision",
        choices=("float32", "float16", "float16-weights", "int8"),
        help="float16-weights computes in float32 (default: float32 for onnx, float16 for coreml)",
    )
    group.add_argument("--opset", type=int, help="opset of the ONNX file, 12 to 21 (default: 17)")
    group.add_argument(
        "--batch",
        type=_batch,
        metavar="N|dynamic",
        help="faces per call (default: dynamic for onnx, 1 for coreml)",
    )
    group.add_argument(
        "--input",
        choices=("tensor", "uint8", "image"),
        default="tensor",
        help="float32 RGB in [0, 1] (default), cv2's crops (onnx), an image (coreml)",
    )
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--calibration",
        metavar="FILE.h5",
        help="labelled faces of training people, which set the scales",
    )
    group.add_argument(
        "--validation",
        metavar="FILE.h5",
        help="labelled faces of other people, to measure the accuracy on (default: a tenth of the "
        "calibration file's people, held out)",
    )
    group.add_argument(
        "--force", action="store_true", help="keep a file that loses more accuracy than allowed"
    )


def _batch(text: str) -> int | str:
    if text == "dynamic":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number or dynamic") from None


def run(args: argparse.Namespace) -> int:
    formats = _formats(args)
    models = _models(args, formats)
    return max([_export_model(paths, output, formats, args) for paths, output in models])


def _formats(args: argparse.Namespace) -> list[str]:
    formats = list(dict.fromkeys(name.strip() for name in args.to.split(",")))
    if unknown := [name for name in formats if name not in SUFFIXES]:
        raise UsageError(f"--to {args.to}: unknown {unknown[0]!r}, expected {', '.join(SUFFIXES)}")
    if args.combine is not None and "safetensors" in formats:
        raise UsageError("--combine: a checkpoint holds one net; leave safetensors out of --to")
    if args.refit is not None and not args.hog_head:
        raise UsageError("--refit is for --hog-head")
    int8 = args.precision == "int8"
    for flag in ("calibration", "validation", "force"):
        if getattr(args, flag) and not int8:
            raise UsageError(f"--{flag} is for --precision int8")
    if int8 and not args.calibration:
        raise UsageError("--precision int8 needs --calibration FILE.h5, labelled training faces")
    return formats


def _models(args: argparse.Namespace, formats: list[str]) -> list[tuple[list[str], str | None]]:
    """The checkpoints of each model to write, two of a combined one, and its --output."""
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights.builtin import BUILTIN, checkpoint_of, coreml_file, is_builtin

    checkpoint, pair = args.checkpoint, args.combine
    if pair is not None:
        if (pair, checkpoint) in (([BUILTIN], None), ([], BUILTIN)):
            pair, checkpoint = [BUILTIN, BUILTIN], None
        if len(pair) != 2 or checkpoint is not None:
            raise UsageError("--combine takes both nets, LANDMARKS AU, or builtin")
        if args.output is None and is_builtin(pair[0]):
            raise UsageError("builtin: give --output, a folder or the file to write")
        both = zip(pair, CONFIGS, strict=True)
        pair = [str(checkpoint_of(kind)) if is_builtin(path) else path for path, kind in both]
        return [(pair, args.output)]
    if checkpoint is None:
        before = " before --refit" if args.refit else ""
        raise UsageError(f"give one checkpoint{before}, or --combine LANDMARKS AU")
    if not is_builtin(checkpoint):
        return [([checkpoint], args.output)]
    if args.output is None and formats != ["coreml"]:
        raise UsageError("builtin: give --output DIR; only --to coreml has a folder of its own")
    if args.output and Path(args.output).suffix in SUFFIXES.values():
        raise UsageError(f"--output {args.output}: builtin is two nets; name a folder")
    return [
        ([str(checkpoint_of(kind))], args.output or str(coreml_file(kind).parent))
        for kind in CONFIGS
    ]


def _export_model(
    checkpoints: list[str], output: str | None, formats: list[str], args: argparse.Namespace
) -> int:
    """Write one model in every format; the exit status."""
    from mlx_faceau.convert.check import CheckFailed
    from mlx_faceau.convert.source_model import CombinedModel, read_source
    from mlx_faceau.convert.variants import Variant
    from mlx_faceau.core.architectures import HOGHeadConfig
    from mlx_faceau.output.model_card import write_model_card
    from mlx_faceau.video.box_calibration import save_calibrations

    variants = {}
    for form in formats:  # all are checked before any work
        # An option that another format of the same command takes is meant for that one.
        if form == "safetensors" and len(formats) > 1:
            variants[form] = Variant(form)
            continue
        opset = args.opset if form == "onnx" or "onnx" not in formats else None
        variants[form] = Variant(form, args.precision, args.input, args.batch, opset)
    combined = len(checkpoints) > 1
    plain = checkpoints[:-1] if args.hog_head else checkpoints
    sources: list[Any] = [
        read_source(path, args.width_mult if not combined or path.endswith(".pt") else None)
        for path in plain
    ]
    sources += [_with_hog_head(path) for path in checkpoints[len(plain) :]]
    source = CombinedModel(*sources) if combined else sources[0]
    hog = any(isinstance(part.config, HOGHeadConfig) for part in source.parts)
    name = f"{source.kind}_hog" if hog else source.kind
    targets = _targets(Path(checkpoints[0]), output, formats, name)
    faces, status = None, 0
    written: dict[Path, None] = {}
    if args.calibration:
        faces = read_faces(args.calibration, args.validation, source.output_shapes)
    if args.refit is not None:  # takes minutes, so it comes after all checks
        sources[-1] = _with_hog_head(checkpoints[-1], args.refit)
        source = CombinedModel(*sources) if combined else sources[0]
    made = {checkpoints[-1]: sources[-1].metadata} if args.hog_head else {}
    for form, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            check = _write(source, path, variants[form], faces, args.force)
        except CheckFailed as error:
            print(error.check.table())
            print(f"mlx-faceau: {error}", file=sys.stderr)
            status = 1
            continue
        files = path.rglob("*") if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
        print(f"{path}: {size / 1e6:.1f} MB")
        if check is not None:
            print(check.table())
        beside = {
            write_model_card(each, path.parent, args.width_mult, made.get(each))
            for each in checkpoints
        }
        if form != "safetensors":
            save_calibrations(path.parent / BOXES_NAME)
            beside.add(path.parent / BOXES_NAME)
        written.update(dict.fromkeys(sorted(beside)))
    if written:
        print("beside:", ", ".join(map(str, written)))
    return status


def _with_hog_head(path: str, refit: list[str] | None = None) -> "SourceModel":
    from dataclasses import asdict

    from mlx_faceau.convert.source_model import SourceModel, weights_hash
    from mlx_faceau.core.checkpoint import load_checkpoint
    from mlx_faceau.core.facs import PRESENCE_KEY
    from mlx_faceau.core.provenance import carried_metadata
    from mlx_faceau.train.hog_head import with_hog_head
    from mlx_faceau.train.refit import refitted

    checkpoint = load_checkpoint(path)
    if refit is not None:
        checkpoint = refitted(checkpoint, refit)
    config, weights = with_hog_head(checkpoint)
    own = {"model": asdict(config), "source_hash": weights_hash(weights)}
    # What was fitted to the trained net's outputs is not this one's.
    fitted = ("confidence", PRESENCE_KEY)
    carried = {k: v for k, v in carried_metadata(checkpoint).items() if k not in fitted}
    return SourceModel(config, weights, {**carried, **own})


def _targets(
    checkpoint: Path, output: str | None, formats: list[str], name: str
) -> dict[str, Path]:
    """The file of each format, of this name where ``output`` names a folder."""
    from mlx_faceau.core.atomic_io import check_output_folder
    from mlx_faceau.core.checkpoint import BEST_NAME

    target = Path(output or (checkpoint if checkpoint.is_dir() else checkpoint.parent))
    targets = {form: target / f"{name}{SUFFIXES[form]}" for form in formats}
    if target.suffix in SUFFIXES.values():
        if [target.suffix] != [SUFFIXES[form] for form in formats]:
            raise UsageError(f"--output {target} is not the one file of --to {','.join(formats)}")
        targets = {formats[0]: target}
    else:
        check_output_folder(target)
    source = checkpoint / BEST_NAME if checkpoint.is_dir() else checkpoint
    for path in targets.values():
        if path.exists() and path.samefile(source):
            raise UsageError(f"--output {path} is the checkpoint itself")
    return targets


def read_faces(
    calibration: str, validation: str | None, outputs: Iterable[str]
) -> "CalibrationFaces":
    """Evenly spaced faces for int8: to set the scales, and to measure the loss of accuracy on.

    Without a validation file a tenth of the other one's people is held out, as training would.
    """
    import numpy as np

    from mlx_faceau.convert.check import CalibrationFaces
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.format.split import split_dataset

    def spaced(rows: np.ndarray, count: int) -> np.ndarray:
        return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))])

    def crops(dataset: FaceDataset, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(dataset.read_images(rows)[..., ::-1])

    training = FaceDataset(calibration)
    if validation is None:
        split = split_dataset(training)
        rows, others, other_rows = split.train, training, split.validation
    else:
        others = FaceDataset(validation)
        rows, other_rows = np.arange(len(training)), np.arange(len(others))
    measured = spaced(other_rows, MEASURED_FACES)
    return CalibrationFaces(
        calibration=crops(training, spaced(rows, CALIBRATION_FACES)),
        crops=crops(others, measured),
        labels={name: others.labels[name][measured] for name in outputs},
        hash=training.hash,
    )


def _write(
    source: "SourceModel | CombinedModel",
    path: Path,
    variant: "Variant",
    faces: "CalibrationFaces | None",
    force: bool,
) -> "Check | None":
    if variant.form == "safetensors":
        from mlx_faceau.convert.source_model import save_weights

        (part,) = source.parts
        save_weights(part, path, str(variant.precision))
        return None
    options: dict[str, Any] = {**variant.describe(), "faces": faces, "force": force}
    if variant.form == "onnx":
        from mlx_faceau.convert.export_onnx import export_to_onnx

        return export_to_onnx(source, path, int(variant.opset or 0), **options)
    from mlx_faceau.convert.export_coreml import export_to_coreml

    return export_to_coreml(source, path, **options)
