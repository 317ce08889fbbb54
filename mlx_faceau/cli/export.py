"""``mlx-faceau export``: a checkpoint as ONNX, Core ML and plain weights, each proven equal."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import UsageError

if TYPE_CHECKING:
    from mlx_faceau.convert.check import Check
    from mlx_faceau.convert.export_checks import Faces
    from mlx_faceau.convert.export_source import Pair, Source
    from mlx_faceau.convert.variants import Variant

SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage", "safetensors": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?",
        help=".safetensors, a run's folder, a .pt file, or builtin (both nets, one by one)",
    )
    parser.add_argument(
        "--combine",
        nargs=2,
        metavar=("LANDMARKS", "AU"),
        help="instead of one checkpoint: both nets in one file, with all outputs",
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
    _add_variant(parser.add_argument_group("which file (docs/export.md has the table)"))
    _add_int8(parser.add_argument_group("int8"))


def _add_variant(group: argparse._ArgumentGroup) -> None:
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
        help="float32 RGB in [0, 1]; crops as cv2 gives them (onnx); a picture (coreml) "
        "(default: %(default)s)",
    )


def _add_int8(group: argparse._ArgumentGroup) -> None:
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
    if (args.checkpoint is None) == (args.combine is None):
        raise UsageError("give one checkpoint, or --combine LANDMARKS AU")
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights.builtin import coreml_file, is_builtin

    if args.combine:
        pair = zip(args.combine, CONFIGS, strict=True)
        args.combine = [_resolved(path, kind) for path, kind in pair]
    if not is_builtin(args.checkpoint):
        return _run(args)
    formats = _formats(args)
    if args.output is None and formats != ["coreml"]:
        raise UsageError("builtin: give --output DIR for any other file than --to coreml")
    if args.output and Path(args.output).suffix in SUFFIXES.values():
        raise UsageError(f"--output {args.output}: builtin is two nets; name a folder")
    status = 0
    for kind in CONFIGS:
        output = args.output or str(coreml_file(kind).parent)
        one = {**vars(args), "checkpoint": _resolved(args.checkpoint, kind), "output": output}
        status = max(status, _run(argparse.Namespace(**one)))
    return status


def _resolved(path: str, kind: str) -> str:
    """A checkpoint's path, the built-in net's where it says so."""
    from mlx_faceau.weights import builtin

    return str(builtin.check(builtin.checkpoint_file(kind))) if builtin.is_builtin(path) else path


def _run(args: argparse.Namespace) -> int:
    from mlx_faceau.output.model_card import write_model_card

    formats = _formats(args)
    variants = _variants(args, formats)
    source = _source(args)
    targets = _targets(args, formats, source.kind)
    faces = _faces(args, source)
    status = 0
    for form, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        status = max(status, _write(source, path, variants[form], faces, args.force))
        for checkpoint in args.combine or [args.checkpoint] if path.exists() else ():
            write_model_card(checkpoint, path.parent, args.width_mult)
    return status


def _formats(args: argparse.Namespace) -> list[str]:
    formats = [name.strip() for name in args.to.split(",")]
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown:
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


def _variants(args: argparse.Namespace, formats: list[str]) -> dict[str, "Variant"]:
    """What is asked of each format; refused before any work where one cannot be written."""
    from mlx_faceau.convert.variants import Variant, check_variant

    variants = {}
    for form in formats:
        # An option that another format of the same command takes is meant for that one.
        opset = args.opset if form == "onnx" or "onnx" not in formats else None
        asked = Variant(form, args.precision, args.input, args.batch, opset)
        if form == "safetensors" and len(formats) > 1:
            asked = Variant(form)
        check_variant(asked)
        variants[form] = asked
    return variants


def _source(args: argparse.Namespace) -> "Source | Pair":
    from mlx_faceau.convert.export_source import Pair, read_source

    if args.combine is None:
        return read_source(args.checkpoint, args.width_mult)
    landmarks, aus = (
        read_source(path, args.width_mult if Path(path).suffix == ".pt" else None)
        for path in args.combine
    )
    return Pair.of(landmarks, aus)


def _faces(args: argparse.Namespace, source: "Source | Pair") -> "Faces | None":
    if not args.calibration:
        return None
    from .export_faces import read_faces

    return read_faces(args.calibration, args.validation, source.output_shapes)


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
    source: "Source | Pair", path: Path, variant: "Variant", faces: "Faces | None", force: bool
) -> int:
    """Write one file and print its check; the exit status."""
    from mlx_faceau.convert.check import CheckFailed
    from mlx_faceau.convert.export_checks import AccuracyLost

    try:
        check = _export(source, path, variant, faces, force)
    except (CheckFailed, AccuracyLost) as error:
        print(error.check.table())
        print(f"mlx-faceau: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {_megabytes(path):.1f} MB")
    if check is not None:
        print(check.table())
    return 0


def _export(
    source: "Source | Pair", path: Path, variant: "Variant", faces: "Faces | None", force: bool
) -> "Check | None":
    if variant.form == "safetensors":
        from mlx_faceau.convert.half_weights import save_weights

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
        from mlx_faceau.convert.variants import DEFAULT_OPSET

        return export_to_onnx(source, path, variant.opset or DEFAULT_OPSET, **options)
    from mlx_faceau.convert.export_coreml import export_to_coreml

    return export_to_coreml(source, path, **options)


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
