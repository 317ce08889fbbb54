"""Do all backends and exported files of a model predict the same?

    python benchmarks/backend_parity.py MODEL_DIR --data FACES.h5 [--files DIR ...]

The checkpoint through every backend that runs here, and every exported file of it (ONNX and Core
ML, any precision and input) in the model's folder and those given, on the same labelled faces:
accuracy, and the largest and mean difference of each output from PyTorch in float32. A package of
Core ML is evaluated operation by operation, and by Core ML itself on a Mac. Exit status 1 where the
bound of a precision is broken: float32 the largest difference, float16 the mean one, int8 the
change of the error against the labels.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.convert.check import ExportedModel, open_exported
from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.checkpoint import file_hash, find_checkpoint, read_metadata
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
from mlx_faceau.core.tolerances import FLOAT16_MEAN_ERROR, INT8_CHANGE, MAX_ERROR
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import BackendError
from mlx_faceau.inference.backends.choice import BACKENDS
from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
from mlx_faceau.train.target_statistics import TargetStatistics

Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Arrays]  # (N, 112, 112, 3) uint8 BGR -> outputs by name
METRICS = {
    "landmark_pose": ("correlation", "correlation_without_mean", "mae", "nme"),
    "au_prediction": ("correlation", "mae"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="folders to search too")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    metadata, dataset = read_metadata(args.model), FaceDataset(args.data)
    kind = metadata["kind"]
    means = TargetStatistics.of(dataset.labels, {}).means
    if recorded := metadata.get("target_statistics"):  # imported nets have none
        shapes = CONFIGS[kind]().output_shapes
        means = TargetStatistics.from_json(recorded, args.model, shapes).means
    rows: list[Row] = []
    crops = dataset.read_images(np.arange(len(dataset)))[..., ::-1]
    reference: Arrays = {}
    runners = [*backends(args.model, kind), *files(args.model, kind, args.files)]
    for backend, file, precision, run in runners:
        found = run(crops)
        outputs = {name: found[name] for name in CONFIGS[kind]().output_shapes}
        if kind == "au_prediction":
            intensities = outputs["au_intensities"].clip(0, MAX_INTENSITY)  # as predictors do
            outputs["au_intensities"] = intensities
            metrics = au_metrics(dataset.labels["au_intensities"], intensities)
        else:
            metrics = landmark_pose_metrics(dataset.labels, outputs, means)
        if not reference:
            reference, reference_mae = outputs, metrics["mae"]
        gaps = {name: np.abs(values - reference[name]) for name, values in outputs.items()}
        within = is_within(precision, gaps, metrics["mae"] - reference_mae)
        row: Row = {"backend": backend, "file": file, "precision": precision, "kind": kind}
        row |= {"faces": len(dataset), **{key: f"{metrics[key]:.6f}" for key in METRICS[kind]}}
        for name, gap in gaps.items():
            row |= {f"{name}_max": f"{gap.max():.2e}", f"{name}_mean": f"{gap.mean():.2e}"}
        rows.append(row | {"within": "yes" if within else "no"})
    write_csv(args.output or RESULTS / f"backend_parity_{kind}.csv", rows)
    return 1 if any(row["within"] == "no" for row in rows) else 0


def backends(model: Path, kind: str) -> Iterator[tuple[str, str, str, Run]]:
    """The checkpoint in every backend that runs here, PyTorch first: the others' reference."""
    load = load_predictor if kind == "landmark_pose" else load_au_predictor
    for name in sorted(BACKENDS, key=lambda name: name != "torch"):
        try:
            net = load(model, name)
        except BackendError as error:
            print(f"{name}: {error}")
            continue
        described = net.describe()
        precision = (described.get("metadata") or {}).get("precision", "float32")
        yield name, Path(described["path"]).name, precision, net.predict_batch


def files(model: Path, kind: str, folders: list[Path]) -> Iterator[tuple[str, str, str, Run]]:
    """Exported files of this very checkpoint, in every runtime that this machine has for them."""
    # Exported weights record the checkpoint that they are from.
    sources = {file_hash(find_checkpoint(model)), read_metadata(model).get("source_hash")}
    folders = [*folders, model] if model.is_dir() else folders
    found = {path.resolve() for folder in folders for path in folder.iterdir()}
    for path in sorted(p for p in found if p.suffix in (ONNX_SUFFIX, COREML_SUFFIX)):
        metadata = read_exported_metadata(path) or {}
        own = metadata.get("nets", {}).get(kind, metadata)
        if own.get("source_hash", "") not in sources:
            print(f"{path.name}: not of this checkpoint")
            continue
        for exported in open_exported(path):
            run = partial(run_exported, exported)
            yield exported.runtime, path.name, metadata.get("precision", "float32"), run


def run_exported(exported: ExportedModel, crops: np.ndarray) -> Arrays:
    names = [port.name for port in exported.outputs]
    return dict(zip(names, exported.run(crops), strict=True))


def is_within(precision: str, gaps: Arrays, change: float) -> bool:
    """Whether the differences keep to the bound of the precision."""
    if precision == "int8":
        return abs(change) <= INT8_CHANGE[next(iter(gaps))]
    if precision == "float32":
        return all(gap.max() <= MAX_ERROR[name] for name, gap in gaps.items())
    return all(gap.mean() <= FLOAT16_MEAN_ERROR[name] for name, gap in gaps.items())


if __name__ == "__main__":
    sys.exit(main())
