"""Does a model answer alike everywhere?  backend_parity.py MODEL_DIR --data FACES.h5

Every backend that runs here, and the saved Core ML package through the MIL evaluator, on the same
labelled faces: largest and mean difference of each output from PyTorch, and the accuracy.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from compare import RESULTS, write_csv

from mlx_faceau.backends import BACKENDS, open_backend
from mlx_faceau.checkpoint import read_metadata
from mlx_faceau.convert.artefact import open_artefacts
from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.errors import BackendError
from mlx_faceau.metrics import au_metrics, landmark_pose_metrics
from mlx_faceau.preprocess import scale_rgb
from mlx_faceau.train.targets import TargetStatistics

Arrays = dict[str, np.ndarray]
BATCH = 32


def answers(run: Callable[[np.ndarray], Arrays], dataset: FaceDataset, count: int) -> Arrays:
    parts = []
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count))
        parts.append(run(scale_rgb(dataset.read_images(rows))))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "au_intensities" in joined:  # as every predictor does
        joined["au_intensities"] = np.clip(joined["au_intensities"], 0, 5)
    return joined


def evaluated_packages(folder: Path, kind: str) -> dict[str, Callable[[np.ndarray], Arrays]]:
    """The Core ML package of a model folder by what can evaluate it here."""
    package = folder / f"{kind}.mlpackage"

    def runner(artefact) -> Callable[[np.ndarray], Arrays]:
        def run(images: np.ndarray) -> Arrays:
            values = artefact.run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            return {port.name: value for port, value in zip(artefact.outputs, values, strict=True)}

        return run

    if not package.is_dir():
        return {}
    return {f"coreml, {a.runtime}": runner(a) for a in open_artefacts(package)}


def main() -> None:
    parser = argparse.ArgumentParser(description="one model through every backend")
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--faces", type=int, help="how many; default all")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    metadata = read_metadata(args.model)
    kind = metadata["kind"]
    dataset = FaceDataset(args.data)
    count = min(len(dataset), args.faces or len(dataset))
    truth = {name: values[:count] for name, values in dataset.labels.items()}
    means = TargetStatistics.from_json(metadata["target_statistics"], str(args.model)).means
    runners = {}
    for name in ("torch", *(name for name in BACKENDS if name != "torch")):
        try:
            runners[name] = open_backend(args.model, kind, name).run
        except BackendError as error:
            print(f"{name}: {error}")
    runners |= evaluated_packages(args.model, kind)
    rows, reference = [], None
    for name, run in runners.items():
        answer = answers(run, dataset, count)
        reference = reference or answer
        row = {"backend": name, "kind": kind, "faces": count} | figures(kind, truth, answer, means)
        for output, value in answer.items():
            gap = np.abs(value - reference[output])
            row |= {f"{output}_max": f"{gap.max():.2e}", f"{output}_mean": f"{gap.mean():.2e}"}
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    write_csv(args.output or RESULTS / f"backend_parity_{kind}.csv", rows)


def figures(kind: str, truth: Arrays, answer: Arrays, means: Arrays) -> dict[str, str]:
    if kind == "au_prediction":
        metrics = au_metrics(truth["au_intensities"], answer["au_intensities"])
        keys = ("correlation", "mae")
    else:
        metrics = landmark_pose_metrics(truth, answer, means)
        keys = ("correlation", "correlation_without_mean", "mae")
    return {key: f"{metrics[key]:.6f}" for key in keys}


if __name__ == "__main__":
    main()
