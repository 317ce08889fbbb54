"""Emotions told apart on posed faces, by the number of performers that the classifier learns from.

    python benchmarks/emotions_by_performers.py face_landmarker.task posed_dev.npz

The regression of ``builtin_evaluation.py`` on every choice of three to nine performers, each of
them left out in turn. Writes ``results/builtin/emotions-by-performers.csv``.
"""

import argparse
import csv
import itertools

import numpy as np
from builtin_evaluation import NAIVE, emotion_accuracy, labelled
from timing import RESULTS

from mlx_faceau import load_au_predictor
from mlx_faceau.data.labels.face_mesh import FaceMesh


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label_model")
    parser.add_argument("posed")
    given = parser.parse_args()
    file = np.load(given.posed)
    faces = labelled(FaceMesh(given.label_model), file)
    emotion, performer = file["emotion"][faces["row"]], file["performer"][faces["row"]]
    read = {
        "naive": np.stack([faces["scores"][:, columns].mean(1) for columns in NAIVE], 1),
        "labeller": faces["aus"],
        "net": load_au_predictor().predict_batch(faces["crop"])["au_intensities"],
    }
    with (RESULTS / "builtin" / "emotions-by-performers.csv").open("w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(["learned_from", "choices", *read])
        for size in range(3, len(np.unique(performer)) + 1):
            chosen = [
                np.isin(performer, choice)
                for choice in itertools.combinations(np.unique(performer), size)
            ]
            counts = [rows.sum() for rows in chosen]
            accuracies = [
                np.average(
                    [emotion_accuracy(x[rows], emotion[rows], performer[rows]) for rows in chosen],
                    weights=counts,
                )
                for x in read.values()
            ]
            writer.writerow([size - 1, len(chosen), *(f"{each:.4f}" for each in accuracies)])


if __name__ == "__main__":
    main()
