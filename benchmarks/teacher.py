"""How much of people's labels a linear teacher explains that never saw them.

    python benchmarks/teacher.py train.h5 mixed.h5 --people val.h5

OpenFace's static action unit models are linear in gradients of the aligned face and in the PDM's
shape parameters. Fitted back from labelled faces (``--auxiliary-weight`` trains with the result),
the same form says for every action unit how far its labels can be had from the pixels at all, and
how many faces that takes. ``teacher.csv`` gets Pearson's r on ``--people`` for several numbers of
faces, and with the largest for gradients and for shape parameters alone.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from compare import RESULTS, write_csv

from mlx_faceau.data.fhog import HOG_SIZE
from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.data.implied_pdm import implied_pdm
from mlx_faceau.data.joined import open_datasets
from mlx_faceau.data.teacher import features_of, uncensored_fit
from mlx_faceau.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.metrics import pearson

SHARES = (0.1, 0.25, 0.5, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True, help="faces of other people")
    parser.add_argument("--output", type=Path, default=RESULTS / "teacher.csv")
    args = parser.parse_args()
    training, people = open_datasets(args.data), FaceDataset(args.people)
    sides = [
        (faces, np.flatnonzero(faces.masks["global_mask"] > 0)) for faces in (training, people)
    ]
    names = ("landmarks", "global_params", "local_params")
    pdm = implied_pdm(*(training.labels[name][sides[0][1]] for name in names))
    seen, unseen = (np.concatenate(list(features_of(faces, rows, pdm))) for faces, rows in sides)
    said, wanted = (faces.labels["au_intensities"][rows] for faces, rows in sides)
    order = np.random.default_rng(0).permutation(len(said))
    cases = [("all", share, slice(None)) for share in SHARES]
    cases += [("gradients", 1.0, slice(HOG_SIZE)), ("shape", 1.0, slice(HOG_SIZE, None))]
    rows = []
    for what, share, columns in cases:
        chosen = order[: int(share * len(order))]
        features = seen[chosen, columns]
        centre = features.mean(axis=0)
        weights, scores = uncensored_fit(features - centre, said[chosen])
        found = (unseen[:, columns] - centre) @ weights + scores.mean(axis=0)
        r = pearson(wanted, np.clip(found, 0, MAX_INTENSITY))
        units = dict(zip(AU_NAMES, np.round(r, 3).tolist(), strict=True))
        mean = np.nanmean(r)  # of the units that vary on these people
        rows.append({"features": what, "faces": len(chosen), "mean": round(mean, 3), **units})
        print(f"{what} of {len(chosen)} faces: mean r {mean:.3f}", flush=True)
    write_csv(args.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
