"""How much of people's labels a linear teacher explains that never saw them.

    python benchmarks/teacher.py train.h5 --people dev.h5 --net runs/au/stage5 \
        --landmark-model runs/landmark-pose/stage3

OpenFace's static action unit models are linear in gradients of the aligned face and in the PDM's
shape parameters. Fitted back from labelled faces (``--auxiliary-weight`` trains with the result),
the same form says for every action unit how much of its labels these features hold, and how many
faces it takes to find that. It is given what no network is: the labeller's own landmarks, by which
faces are aligned, and its shape parameters. How exact must landmarks be? ``landmarks ... px off``
fits and asks it with those on the way from the labels' to ``--landmark-model``'s, which knows
nothing but pixels, and with the shape that the PDM fits to them. ``teacher.csv`` gets Pearson's r
on ``--people`` for several numbers of faces, and with the largest for gradients and for shape
parameters alone.

``mirrored`` asks the teacher about the mirror images of ``--people``: where it says something else,
so would the labels, and a net that is shown mirrored faces with unchanged labels learns the mean of
the two answers, which ``both`` is. ``--relabel-mirrored`` trains on the mirrored answer instead,
which needs shape parameters that the PDM, not quite symmetric, has to be fitted for: with ``shape
mirrored twice`` what these draw is mirrored and fitted again, and the labels judge the result. The
last rows ask ``--net`` about the mirror images: ``net, mirrored`` is judged by the unchanged
labels, ``net, mirrored, relabelled`` by the teacher's answers about the same images. It may know
these people: not their mirror images, if it was trained without.
"""

import argparse
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from compare import RESULTS, write_csv

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.geometry import project
from mlx_faceau.core.metrics import pearson
from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.fhog import HOG_SIZE
from mlx_faceau.data.labels.implied_pdm import implied_pdm
from mlx_faceau.data.labels.openface_au_models import features_of, shape_scale, uncensored_fit
from mlx_faceau.data.loading.concat_dataset import JoinedFaces, open_datasets
from mlx_faceau.data.loading.mirror import Mirrored
from mlx_faceau.inference.predictor import (
    AUPredictor,
    LandmarkPosePredictor,
    load_au_predictor,
    load_predictor,
)

SHARES = (0.1, 0.25, 0.5, 1.0)
EVERYTHING, GRADIENTS, SHAPE = slice(None), slice(HOG_SIZE), slice(HOG_SIZE, None)
WAYS = (0.0, 0.25, 0.5, 1.0)  # from the labels' landmarks to a net's
NOISE = 0.5  # px that the PDM may miss them by
BATCH = 64


@dataclass(frozen=True)
class Fit:
    """A teacher of some columns of the features."""

    faces: int
    columns: slice
    centre: np.ndarray
    weights: np.ndarray
    means: np.ndarray

    @classmethod
    def to(cls, features: np.ndarray, said: np.ndarray, columns: slice) -> "Fit":
        seen = features[:, columns]
        centre = seen.mean(axis=0)
        weights, scores = uncensored_fit(seen - centre, said)
        return cls(len(said), columns, centre, weights, scores.mean(axis=0))

    def answers(self, features: np.ndarray) -> np.ndarray:
        found = (features[:, self.columns] - self.centre) @ self.weights + self.means
        return np.clip(found, 0, MAX_INTENSITY)


@dataclass
class Table:
    """Pearson's r of answers with the labels, a row for each teacher."""

    wanted: np.ndarray
    rows: list[dict] = field(default_factory=list)

    def add(
        self, what: str, faces: int | None, answers: np.ndarray, wanted: np.ndarray | None = None
    ) -> None:
        r = pearson(self.wanted if wanted is None else wanted, answers)
        units = dict(zip(AU_NAMES, np.round(r, 3).tolist(), strict=True))
        mean = np.nanmean(r)  # of the units that vary on these people
        counted = {"features": what, "faces": "" if faces is None else faces}
        self.rows.append({**counted, "mean": round(mean, 3), **units})
        print(f"{what}{f' of {faces} faces' if faces else ''}: mean r {mean:.3f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True, help="faces of other people")
    parser.add_argument("--net", type=Path, help="a trained action unit net to ask too")
    parser.add_argument("--landmark-model", type=Path, help="a net whose landmarks to align by")
    parser.add_argument("--output", type=Path, default=RESULTS / "teacher.csv")
    args = parser.parse_args()
    training, people = open_datasets(args.data), FaceDataset(args.people)
    rows, others = (np.flatnonzero(faces.masks["global_mask"] > 0) for faces in (training, people))
    names = ("landmarks", "global_params", "local_params")
    pdm = implied_pdm(*(training.labels[name][rows] for name in names))
    seen, unseen = (
        np.concatenate(list(features_of(faces, chosen, pdm)))
        for faces, chosen in ((training, rows), (people, others))
    )
    table = Table(people.labels["au_intensities"][others])
    said = training.labels["au_intensities"][rows]
    fit = unmirrored(table, seen, said, unseen)
    if args.landmark_model:
        finder = load_predictor(args.landmark_model)
        both = [
            (faces, chosen, landmarks_of(finder, faces, chosen))
            for faces, chosen in ((training, rows), (people, others))
        ]
        for way in WAYS:
            found = [Elsewhere(*of, way, pdm) for of in both]
            features = [
                np.concatenate(list(features_of(of, np.arange(len(of.rows)), pdm))) for of in found
            ]
            fitted = Fit.to(features[0], said, EVERYTHING)
            what = f"all, landmarks {found[1].error:.2f} px off"
            table.add(what, len(said), fitted.answers(features[1]))
    images = Mirrored(people, others, pdm)
    turned = mirror_images(table, fit, unseen, images)
    if args.net:
        net = load_au_predictor(args.net)
        table.add("net", None, answers(net, people.read_images(others)))
        found = answers(net, images.read_images(np.arange(len(others))))
        table.add("net, mirrored", None, found)
        table.add("net, mirrored, relabelled", None, found, wanted=turned)
    write_csv(args.output, table.rows)
    return 0


def landmarks_of(
    finder: LandmarkPosePredictor, faces: FaceDataset | JoinedFaces, rows: np.ndarray
) -> np.ndarray:
    """(n, 68, 2) as a net sees them."""
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    crops = (faces.read_images(part)[..., ::-1] for part in parts)
    return np.concatenate([finder.predict_batch(of)["landmarks"] for of in crops])


@dataclass(frozen=True)
class Elsewhere:
    """Faces whose landmarks lie a part of the way to others, with the PDM's fit to them."""

    faces: FaceDataset | JoinedFaces
    rows: np.ndarray
    goal: np.ndarray
    way: float
    pdm: PDM

    @property
    def error(self) -> float:
        """Mean absolute difference of coordinates, px."""
        return self.way * float(
            np.abs(self.goal - self.faces.labels["landmarks"][self.rows]).mean()
        )

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        own = self.faces.labels["landmarks"][self.rows]
        points = own + np.float32(self.way) * (self.goal - own)
        fit = fit_pdm(self.pdm, points, NOISE)
        params = {
            name: getattr(fit, name).astype(np.float32)
            for name in ("global_params", "local_params")
        }
        return {"landmarks": points, **params}

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        return self.faces.read_images(self.rows[indices])


def unmirrored(table: Table, seen: np.ndarray, said: np.ndarray, unseen: np.ndarray) -> Fit:
    """The rows about people as they are; the teacher of all faces and features."""
    order = np.random.default_rng(0).permutation(len(said))
    for share in SHARES:
        chosen = order[: int(share * len(order))]
        fit = Fit.to(seen[chosen], said[chosen], EVERYTHING)
        table.add("all", len(chosen), fit.answers(unseen))
    for name, columns in (("shape", SHAPE), ("gradients", GRADIENTS)):
        table.add(name, len(said), Fit.to(seen, said, columns).answers(unseen))
    return fit


def mirror_images(table: Table, fit: Fit, unseen: np.ndarray, images: Mirrored) -> np.ndarray:
    """The rows about mirror images; (n, 17) what the teacher says of them."""
    plain, everyone = fit.answers(unseen), np.arange(len(images.rows))
    turned = fit.answers(np.concatenate(list(features_of(images, everyone, images.pdm))))
    table.add("all, mirrored", fit.faces, turned)
    table.add("all, both", fit.faces, (plain + turned) / 2)
    found, pdm = images.labels, images.pdm
    drawn = project(pdm.mean, pdm.basis, found["global_params"], found["local_params"])
    redrawn = SimpleNamespace(labels={**found, "landmarks": np.asarray(drawn, np.float32)})
    shape = Mirrored(redrawn, everyone, pdm).labels["local_params"]
    back = np.concatenate([unseen[:, GRADIENTS], shape * shape_scale(pdm)], axis=1)
    table.add("all, shape mirrored twice", fit.faces, fit.answers(back))
    return turned


def answers(net: AUPredictor, crops: np.ndarray) -> np.ndarray:
    """(n, 17) intensities of a net about RGB crops."""
    parts = np.split(crops[..., ::-1], range(BATCH, len(crops), BATCH))
    return np.concatenate([net.predict_batch(part)["au_intensities"] for part in parts])


if __name__ == "__main__":
    sys.exit(main())
