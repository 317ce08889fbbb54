"""``mlx-faceau data synth | merge``: make training files, and new ones from others."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_actions(actions: Any) -> None:
    _add_synth(actions)
    _add_merge(actions)


def _add_synth(actions: Any) -> None:
    text = "draw synthetic people with exact labels"
    parser = actions.add_parser("synth", help=text, description=text)
    parser.add_argument("--output", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument("--count", type=int, default=4096, help="number of faces")
    parser.add_argument("--people", type=int, help="number of people (default: count / 8)")
    parser.add_argument("--seed", type=int, default=42, help="another seed gives other people")
    parser.set_defaults(act=_synth)


def _synth(args: argparse.Namespace) -> int:
    from mlx_faceau.data.synthetic import write_synthetic

    write_synthetic(args.output, args.count, args.seed, args.people)
    print(f"{args.output}: {args.count} synthetic faces")
    return 0


def _add_merge(actions: Any) -> None:
    text = "join training files; people of one name are the same in all, HOG stays if all have it"
    parser = actions.add_parser("merge", help=text, description=text)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of ours or the original's")
    _add_output(parser)
    parser.set_defaults(act=_merge)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--compress", action="store_const", const="lzf", help="compress the images (lzf)"
    )
    parser.add_argument(
        "--drop-outside",
        action="store_true",
        help="leave out samples with landmarks outside the crop, which no net can reach",
    )


def _merge(args: argparse.Namespace) -> int:
    from mlx_faceau.data.merge import merge_files

    paths = [Path(name) for name in args.files]
    report = merge_files(paths, Path(args.output), args.compress, not args.drop_outside)
    for note in report.notes:
        print(note, file=sys.stderr)
    repeated = f", {report.repeated} repeated ones left out" if report.repeated else ""
    print(f"{args.output}: {report.samples} samples of {len(paths)} files{repeated}")
    return 0
