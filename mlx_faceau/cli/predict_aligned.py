"""``mlx-faceau predict --aligned``: both nets on pictures that are 112x112 crops already."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mlx_faceau.errors import FaceauError, UsageError

_BATCH = 32


def run_aligned(args: argparse.Namespace) -> int:
    """Predict the crops that parsed arguments name; the exit status."""
    form = _format(args)
    paths = list(image_paths(args.inputs))
    predictors = _load_predictors(args)
    failed: list[Path] = []
    rows = _predict_files(_read_crops(paths, failed), predictors)
    if args.output not in (None, "-"):
        from mlx_faceau.core.atomic_io import atomic_file

        with atomic_file(args.output) as temporary, temporary.open("w", newline="") as file:
            _write(rows, file, form)
    else:
        _write(rows, sys.stdout, form)
    if failed:
        sys.stderr.write(f"{len(failed)} of {len(paths)} crops could not be read\n")
    return 1 if failed else 0


def image_paths(inputs: list[str]) -> Iterator[Path]:
    """Image files that the inputs name, folders expanded in sorted order.

    Raises:
        ValueError: for a path that does not exist or a folder without images.
    """
    from mlx_faceau.video.images import IMAGE_SUFFIXES

    from .predict_faces import name_passed_over

    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = [p for p in sorted(path.iterdir()) if p.is_file() and p.name[0] != "."]
            images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            if not images:
                raise UsageError(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)}) in this folder")
            name_passed_over(path, [p.name for p in files if p not in images])
            yield from images
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"{path}: no such file or folder")


def read_crop(path: Path) -> np.ndarray:
    """A crop from an image file: (112, 112, 3) uint8 BGR; grey is repeated, alpha dropped.

    Raises:
        ValueError: if it is not 112x112.
        VideoError: if it is no readable image.
    """
    from mlx_faceau.core.preprocess import CROP_SHAPE
    from mlx_faceau.video.images import read_image

    image = read_image(path)
    if image.shape != CROP_SHAPE:
        height, width = image.shape[:2]
        raise UsageError(
            f"{path}: {width}x{height} pixels, but --aligned means 112x112 standard crops; "
            "cut them out with FaceAligner"
        )
    return image


def _load_predictors(args: argparse.Namespace) -> list[Any]:
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor

    predictors: list[Any] = []
    options = {"backend": args.backend, "providers": args.providers}
    if args.landmark_model:
        predictors.append(load_predictor(args.landmark_model, **options))
    if args.au_model:
        predictors.append(load_au_predictor(args.au_model, **options))
    return predictors


def _read_crops(paths: list[Path], failed: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Crops with their files; one that cannot be read is named and added to ``failed``.

    Raises:
        FaceauError: if there is not one good crop.
    """
    for path in paths:
        try:
            yield path, read_crop(path)
        except FaceauError as error:
            if len(paths) == 1:
                raise
            sys.stderr.write(f"mlx-faceau: {error}\n")
            failed.append(path)
    if len(failed) == len(paths):
        raise UsageError(f"none of the {len(paths)} crops could be read")


def _predict_files(
    crops: Iterator[tuple[Path, np.ndarray]], predictors: list[Any]
) -> Iterator[dict[str, Any]]:
    from mlx_faceau.video.prefetch import batched

    for some in batched(crops, _BATCH):
        images = np.stack([image for _, image in some])
        predictions: dict[str, np.ndarray] = {}
        for predictor in predictors:
            predictions |= predictor.predict_batch(images)
        for index, (path, _) in enumerate(some):
            yield {"file": str(path)} | {
                name: values[index]
                for name, values in predictions.items()
                if isinstance(values, np.ndarray)
            }


def _format(args: argparse.Namespace) -> str:
    ending = Path(args.output or "").suffix.lower().removeprefix(".")
    form = str(args.format or (ending if ending in ("json", "jsonl", "parquet") else "csv"))
    if form not in ("csv", "json"):
        raise UsageError(f"{form}: --aligned writes csv or json; say --format or end --output so")
    return form


def _write(rows: Iterator[dict[str, Any]], file: TextIO, form: str) -> None:
    if form == "json":
        plain = [
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
            for row in rows
        ]
        file.write(json.dumps(plain, indent=1) + "\n")
        return
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        flat = flatten(row)
        if writer is None:
            writer = csv.DictWriter(file, flat, lineterminator="\n")
            writer.writeheader()
        writer.writerow(flat)


def flatten(row: dict[str, Any]) -> dict[str, Any]:
    """One CSV row: OpenFace's column names, crop pixels and radians, six significant decimals."""
    from mlx_faceau.core.facs import AU_NAMES

    flat: dict[str, Any] = {"file": row["file"]}

    def put(names: list[str], values: np.ndarray) -> None:
        flat.update({n: f"{float(v):.6g}" for n, v in zip(names, values, strict=True)})

    if "landmarks" in row:
        count = len(row["landmarks"])
        put([f"x_{i}" for i in range(count)], row["landmarks"][:, 0])
        put([f"y_{i}" for i in range(count)], row["landmarks"][:, 1])
        put(["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"], row["global_params"])
        put([f"p_{i}" for i in range(len(row["local_params"]))], row["local_params"])
    if "au_intensities" in row:
        put(list(AU_NAMES), row["au_intensities"])
    return flat
