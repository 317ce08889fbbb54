"""``mlx-faceau predict --aligned``: both nets on images that are 112x112 crops already."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file, write_json
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.preprocess import CROP_SHAPE
from mlx_faceau.errors import FaceauError, UsageError, counted
from mlx_faceau.output.openface_csv import GROUPS, quoted
from mlx_faceau.output.row_file import check_replaceable
from mlx_faceau.output.run_record import run_record
from mlx_faceau.video.images import IMAGE_SUFFIXES, read_image

from .inputs import find_inputs

_BATCH = 32


# OpenFace's names of each output's values; here they are crop pixels and radians.
COLUMNS: dict[str, Sequence[str]] = {
    "landmarks": GROUPS["2d"],
    "global_params": GROUPS["params"][:6],
    "local_params": GROUPS["params"][6:],
    "au_intensities": AU_NAMES,
}


def run_aligned(args: argparse.Namespace, note: str) -> int:
    """Predict the crops that parsed arguments name, after printing the note; the exit status."""
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor

    ending = Path(args.output or "").suffix.lower().removeprefix(".")
    form = str(args.format or ending or "csv")
    for name in (form, ending or form):  # any other ending may be a crop's own, by mistake
        if name not in ("csv", "json"):
            raise UsageError(f"{name}: --aligned writes csv or json; give --output such an ending")
    if ending not in ("", form):
        raise UsageError(
            f"--output {args.output}: contradicts --format {args.format}; leave one out"
        )
    check_replaceable(args.output or "-", form)
    inputs = find_inputs(args.inputs, IMAGE_SUFFIXES)
    paths = [source.path for source in inputs if source.path is not None]
    if len(paths) < len(inputs):
        raise UsageError("--aligned reads image files, not a webcam")
    predictors: dict[str, Any] = {}
    options = {"backend": args.backend, "providers": args.providers}
    if args.landmark_model:
        predictors["landmark_model"] = load_predictor(args.landmark_model, **options)
    if args.au_model:
        predictors["au_model"] = load_au_predictor(args.au_model, **options)
    sys.stderr.write(note)
    failed: list[Path] = []
    rows = _rows(paths, failed, list(predictors.values()))
    write = _write_json if form == "json" else _write_csv
    if args.output in (None, "-"):
        write(rows, sys.stdout)
    else:
        with (
            atomic_file(args.output) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            write(rows, file)
        described = {role: predictor.describe() for role, predictor in predictors.items()}
        record_path = Path(args.output).with_suffix(".run.json")
        write_json(record_path, run_record(described, {}))
        print(f"{counted(len(paths) - len(failed), 'crop')} -> {args.output}, {record_path}")
    if failed:
        sys.stderr.write(f"{len(failed)} of {len(paths)} crops could not be read\n")
    return 1 if failed else 0


def read_crop(path: Path) -> np.ndarray:
    """A crop from an image file: (112, 112, 3) uint8 BGR; grey is repeated, alpha dropped."""
    image = read_image(path)
    if image.shape != CROP_SHAPE:
        height, width = image.shape[:2]
        raise UsageError(
            f"{path}: {width}x{height} pixels, but --aligned means 112x112 standard crops; "
            "cut them out with FaceAligner"
        )
    return image


def _rows(
    paths: Sequence[Path], failed: list[Path], predictors: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    """File and predictions of each crop; those that cannot be read are reported and collected."""
    for start in range(0, len(paths), _BATCH):
        crops: list[tuple[Path, np.ndarray]] = []
        for path in paths[start : start + _BATCH]:
            try:
                crops.append((path, read_crop(path)))
            except FaceauError as error:
                if len(paths) == 1:
                    raise
                sys.stderr.write(f"mlx-faceau: {error}\n")
                failed.append(path)
        if not crops:
            continue
        images = np.stack([crop for _, crop in crops])
        predictions: dict[str, Any] = {}
        for predictor in predictors:
            predictions |= predictor.predict_batch(images)
        for index, (path, _) in enumerate(crops):
            own = {name: predictions[name][index] for name in COLUMNS if name in predictions}
            yield {"file": str(path), **own}
    if len(failed) == len(paths):
        raise UsageError(f"none of the {len(paths)} crops could be read")


def _write_json(rows: Iterator[dict[str, Any]], file: TextIO) -> None:
    file.write(json.dumps(list(rows), indent=1, default=np.ndarray.tolist) + "\n")


def _write_csv(rows: Iterator[dict[str, Any]], file: TextIO) -> None:
    for number, row in enumerate(rows):
        outputs = [name for name in COLUMNS if name in row]
        if number == 0:
            columns = [column for name in outputs for column in COLUMNS[name]]
            file.write(",".join(["file", *columns]) + "\n")
        values = np.concatenate([row[name].T.ravel() for name in outputs])
        file.write(",".join([quoted(row["file"]), *(f"{value:.6g}" for value in values)]) + "\n")
