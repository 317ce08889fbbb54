"""``mlx-faceau data``: make, check, describe and preview training files."""

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from mlx_faceau.core.atomic_io import json_text
from mlx_faceau.errors import UsageError, counted
from mlx_faceau.train.config import AUGMENTATIONS

from . import data_generate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(
        name: str, act: Callable[[argparse.Namespace], int], text: str
    ) -> Callable[..., argparse.Action]:
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(act=act)
        return action.add_argument

    def add_storage(option: Callable[..., argparse.Action]) -> None:
        option("--compress", action="store_const", const="lzf", help="compress the images (lzf)")
        option(
            "--drop-outside",
            action="store_true",
            help="leave out samples with landmarks outside the crop, which no net can predict",
        )

    output = {"required": True, "metavar": "FILE", "help": "HDF5 file to write"}
    option = add("generate", data_generate.run, data_generate.HELP)
    data_generate.add_arguments(option)

    option = add(
        "check",
        _check,
        "check schema, ranges, NaN, landmark space and action units; exit status 1 on failure",
    )
    option("file", metavar="FILE", help="training file")
    option("--against", metavar="FILE", help="another file; fails if both share people or faces")
    option("--json", action="store_true", help="print JSON")

    option = add("stats", _stats, "describe the people, poses and action units of a file")
    option("file", metavar="FILE", help="training file")
    option("--json", action="store_true", help="print JSON")
    option("--output", metavar="PNG", help="plot them as well")

    option = add("preview", _preview, "draw faces with their landmarks on a contact sheet")
    option("file", metavar="FILE", help="training file")
    option("--output", required=True, metavar="PNG", help="image to write")
    option("--count", type=int, default=60, help="number of faces (default: 60)")
    option("--seed", type=int, default=42, help="selects the faces (default: 42)")
    option(
        "--augment",
        choices=AUGMENTATIONS,
        default="none",
        help="augment the faces as training does (default: none)",
    )

    option = add("synth", _synth, "draw synthetic people with exact labels")
    option("--output", **output)
    option("--count", type=int, default=4096, help="number of faces (default: 4096)")
    option("--people", type=int, help="number of people (default: count / 8)")
    option("--seed", type=int, default=42, help="another seed gives other people")

    option = add(
        "merge",
        _merge,
        "merge training files; a subject of one name is the same in all, HOG features are kept if "
        "all files have them",
    )
    option("files", nargs="+", metavar="FILE", help="also files of the original tool")
    option("--output", **output)
    option(
        "--mixed-labels",
        action="store_true",
        help="allow files whose labellers or shape models (PDMs) differ",
    )
    add_storage(option)

    option = add(
        "split", _split, "split a file by people into train.h5, val.h5 and perhaps test.h5"
    )
    option("file", metavar="FILE", help="training file")
    option("--output", required=True, metavar="FOLDER", help="for train.h5, val.h5 and test.h5")
    option("--val", type=float, default=0.1, help="share of val.h5 (default: 0.1)")
    option("--test", type=float, default=0.0, help="share of test.h5 (default: none)")
    option("--list", metavar="CSV", help="lines 'name,part', a subject or video each")
    option("--seed", type=int, default=42, help="another seed gives other parts")
    add_storage(option)

    option = add(
        "convert",
        _convert,
        "rewrite a file, ours or the original tool's, for fast reading, with labels in the crop",
    )
    option("file", metavar="FILE", help="training file")
    option("--output", **output)
    option(
        "--pdm",
        metavar="FILE",
        help="OpenFace's PDM, to fit parameters anew that are in no known space",
    )
    add_storage(option)


def run(args: argparse.Namespace) -> int:
    if getattr(args, "seed", 0) < 0:
        raise UsageError(f"--seed is {args.seed}, expected at least 0")
    return int(args.act(args))


def _check(args: argparse.Namespace) -> int:
    from mlx_faceau.core.facs import AU_NAMES
    from mlx_faceau.data.format.check import HISTOGRAM_EDGES, check_file, run_in_subprocess
    from mlx_faceau.output.tables import Table

    report = run_in_subprocess(check_file, Path(args.file), args.against)
    counts = [] if report.histogram is None else report.histogram.tolist()
    if args.json:
        histogram = dict(zip(AU_NAMES, counts, strict=False))
        found = {**vars(report), "histogram_edges": HISTOGRAM_EDGES, "histogram": histogram}
        print(json_text(found))
        return 1 if report.failures else 0
    for text in report.failures:
        print(f"failed   {text}")
    for text in report.warnings:
        print(f"warning  {text}")
    if counts:
        classes = [f"{low:g}-{high:g}" for low, high in pairwise(HISTOGRAM_EDGES)]
        rows = [[name, *map(str, row)] for name, row in zip(AU_NAMES, counts, strict=True)]
        print(Table(["samples by intensity", *classes], rows).text())
    sound = "usable; see the warnings" if report.warnings else "sound"
    verdict = f"{counted(report.samples, 'sample')}, {sound}"
    print(f"{args.file}: {'not fit for training' if report.failures else verdict}")
    return 1 if report.failures else 0


def _stats(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.check import describe_dataset, draw_statistics
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.output.tables import Table

    if args.output and Path(args.output).suffix.lower() != ".png":
        raise UsageError(f"--output {args.output}: the ending must be .png")
    dataset = FaceDataset(args.file, keep_outside=True)
    report = describe_dataset(dataset)
    if args.output:
        draw_statistics(dataset, Path(args.output))
    if args.json:
        print(json_text(report))
        return 0
    counts = [counted(report[f"{noun}s"], noun) for noun in ("sample", "subject", "video")]
    print(f"{', '.join(counts)}, {report['outside']} with landmarks outside the crop")
    if report["groups"]:
        groups = sorted(report["groups"].items())
        print(", ".join(f"{count} {name or 'of no group'}" for name, count in groups))
    low_x, low_y, high_x, high_y = report["landmark_box"]
    print(f"landmarks: x {low_x:z.1f} to {high_x:z.1f}, y {low_y:z.1f} to {high_y:z.1f} px")
    columns = ("mean", "std", "min", "max")
    rows = []
    for name, row in {**report["pose"], **report["action_units"], **report["quality"]}.items():
        figures = [f"{row[key]:z.3f}" for key in columns]
        rows.append([name, *figures, str(row.get("above_1", ""))])
    print(Table(["", *columns, "above 1"], rows).text())
    print("angles in degrees, scale in pixels per unit of the shape model")
    if args.output:
        print(f"{args.output}: the same as plots")
    return 0


def _preview(args: argparse.Namespace) -> int:
    import numpy as np

    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.augment import augment_batch, augmentation
    from mlx_faceau.data.loading.preview import contact_sheet
    from mlx_faceau.video.results import write_picture

    if args.count < 1:
        raise UsageError(f"--count is {args.count}, expected at least 1")
    dataset = FaceDataset(args.file, keep_outside=True)
    order = np.random.default_rng(args.seed).permutation(len(dataset))
    rows = np.sort(order[: args.count])
    images = dataset.read_images(rows)
    labels = {name: v[rows] for name, v in {**dataset.labels, **dataset.masks}.items()}
    if augment := augmentation(args.augment):  # as in a training's first epoch
        augment_batch(augment, images, labels, [(args.seed, 0, row) for row in rows.tolist()])
    sheet = contact_sheet(images, labels["landmarks"], labels["au_intensities"])
    write_picture(Path(args.output), sheet[..., ::-1])
    print(f"{args.output}: {len(rows)} of {counted(len(dataset), 'face')}", file=sys.stderr)
    return 0


def _synth(args: argparse.Namespace) -> int:
    from mlx_faceau.data.synthetic.people import write_synthetic

    write_synthetic(args.output, args.count, args.seed, args.people)
    print(f"{args.output}: {counted(args.count, 'synthetic face')}")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.merge import merge_files

    paths = [Path(name) for name in args.files]
    report = merge_files(
        paths, Path(args.output), args.compress, not args.drop_outside, args.mixed_labels
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    used = f"{counted(report.samples, 'sample')} of {counted(len(paths), 'file')}"
    left_out = f", {counted(report.duplicates, 'duplicate')} left out" if report.duplicates else ""
    print(f"{args.output}: {used}{left_out}")
    return 0


def _split(args: argparse.Namespace) -> int:
    from mlx_faceau.core.atomic_io import check_output_folder
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.format.merge import write_subset
    from mlx_faceau.data.format.row_io import check_new
    from mlx_faceau.data.format.split import partition_by_list, partition_dataset

    folder = Path(args.output)
    check_output_folder(folder)
    dataset = FaceDataset(args.file, keep_outside=not args.drop_outside)
    if args.list:
        partition = partition_by_list(dataset, Path(args.list))
    else:
        shares = {"train": 1 - args.val - args.test, "val": args.val, "test": args.test}
        used = {name: share for name, share in shares.items() if share != 0}
        partition = partition_dataset(dataset, used, seed=args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in partition.parts:
        check_new(folder / f"{name}.h5")
    for name, indices in partition.parts.items():
        write_subset(folder / f"{name}.h5", dataset, indices, args.compress)
        share = len(indices) / len(dataset)
        count = counted(len(indices), "sample")
        print(f"{folder / name}.h5: {count} ({share:.1%}), by {partition.by}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from mlx_faceau.core.pdm import read_pdm
    from mlx_faceau.data.format.merge import merge_files

    pdm = read_pdm(args.pdm) if args.pdm else None
    report = merge_files(
        [Path(args.file)], Path(args.output), args.compress, not args.drop_outside, True, pdm
    )
    print(f"{args.output}: {counted(report.samples, 'sample')}")
    return 0
