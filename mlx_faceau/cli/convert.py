"""``mlx-faceau convert``: weights between our checkpoints and the original tool's ``.pt`` files."""

import argparse
from pathlib import Path

from mlx_faceau.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help=".pt, .safetensors, a run's folder, or builtin"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".safetensors or .pt file to write; for builtin, one for each net, with _<kind> added",
    )
    parser.add_argument(
        "--width-mult",
        type=float,
        help="width of the .pt's net; needed only if it is unusual",
    )
    parser.add_argument(
        "--crop",
        choices=("standard", "original"),
        help="what the .pt's net was trained on: this package's crop, or the original tool's "
        "(default: unknown, and every prediction warns)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def run(args: argparse.Namespace) -> int:
    from mlx_faceau.core.architectures import CONFIGS
    from mlx_faceau.weights import builtin

    target = Path(args.output)
    if target.suffix not in (".safetensors", ".pt"):
        raise UsageError(f"--output {target}: the ending must be .safetensors or .pt")
    pairs = [(Path(args.source), target)]
    if builtin.is_builtin(args.source):
        pairs = [
            (builtin.checkpoint_of(kind), target.with_stem(f"{target.stem}_{kind}"))
            for kind in CONFIGS
        ]
    for source, output in pairs:
        if output.exists() and not args.force:
            raise UsageError(f"--output {output}: exists already; give --force to overwrite it")
        for flag in ("width_mult", "crop"):
            if source.suffix != ".pt" and getattr(args, flag) is not None:
                name = flag.replace("_", "-")
                raise UsageError(f"--{name} is for .pt files; a checkpoint records its own")
        if source.suffix == output.suffix == ".pt":
            raise UsageError("both files are .pt; --output must end with .safetensors")
        _convert(source, output, args)
    return 0


def _convert(source: Path, output: Path, args: argparse.Namespace) -> None:
    from mlx_faceau.core.checkpoint import describe, file_hash, load_checkpoint, save_checkpoint
    from mlx_faceau.core.provenance import carried_metadata

    if source.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import read_pyfaceau

        config, weights = read_pyfaceau(source, width_mult=args.width_mult)
        origin = {"source_hash": file_hash(source), "source_file": source.name}
        metadata = describe(config, **origin, crop=args.crop or "unknown")
    else:
        checkpoint = load_checkpoint(source)
        source, config, weights = checkpoint.path, checkpoint.config, checkpoint.weights()
        metadata = carried_metadata(checkpoint)
        if output.exists() and output.samefile(source):
            raise UsageError(f"--output {output}: is the source itself; its training would be lost")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".pt":
        from mlx_faceau.convert.pyfaceau import write_pyfaceau

        write_pyfaceau(output, config, weights)
    else:
        arrays = {f"model.{name}": array for name, array in weights.items()}
        save_checkpoint(output, arrays, metadata)
    print(f"{output}: {config.kind}, width {config.width_mult:g}, from {source}")
