"""``mlx-faceau export``: a checkpoint as ONNX, Core ML and plain weights, with a check."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import UsageError

if TYPE_CHECKING:
    from mlx_faceau.convert.check import Check
    from mlx_faceau.convert.int8_accuracy import CalibrationFaces
    from mlx_faceau.convert.source_model import CombinedModel, SourceModel
    from mlx_faceau.convert.variants import Variant

BOXES_NAME = "detector_boxes.json"  # how each detector's box maps to the crop
SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage", "safetensors": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s CHECKPOINT [options]\n       %(prog)s --combine LANDMARKS AU [options]"
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?",
        help=".safetensors, a run's folder, a .pt file, or builtin (both nets, one by one)",
    )
    parser.add_argument(
        "--combine",
        nargs="*",
        metavar="LANDMARKS AU",
        help="both nets in one file, with all outputs: two checkpoints, or builtin",
    )
    parser.add_argument(
        "--to",
        default="onnx",
        metavar="FORMATS",
        help="onnx, coreml, safetensors (weights alone), or several with commas "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR|FILE",
        help="folder for <kind>.onnx and so on, or the one file; default: the checkpoint's folder; "
        "builtin: for coreml the cache where predict looks",
    )
    parser.add_argument(
        "--width-mult", type=float, help="width of a .pt's net, when it is none of the usual ones"
    )
    group = parser.add_argument_group("which file (docs/export.md has the table)")
    group.add_argument(
        "--precision",
        choices=("float32", "float16", "float16-weights", "int8"),
        help="of weights and computation; float16-weights computes in float32 "
        "(default: float32 for onnx, float16 for coreml)",
    )
    group.add_argument("--opset", type=int, help="of the ONNX file, 12 to 21 (default: 17)")
    group.add_argument(
        "--batch",
        type=_batch,
        metavar="N|dynamic",
        help="faces of one call (default: dynamic for onnx, 1 for coreml)",
    )
    group.add_argument(
        "--input",
        choices=("tensor", "uint8", "image"),
        default="tensor",
        help="float32 RGB in [0, 1]; crops as cv2 gives them (onnx); an image (coreml) "
        "(default: %(default)s)",
    )
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--calibration",
        metavar="FILE.h5",
        help="labelled faces of training people: their activations set the scales",
    )
    group.add_argument(
        "--validation",
        metavar="FILE.h5",
        help="other people's labelled faces, to measure the change of accuracy on; "
        "default: a tenth of the calibration file's people, held out",
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
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights import builtin

    if args.combine is not None:
        if (args.combine, args.checkpoint) in (([builtin.BUILTIN], None), ([], builtin.BUILTIN)):
            args.combine, args.checkpoint = [builtin.BUILTIN] * 2, None
        if len(args.combine) != 2 or args.checkpoint is not None:
            raise UsageError("--combine takes both nets, LANDMARKS AU, or builtin")
        if args.output is None and builtin.is_builtin(args.combine[0]):
            raise UsageError("builtin: give --output, a folder or the file to write")
    elif args.checkpoint is None:
        raise UsageError("give one checkpoint, or --combine LANDMARKS AU")
    formats = _formats(args)
    if args.combine:
        args.combine = [
            str(builtin.checkpoint_of(kind)) if builtin.is_builtin(path) else path
            for path, kind in zip(args.combine, CONFIGS, strict=True)
        ]
    if not builtin.is_builtin(args.checkpoint):
        return _export_model(args, formats)
    if args.output is None and formats != ["coreml"]:
        raise UsageError("builtin: give --output DIR; only --to coreml has a folder of its own")
    if args.output and Path(args.output).suffix in SUFFIXES.values():
        raise UsageError(f"--output {args.output}: builtin is two nets; name a folder")
    status = 0
    for kind in CONFIGS:
        output = args.output or str(builtin.coreml_file(kind).parent)
        one = {**vars(args), "checkpoint": str(builtin.checkpoint_of(kind)), "output": output}
        status = max(status, _export_model(argparse.Namespace(**one), formats))
    return status


def _formats(args: argparse.Namespace) -> list[str]:
    formats = [name.strip() for name in args.to.split(",")]
    if unknown := [name for name in formats if name not in SUFFIXES]:
        raise UsageError(f"--to {args.to}: unknown {unknown[0]!r}, expected {', '.join(SUFFIXES)}")
    if args.combine and "safetensors" in formats:
        raise UsageError("--combine: a checkpoint holds one net; leave safetensors out of --to")
    int8 = args.precision == "int8"
    for flag in ("calibration", "validation", "force"):
        if getattr(args, flag) and not int8:
            raise UsageError(f"--{flag} is for --precision int8")
    if int8 and not args.calibration:
        raise UsageError("--precision int8 needs --calibration FILE.h5, labelled training faces")
    return formats


def _export_model(args: argparse.Namespace, formats: list[str]) -> int:
    """Write one model in every format; the exit status."""
    from mlx_faceau.convert.check import AccuracyLost, CheckFailed
    from mlx_faceau.convert.source_model import CombinedModel, read_source
    from mlx_faceau.convert.variants import Variant, check_variant
    from mlx_faceau.output.model_card import write_model_card
    from mlx_faceau.video.box_calibration import save_calibrations

    variants = {}
    for form in formats:  # all are checked before any work
        # An option that another format of the same command takes is meant for that one.
        opset = args.opset if form == "onnx" or "onnx" not in formats else None
        variants[form] = Variant(form, args.precision, args.input, args.batch, opset)
        if form == "safetensors" and len(formats) > 1:
            variants[form] = Variant(form)
        check_variant(variants[form])
    checkpoints = args.combine or [args.checkpoint]
    sources: list[Any] = [
        read_source(path, args.width_mult if not args.combine or path.endswith(".pt") else None)
        for path in checkpoints
    ]
    source = CombinedModel(*sources) if args.combine else sources[0]
    targets = _targets(args, formats, source.kind)
    faces, status = None, 0
    if args.calibration:
        from .export_faces import read_faces

        faces = read_faces(args.calibration, args.validation, source.output_shapes)
    for form, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            check = _write(source, path, variants[form], faces, args.force)
        except (CheckFailed, AccuracyLost) as error:
            print(error.check.table())
            print(f"mlx-faceau: {error}", file=sys.stderr)
            status = 1
        else:
            files = path.rglob("*") if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files if file.is_file())
            print(f"{path}: {size / 1e6:.1f} MB")
            if check is not None:
                print(check.table())
        for checkpoint in checkpoints if path.exists() else ():
            write_model_card(checkpoint, path.parent, args.width_mult)
        if form != "safetensors" and path.exists():
            save_calibrations(path.parent / BOXES_NAME)
    return status


def _targets(args: argparse.Namespace, formats: list[str], kind: str) -> dict[str, Path]:
    """The file of each format."""
    from mlx_faceau.core.checkpoint import BEST_NAME

    checkpoint = Path(args.combine[0] if args.combine else args.checkpoint)
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    output = Path(args.output) if args.output else folder
    if output.suffix in SUFFIXES.values():
        if [output.suffix] != [SUFFIXES[form] for form in formats]:
            raise UsageError(f"--output {output} is not the one file of --to {args.to}")
        source = checkpoint / BEST_NAME if checkpoint.is_dir() else checkpoint
        if output.exists() and output.samefile(source):
            raise UsageError(f"--output {output} is the checkpoint itself")
        return {formats[0]: output}
    return {form: output / f"{kind}{SUFFIXES[form]}" for form in formats}


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
    options: dict[str, Any] = {
        "precision": variant.precision,
        "input": variant.input,
        "batch": variant.batch,
        "faces": faces,
        "force": force,
    }
    if variant.form == "onnx":
        from mlx_faceau.convert.export_onnx import export_to_onnx

        return export_to_onnx(source, path, int(variant.opset or 0), **options)
    from mlx_faceau.convert.export_coreml import export_to_coreml

    return export_to_coreml(source, path, **options)
