"""``mlx-faceau data check | stats | preview``: look into training files."""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import UsageError
from mlx_faceau.train.config import AUGMENTATIONS

if TYPE_CHECKING:
    from mlx_faceau.data.format.check import Report


def add_actions(actions: Any) -> None:
    _add_check(actions)
    _add_stats(actions)
    _add_preview(actions)


def _add_check(actions: Any) -> None:
    text = "check schema, ranges, NaN, landmark space and action units; exit status 1 on failure"
    parser = actions.add_parser("check", help=text, description=text)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--against", metavar="FILE", help="another file, which must share neither people nor faces"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(act=_check)


def _check(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.check import check_file
    from mlx_faceau.data.format.subprocess_guard import run_in_subprocess

    report = run_in_subprocess(check_file, Path(args.file), args.against)
    print(json.dumps(_as_json(report), indent=1) if args.json else _as_text(args.file, report))
    return 1 if report.failures else 0


def _as_json(report: "Report") -> dict[str, Any]:
    from mlx_faceau.core.facs import AU_NAMES
    from mlx_faceau.data.format.check import HISTOGRAM_EDGES

    counts = [] if report.histogram is None else report.histogram.tolist()
    return {
        "failures": report.failures,
        "warnings": report.warnings,
        "samples": report.samples,
        "histogram_edges": HISTOGRAM_EDGES,
        "histogram": dict(zip(AU_NAMES, counts, strict=False)),
    }


def _as_text(name: str, report: "Report") -> str:
    from mlx_faceau.core.facs import AU_NAMES
    from mlx_faceau.data.format.check import HISTOGRAM_EDGES

    lines = [f"failed   {text}" for text in report.failures]
    lines += [f"warning  {text}" for text in report.warnings]
    if report.histogram is not None:
        edges = pairwise(HISTOGRAM_EDGES)
        lines.append("".join(["samples by intensity", *(f"{f'{a:g}-{b:g}':>9}" for a, b in edges)]))
        for unit, counts in zip(AU_NAMES, report.histogram.tolist(), strict=True):
            lines.append("".join([f"{unit:20}", *(f"{count:9d}" for count in counts)]))
    sound = "usable; see the warnings" if report.warnings else "sound"
    verdict = "not fit for training" if report.failures else f"{report.samples} samples, {sound}"
    return "\n".join([*lines, f"{name}: {verdict}"])


def _add_stats(actions: Any) -> None:
    text = "describe the people, poses and action units of a file"
    parser = actions.add_parser("stats", help=text, description=text)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", metavar="PNG", help="draw them as a picture as well")
    parser.set_defaults(act=_stats)


def _stats(args: argparse.Namespace) -> int:
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.format.statistics import describe_dataset, draw_statistics

    dataset = FaceDataset(args.file, keep_outside=True)
    report = describe_dataset(dataset)
    if args.output:
        draw_statistics(dataset, Path(args.output))
    print(json.dumps(report, indent=1) if args.json else _stats_text(report))
    return 0


def _stats_text(report: dict[str, Any]) -> str:
    low_x, low_y, high_x, high_y = report["landmark_box"]
    lines = [
        f"{report['samples']} samples, {report['subjects']} subjects, {report['videos']} videos, "
        f"{report['outside']} with landmarks outside the crop",
        f"landmarks: x {low_x:.1f} to {high_x:.1f}, y {low_y:.1f} to {high_y:.1f} px",
        f"{'':14}{'mean':>9}{'std':>9}{'min':>9}{'max':>9}{'above 1':>9}",
    ]
    if report["groups"]:
        lines.insert(
            1,
            ", ".join(
                f"{n} {name or 'of no group'}" for name, n in sorted(report["groups"].items())
            ),
        )
    for name, row in {**report["pose"], **report["action_units"], **report["quality"]}.items():
        numbers = "".join(f"{row[key]:9.3f}" for key in ("mean", "std", "min", "max"))
        lines.append(f"{name:14}{numbers}{row.get('above_1', ''):>9}")
    return "\n".join([*lines, "angles in degrees, scale in pixels per unit of the shape model"])


def _add_preview(actions: Any) -> None:
    text = "draw faces with their landmarks on a contact sheet"
    parser = actions.add_parser("preview", help=text, description=text)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--output", required=True, metavar="PNG", help="picture to write")
    parser.add_argument("--count", type=int, default=60, help="number of faces")
    parser.add_argument("--seed", type=int, default=42, help="which faces are drawn")
    parser.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        default="none",
        help="vary the faces as training does (default: none)",
    )
    parser.set_defaults(act=_preview)


def _preview(args: argparse.Namespace) -> int:
    import cv2
    import numpy as np

    from mlx_faceau.core.atomic_io import atomic_file
    from mlx_faceau.data.format.dataset import FaceDataset
    from mlx_faceau.data.loading.augment import augmentation
    from mlx_faceau.data.loading.batches import Batches
    from mlx_faceau.data.loading.preview import contact_sheet, strongest_units

    if args.count < 1:
        raise UsageError(f"--count is {args.count}, expected at least 1")
    dataset = FaceDataset(args.file, keep_outside=True)
    order = np.random.default_rng(args.seed).permutation(len(dataset))
    picked = np.sort(order[: args.count])
    vary = augmentation(args.augment)
    batches = Batches(dataset, picked, len(picked), args.seed, vary, shuffle=False, workers=0)
    faces = next(batches.epoch(0))
    captions = [strongest_units(units) for units in faces["au_intensities"]]
    sheet = contact_sheet(faces["images"], faces["landmarks"], captions)
    _, png = cv2.imencode(".png", sheet[..., ::-1])
    with atomic_file(Path(args.output)) as temporary:
        temporary.write_bytes(png.tobytes())
    print(f"{args.output}: {len(picked)} of {len(dataset)} faces", file=sys.stderr)
    return 0
