"""Find, and measure, the intensity from which each action unit of a net counts as present.

    python benchmarks/presence_thresholds.py MODEL FACES.h5 [FACES.h5 ...] --write

A unit is present in a face whose label is at least 1, FACS level A. Its threshold has the highest
F1 score on half of the people; F1 and balanced accuracy are measured on the others. A unit that
fewer than 50 faces of a half show keeps 1. The thresholds that ``--write`` stores in the
checkpoint come from all people; what is exported from it later carries them. Take labels of the
open labeller, and people that the net was not trained on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau import load_au_predictor
from mlx_faceau.core.checkpoint import load_checkpoint, save_checkpoint
from mlx_faceau.core.facs import AU_NAMES, PRESENCE_KEY
from mlx_faceau.core.metrics import MINIMUM_SUPPORT
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.evaluation.bootstrap import subjects_of
from mlx_faceau.output.openface_csv import PRESENCE_THRESHOLD

UNITS = [name.removesuffix("_r") for name in AU_NAMES]
CANDIDATES = np.round(np.arange(0.3, 3.01, 0.05), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="store the thresholds in MODEL")
    parser.add_argument("--output", type=Path, default=RESULTS / "presence.csv")
    args = parser.parse_args()
    intensities, labels, people = read(args.model, args.faces)
    half = np.unique(people, return_inverse=True)[1] % 2 == 0
    chosen = thresholds(intensities[half], labels[half])
    write_csv(args.output, table(intensities[~half], labels[~half], chosen))
    if args.write:
        checkpoint = load_checkpoint(args.model)
        stored = dict(zip(UNITS, thresholds(intensities, labels), strict=True))
        metadata = {**checkpoint.metadata, PRESENCE_KEY: stored}
        save_checkpoint(checkpoint.path, checkpoint.arrays, metadata)
        sys.stdout.write(f"{checkpoint.path}: {stored}\n")
    return 0


def read(model: Path, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted intensities and labels, (N, 17) each, and the person of each face, (N,)."""
    net, columns = load_au_predictor(model), []
    for path in paths:
        faces = FaceDataset(path)
        crops = faces.read_images(np.arange(len(faces)))[..., ::-1]
        predicted = net.predict_batch(crops)["au_intensities"]
        columns.append((predicted, faces.labels["au_intensities"], subjects_of(faces)[1]))
    predicted, labels, people = map(np.concatenate, zip(*columns, strict=True))
    return predicted, labels, people


def thresholds(intensities: np.ndarray, labels: np.ndarray) -> list[float]:
    """Of each unit the candidate with the highest F1 score."""
    chosen = []
    for values, present in zip(intensities.T, labels.T >= PRESENCE_THRESHOLD, strict=True):
        scores = [f1_score(present, values >= candidate) for candidate in CANDIDATES]
        enough = present.sum() >= MINIMUM_SUPPORT
        chosen.append(float(CANDIDATES[np.argmax(scores)]) if enough else PRESENCE_THRESHOLD)
    return chosen


def table(intensities: np.ndarray, labels: np.ndarray, chosen: Sequence[float]) -> list[Row]:
    """One row a unit: both scores at its own threshold, and at 1."""
    rows: list[Row] = []
    for i, unit in enumerate(UNITS):
        present = labels[:, i] >= PRESENCE_THRESHOLD
        own, plain = (intensities[:, i] >= level for level in (chosen[i], PRESENCE_THRESHOLD))
        rows.append(
            {
                "unit": unit,
                "faces": len(labels),
                "present": int(present.sum()),
                "threshold": f"{chosen[i]:.2f}",
                "f1": f"{f1_score(present, own):.3f}",
                "balanced_accuracy": f"{balanced_accuracy(present, own):.3f}",
                "f1_at_1": f"{f1_score(present, plain):.3f}",
                "balanced_accuracy_at_1": f"{balanced_accuracy(present, plain):.3f}",
            }
        )
    return rows


def f1_score(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Harmonic mean of precision and recall of (N,) bool; NaN where neither has a positive."""
    positives = int(truth.sum() + predicted.sum())
    return 2 * int((truth & predicted).sum()) / positives if positives else float("nan")


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of sensitivity and specificity of (N,) bool; NaN where the truth is constant."""
    if truth.all() or not truth.any():
        return float("nan")
    return float((predicted[truth].mean() + (~predicted[~truth]).mean()) / 2)


if __name__ == "__main__":
    sys.exit(main())
