"""How much of people's labels a linear teacher explains that never saw them.

    python benchmarks/teacher.py train.h5 --people dev.h5

OpenFace's static action unit models are linear in gradients of the aligned face and in the PDM's
shape parameters. Fitted back from labelled faces (``--auxiliary-weight`` trains with the result),
the same form says for every action unit how far its labels can be had from the pixels at all, and
how many faces that takes. ``teacher.csv`` gets Pearson's r on ``--people`` for several numbers of
faces, and with the largest for gradients and for shape parameters alone.

``mirrored`` asks the gradients' teacher about the mirror images of ``--people``: where it says
something else, so would the labels, and a net that is shown mirrored faces with unchanged labels
learns the mean of the two answers, which ``both`` is.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from compare import RESULTS, write_csv

from mlx_faceau.data.fhog import HOG_SIZE
from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.data.implied_pdm import implied_pdm
from mlx_faceau.data.joined import open_datasets
from mlx_faceau.data.teacher import features_of, uncensored_fit
from mlx_faceau.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.geometry import flip_global_params, flip_landmarks
from mlx_faceau.metrics import pearson

SHARES = (0.1, 0.25, 0.5, 1.0)
GRADIENTS, SHAPE = slice(HOG_SIZE), slice(HOG_SIZE, None)


@dataclass(frozen=True)
class Mirrored:
    """Mirror images of labelled faces, with their landmarks and poses.

    The other labels stay those of the unmirrored faces: shape parameters have no mirror.
    """

    faces: FaceDataset

    @property
    def labels(self) -> dict[str, np.ndarray]:
        given = self.faces.labels
        landmarks = np.stack([flip_landmarks(points) for points in given["landmarks"]])
        pose = np.stack([flip_global_params(params) for params in given["global_params"]])
        return {**given, "landmarks": landmarks, "global_params": pose}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return self.faces.masks

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.faces.read_images(indices)[:, :, ::-1])


@dataclass(frozen=True)
class Fit:
    """A teacher of some columns of the features."""

    columns: slice
    centre: np.ndarray
    weights: np.ndarray
    means: np.ndarray

    @classmethod
    def to(cls, features: np.ndarray, said: np.ndarray, columns: slice) -> "Fit":
        seen = features[:, columns]
        centre = seen.mean(axis=0)
        weights, scores = uncensored_fit(seen - centre, said)
        return cls(columns, centre, weights, scores.mean(axis=0))

    def answers(self, features: np.ndarray) -> np.ndarray:
        found = (features[:, self.columns] - self.centre) @ self.weights + self.means
        return np.clip(found, 0, MAX_INTENSITY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True, help="faces of other people")
    parser.add_argument("--output", type=Path, default=RESULTS / "teacher.csv")
    args = parser.parse_args()
    training, people = open_datasets(args.data), FaceDataset(args.people)
    rows, others = (np.flatnonzero(faces.masks["global_mask"] > 0) for faces in (training, people))
    names = ("landmarks", "global_params", "local_params")
    pdm = implied_pdm(*(training.labels[name][rows] for name in names))
    seen, unseen, mirrored = (
        np.concatenate(list(features_of(faces, chosen, pdm)))
        for faces, chosen in ((training, rows), (people, others), (Mirrored(people), others))
    )
    said = training.labels["au_intensities"][rows]
    wanted = people.labels["au_intensities"][others]
    table = Table(wanted)
    order = np.random.default_rng(0).permutation(len(said))
    for share in SHARES:
        chosen = order[: int(share * len(order))]
        fit = Fit.to(seen[chosen], said[chosen], slice(None))
        table.add("all", len(chosen), fit.answers(unseen))
    table.add("shape", len(said), Fit.to(seen, said, SHAPE).answers(unseen))
    fit = Fit.to(seen, said, GRADIENTS)
    plain, turned = fit.answers(unseen), fit.answers(mirrored)
    table.add("gradients", len(said), plain)
    table.add("gradients, mirrored", len(said), turned)
    table.add("gradients, both", len(said), (plain + turned) / 2)
    write_csv(args.output, table.rows)
    return 0


@dataclass
class Table:
    """Pearson's r of answers with the labels, a row for each teacher."""

    wanted: np.ndarray
    rows: list[dict] = field(default_factory=list)

    def add(self, what: str, faces: int, answers: np.ndarray) -> None:
        r = pearson(self.wanted, answers)
        units = dict(zip(AU_NAMES, np.round(r, 3).tolist(), strict=True))
        mean = np.nanmean(r)  # of the units that vary on these people
        self.rows.append({"features": what, "faces": faces, "mean": round(mean, 3), **units})
        print(f"{what} of {faces} faces: mean r {mean:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
