"""``mlx-faceau convert``: weights between our checkpoints and the original tool's ``.pt`` files."""

import argparse
from pathlib import Path

from mlx_faceau.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=".pt, .safetensors or a run's folder")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="ends with .safetensors or .pt"
    )
    parser.add_argument(
        "--width-mult",
        type=float,
        help="width of the .pt's net; needed only when it is none of the usual ones",
    )
    parser.add_argument(
        "--crop",
        choices=("standard", "original"),
        help="what the .pt's net was trained on: this package's crop, or the original tool's "
        "(default: not known, which each prediction warns of)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def run(args: argparse.Namespace) -> int:
    source, target = Path(args.source), Path(args.output)
    if target.suffix not in (".safetensors", ".pt"):
        raise UsageError(f"--output {target}: the ending must be .safetensors or .pt")
    if target.exists() and not args.force:
        raise UsageError(f"--output {target}: exists already; give --force to overwrite it")
    if source.suffix == ".pt":
        if target.suffix == ".pt":
            raise UsageError("both files are .pt; --output must end with .safetensors")
        _import(source, target, args.width_mult, args.crop or "unknown")
    else:
        if args.width_mult is not None:
            raise UsageError("--width-mult is for .pt files; a checkpoint knows its width")
        if args.crop is not None:
            raise UsageError("--crop is for .pt files; a checkpoint knows what it was trained on")
        _export(source, target)
    return 0


def _import(source: Path, target: Path, width_mult: float | None, crop: str) -> None:
    from mlx_faceau.convert.pyfaceau import read_pyfaceau
    from mlx_faceau.core.checkpoint import describe, file_hash, save_checkpoint

    config, weights = read_pyfaceau(source, width_mult=width_mult)
    arrays = {f"model.{name}": array for name, array in weights.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    origin = {"source_hash": file_hash(source), "source_file": source.name}
    metadata = describe(config, **origin, crop=crop)
    save_checkpoint(target, arrays, metadata)
    print(f"{target}: {config.kind}, width {config.width_mult:g}, from {source}")


def _export(source: Path, target: Path) -> None:
    from mlx_faceau.convert.pyfaceau import write_pyfaceau
    from mlx_faceau.core.checkpoint import load_checkpoint, save_checkpoint
    from mlx_faceau.core.provenance import carried_metadata

    checkpoint = load_checkpoint(source)
    if target.exists() and target.samefile(checkpoint.path):
        raise UsageError(f"--output {target}: is the source itself; its training would be lost")
    config, weights = checkpoint.config, checkpoint.weights()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".pt":
        write_pyfaceau(target, config, weights)
    else:
        arrays = {f"model.{name}": array for name, array in weights.items()}
        save_checkpoint(target, arrays, carried_metadata(checkpoint))
    print(f"{target}: {config.kind}, width {config.width_mult:g}, from {checkpoint.path}")
