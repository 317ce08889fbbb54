"""``mlx-faceau data synth | merge | split | convert``: new training files, most from others."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_actions(actions: Any) -> None:
    _add_synth(actions)
    _add_merge(actions)
    _add_split(actions)
    _add_convert(actions)


def _add_synth(actions: Any) -> None:
    text = "draw synthetic people with exact labels"
    parser = actions.add_parser("synth", help=text, description=text)
    parser.add_argument("--output", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument("--count", type=int, default=4096, help="number of faces")
    parser.add_argument("--people", type=int, help="number of people (default: count / 8)")
    parser.add_argument("--seed", type=int, default=42, help="another seed gives other people")
    parser.set_defaults(act=_synth)


def _synth(args: argparse.Namespace) -> int:
    from mlx_faceau.data.synthetic.people import write_synthetic

    write_synthetic(args.output, args.count, args.seed, args.people)
    print(f"{args.output}: {args.count} synthetic faces")
    return 0


def _add_merge(actions: Any) -> None:
    text = "join training files; people of one name are the same in all, HOG stays if all have it"
    parser = actions.add_parser("merge", help=text, description=text)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of ours or the original's")
    parser.add_argument("--output", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--mixed-labels",
        action="store_true",
        help="allow files whose labellers or shape models (PDMs) differ",
    )
    _add_storage(parser)
    parser.set_defaults(act=_merge)


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compress", action="store_const", const="lzf", help="compress the images (lzf)"
    )
    parser.add_argument(
        "--drop-outside",
        action="store_true",
        help="leave out samples with landmarks outside the crop, which no net can reach",
    )


def _merge(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.merge import merge_files

    paths = [Path(name) for name in args.files]
    report = merge_files(
        paths, Path(args.output), args.compress, not args.drop_outside, args.mixed_labels
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    repeated = f", {report.repeated} repeated ones left out" if report.repeated else ""
    print(f"{args.output}: {report.samples} samples of {len(paths)} files{repeated}")
    return 0


def _add_split(actions: Any) -> None:
    text = "divide the people of a file among a training, a validation and perhaps a test file"
    parser = actions.add_parser("split", help=text, description=text)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for train.h5, val.h5 ..")
    parser.add_argument("--val", type=float, default=0.1, help="share of val.h5 (default: 0.1)")
    parser.add_argument("--test", type=float, default=0.0, help="share of test.h5 (default: none)")
    parser.add_argument(
        "--by", choices=("subject", "video"), help="what stays whole (default: subjects if named)"
    )
    parser.add_argument(
        "--list", metavar="CSV", help="who goes where: lines 'name,part', a subject or a video each"
    )
    parser.add_argument(
        "--no-stratify", action="store_true", help="balance samples alone, not action units"
    )
    parser.add_argument("--seed", type=int, default=42, help="another seed gives other parts")
    _add_storage(parser)
    parser.set_defaults(act=_split)


def _split(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.copying import write_selection
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.format.rewriting import check_new
    from mlx_faceau.data.format.split import partition_by_list, partition_dataset

    dataset = FaceDataset(args.file, keep_outside=not args.drop_outside)
    if args.list:
        partition = partition_by_list(dataset, Path(args.list))
    else:
        shares = {"train": 1 - args.val - args.test, "val": args.val, "test": args.test}
        wanted = {name: share for name, share in shares.items() if share != 0}
        stratify = not args.no_stratify
        partition = partition_dataset(dataset, wanted, args.by, args.seed, stratify)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name in partition.parts:
        check_new(folder / f"{name}.h5")
    for name, indices in partition.parts.items():
        write_selection(folder / f"{name}.h5", dataset, indices, args.compress)
        share = len(indices) / len(dataset)
        print(f"{folder / name}.h5: {len(indices)} samples ({share:.1%}), by {partition.by}")
    return 0


def _add_convert(actions: Any) -> None:
    text = "rewrite a file, ours or the original tool's, so that it reads fast: labels in the crop"
    parser = actions.add_parser("convert", help=text, description=text)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--pdm", metavar="FILE", help="OpenFace's PDM: fits parameters that are in no known space"
    )
    _add_storage(parser)
    parser.set_defaults(act=_convert)


def _convert(args: argparse.Namespace) -> int:
    from mlx_faceau.core.pdm import read_pdm
    from mlx_faceau.data.format.convert import convert_file

    pdm = read_pdm(args.pdm) if args.pdm else None
    source, output = Path(args.file), Path(args.output)
    count = convert_file(source, output, args.compress, not args.drop_outside, pdm)
    print(f"{output}: {count} samples")
    return 0
