"""``mlx-faceau export``: a checkpoint as ONNX, Core ML and plain weights, each proven equal."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_faceau.convert.check import Check
    from mlx_faceau.convert.source import Source

HELP = "write a checkpoint as .onnx, .mlpackage or weights alone, checked against the net"
SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage", "safetensors": ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help=".safetensors, a run's folder, or a .pt file"
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
        help="folder for <kind>.onnx and so on, or the one file; default: the checkpoint's folder",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16"),
        help="of the Core ML computation (default: float16); ONNX files are float32",
    )
    parser.add_argument("--opset", type=int, help="of the ONNX file, 12 to 21 (default: 17)")
    parser.add_argument(
        "--width-mult", type=float, help="width of a .pt's net, when it is none of the usual ones"
    )


def run(args: argparse.Namespace) -> int:
    formats = _formats(args)
    from mlx_faceau.convert.check import CheckFailed
    from mlx_faceau.convert.source import read_source
    from mlx_faceau.model_card import write_model_card

    source = read_source(args.checkpoint, args.width_mult)
    status = 0
    for form, path in _targets(args, formats, source.config.kind).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            check = _export(form, source, path, args)
        except CheckFailed as error:
            print(error.check.table())
            print(f"mlx-faceau: {error}", file=sys.stderr)
            status = 1
            continue
        write_model_card(args.checkpoint, path.parent, args.width_mult)
        print(f"{path}: {_megabytes(path):.1f} MB")
        if check is not None:
            print(check.table())
    return status


def _formats(args: argparse.Namespace) -> list[str]:
    formats = [name.strip() for name in args.to.split(",")]
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown:
        raise ValueError(f"--to {args.to}: unknown {unknown[0]!r}, expected {', '.join(SUFFIXES)}")
    for flag, value, form in (
        ("--precision", args.precision, "coreml"),
        ("--opset", args.opset, "onnx"),
    ):
        if value is not None and form not in formats:
            raise ValueError(f"{flag} {value} is for {form}, which --to {args.to} does not name")
    return formats


def _targets(args: argparse.Namespace, formats: list[str], kind: str) -> dict[str, Path]:
    """The file of each format."""
    from mlx_faceau.checkpoint import BEST_NAME

    checkpoint = Path(args.checkpoint)
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    output = Path(args.output) if args.output else folder
    if output.suffix in SUFFIXES.values():
        if [output.suffix] != [SUFFIXES[form] for form in formats]:
            raise ValueError(f"--output {output} is not the one file of --to {args.to}")
        source = checkpoint / BEST_NAME if checkpoint.is_dir() else checkpoint
        if output.exists() and output.samefile(source):
            raise ValueError(f"--output {output} is the checkpoint itself")
        return {formats[0]: output}
    return {form: output / f"{kind}{SUFFIXES[form]}" for form in formats}


def _export(form: str, source: "Source", path: Path, args: argparse.Namespace) -> "Check | None":
    if form == "onnx":
        from mlx_faceau.convert.export_onnx import export_to_onnx

        return export_to_onnx(source, path, 17 if args.opset is None else args.opset)
    if form == "coreml":
        from mlx_faceau.convert.export_coreml import export_to_coreml

        return export_to_coreml(source, path, args.precision or "float16")
    from mlx_faceau.checkpoint import save_checkpoint

    arrays = {f"model.{name}": value for name, value in source.weights.items()}
    save_checkpoint(path, arrays, source.metadata)
    return None


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
