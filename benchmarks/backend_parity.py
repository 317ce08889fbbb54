"""Does a model answer alike everywhere?

    python benchmarks/backend_parity.py MODEL_DIR --data FACES.h5 [--files DIR ...]

The checkpoint through every backend that runs here, and every exported file of it (ONNX and Core
ML, any precision and input) in the model's folder and those given, on the same labelled faces:
accuracy, and the largest and mean difference of each output from PyTorch in float32. A package of
Core ML is evaluated operation by operation, and by Core ML itself on a Mac. The bounds are those of
the exporters' own checks: float32 the largest difference, float16 the mean one, int8 the change of
the error against the labels. Exit status 1 where one is broken.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from timing import RESULTS, write_csv

from mlx_faceau.convert.exported_model import open_artefacts
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, ONNX_SUFFIX, read_exported_metadata
from mlx_faceau.core.checkpoint import file_hash, find_checkpoint, read_metadata
from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
from mlx_faceau.core.preprocess import to_network_input
from mlx_faceau.core.tolerances import FLOAT16_MEAN_ERROR, INT8_CHANGE, MAX_ERROR
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import BackendError
from mlx_faceau.inference.backends import BACKENDS, open_backend
from mlx_faceau.train.target_statistics import TargetStatistics

Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Arrays]
BATCH = 32
ERROR_OF = {"landmark_pose": "landmarks", "au_prediction": "au_intensities"}


@dataclass(frozen=True)
class Runner:
    """One way to run the model: from (N, 112, 112, 3) uint8 BGR to outputs by name."""

    name: str
    file: str
    precision: str
    run: Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="folders to look in too")
    parser.add_argument("--faces", type=int, help="how many, evenly spaced; default all")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    metadata = read_metadata(args.model)
    dataset = FaceDataset(args.data)
    count = min(len(dataset), args.faces or len(dataset))
    picked = np.linspace(0, len(dataset) - 1, count).astype(int)
    rows = compare(args.model, metadata, [args.model, *args.files], dataset, picked)
    write_csv(args.output or RESULTS / f"backend_parity_{metadata['kind']}.csv", rows)
    return 1 if any(row["within"] == "no" for row in rows) else 0


def compare(
    model: Path, metadata: dict, folders: list[Path], dataset: FaceDataset, picked: np.ndarray
) -> list[dict]:
    """One row for each way to run the model."""
    kind = metadata["kind"]
    truth = {name: values[picked] for name, values in dataset.labels.items()}
    means = training_means(metadata, truth, model)
    rows: list[dict] = []
    reference: Arrays = {}
    error = 0.0
    for runner in [*backends(model, kind), *files(model, kind, folders)]:
        answer = answers(runner.run, dataset, picked)
        metrics = figures(kind, truth, answer, means)
        reference, error = reference or answer, error or metrics["mae"]
        row = {"backend": runner.name, "file": runner.file, "precision": runner.precision}
        row |= {"kind": kind, "faces": len(picked)}
        row |= {key: f"{value:.6f}" for key, value in metrics.items()}
        row |= differences(answer, reference)
        row["within"] = verdict(runner.precision, kind, answer, reference, metrics["mae"] - error)
        rows.append(row)
    return rows


def backends(model: Path, kind: str) -> Iterator[Runner]:
    """The checkpoint in every backend that runs here, PyTorch first: the others' reference."""
    for name in ("torch", *(name for name in BACKENDS if name != "torch")):
        try:
            backend = open_backend(model, kind, name)
        except BackendError as error:
            print(f"{name}: {error}")
            continue
        described = backend.describe()
        precision = (described.get("metadata") or {}).get("precision", "float32")

        def run(crops: np.ndarray, backend=backend) -> Arrays:
            return backend.run(to_network_input(crops))

        yield Runner(name, Path(described["path"]).name, precision, run)


def files(model: Path, kind: str, folders: list[Path]) -> Iterator[Runner]:
    """Exported files of this very checkpoint, in every runtime that this machine has for them."""
    source = file_hash(find_checkpoint(model))
    found = {path.resolve() for folder in folders for path in folder.iterdir()}
    for path in sorted(p for p in found if p.suffix in (ONNX_SUFFIX, COREML_SUFFIX)):
        metadata = read_exported_metadata(path) or {}
        own = metadata.get("nets", {}).get(kind, metadata)
        if own.get("source_hash") != source:
            print(f"{path.name}: not of this checkpoint")
            continue
        for artefact in open_artefacts(path):

            def run(crops: np.ndarray, artefact=artefact) -> Arrays:
                named = zip(artefact.outputs, artefact.run(crops), strict=True)
                return {port.name: values for port, values in named}

            yield Runner(artefact.runtime, path.name, metadata.get("precision", "float32"), run)


def answers(run: Run, dataset: FaceDataset, picked: np.ndarray) -> Arrays:
    parts = []
    for start in range(0, len(picked), BATCH):
        images = dataset.read_images(picked[start : start + BATCH])
        parts.append(run(np.ascontiguousarray(images[..., ::-1])))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "au_intensities" in joined:  # as every predictor does
        joined["au_intensities"] = np.clip(joined["au_intensities"], 0, 5)
    return joined


def training_means(metadata: dict, truth: Arrays, model: Path) -> Arrays:
    """What the net recorded; of imported nets, which record nothing, these faces' own."""
    recorded = metadata.get("target_statistics")
    if recorded is None:
        return TargetStatistics.of(truth, {}).means
    return TargetStatistics.from_json(recorded, str(model)).means


def figures(kind: str, truth: Arrays, answer: Arrays, means: Arrays) -> dict[str, float]:
    if kind == "au_prediction":
        metrics = au_metrics(truth["au_intensities"], answer["au_intensities"])
        return {key: metrics[key] for key in ("correlation", "mae")}
    metrics = landmark_pose_metrics(truth, answer, means)
    return {key: metrics[key] for key in ("correlation", "correlation_without_mean", "mae", "nme")}


def differences(answer: Arrays, reference: Arrays) -> dict[str, str]:
    row = {}
    for output, expected in reference.items():
        gap = np.abs(answer[output] - expected)
        row |= {f"{output}_max": f"{gap.max():.2e}", f"{output}_mean": f"{gap.mean():.2e}"}
    return row


def verdict(precision: str, kind: str, answer: Arrays, reference: Arrays, change: float) -> str:
    """``"yes"``, or ``"no"`` where the precision's bound is broken."""
    if precision == "int8":
        return "yes" if abs(change) <= INT8_CHANGE[ERROR_OF[kind]] else "no"
    for output, expected in reference.items():
        gap = np.abs(answer[output] - expected)
        exact = precision == "float32"
        bound = (MAX_ERROR if exact else FLOAT16_MEAN_ERROR)[output]
        if not (gap.max() if exact else gap.mean()) <= bound:
            return "no"
    return "yes"


if __name__ == "__main__":
    sys.exit(main())
