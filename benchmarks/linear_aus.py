"""How far do linear models get with a landmark net's points, alone and beside an action unit net?

    python benchmarks/linear_aus.py train.h5 open.h5 --people val.h5 \
        --landmark-model runs/landmark-pose/stage1 --au-model runs/au/stage5

OpenFace's intensities are linear in the gradients of the aligned face and in shape parameters. The
models are fitted to labelled faces with the labels' own landmarks, and asked about other people
with these, with the net's landmarks and the shape that the PDM fits to them, and averaged with the
action unit net. ``linear-aus.csv``: mean r of the units that at least 50 faces show above 1, MAE.
"""

import argparse
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau import load_au_predictor, load_predictor
from mlx_faceau.core.facs import MAX_INTENSITY
from mlx_faceau.core.metrics import pearson
from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.implied_pdm import implied_pdm
from mlx_faceau.data.labels.openface_au_models import features_of, uncensored_fit

_NAMES = ("landmarks", "global_params", "local_params")
_NOISE = 0.5  # px that the PDM may miss the landmarks by
_SHOWN = 50  # faces above 1 that a unit of the mean needs


class FacesElsewhere:
    """Labelled faces with the landmarks of a net and the PDM's fit to them."""

    def __init__(self, faces: FaceDataset, rows: np.ndarray, points: np.ndarray, pdm: PDM) -> None:
        fit = fit_pdm(pdm, points.astype(np.float64), _NOISE)
        values = (points, fit.global_params, fit.local_params)
        self.labels = dict(zip(_NAMES, (v.astype(np.float32) for v in values), strict=True))
        self._faces, self._rows = faces, rows

    def read_images(self, rows: np.ndarray) -> np.ndarray:
        return self._faces.read_images(self._rows[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--people", type=Path, required=True, help="faces of other people")
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", required=True)
    parser.add_argument("--output", type=Path, default=RESULTS / "linear-aus.csv")
    args = parser.parse_args()
    training, people = [FaceDataset(path) for path in args.data], FaceDataset(args.people)
    usable = [np.flatnonzero(faces.masks["global_mask"] > 0) for faces in training]
    pairs = list(zip(training, usable, strict=True))
    labels = {n: np.concatenate([f.labels[n][r] for f, r in pairs]) for n in _NAMES}
    pdm = implied_pdm(*labels.values())
    seen = np.concatenate([block for pair in pairs for block in features_of(*pair, pdm)])
    intensities = np.concatenate([f.labels["au_intensities"][r] for f, r in pairs])
    centre = seen.mean(axis=0)
    weights, scores = uncensored_fit(seen - centre, intensities)

    rows = np.flatnonzero(people.masks["global_mask"] > 0)
    truth = people.labels["au_intensities"][rows]
    images = people.read_images(rows)[..., ::-1]
    points = load_predictor(args.landmark_model).predict_batch(images)["landmarks"]
    net = load_au_predictor(args.au_model).predict_batch(images)["au_intensities"]

    def ask(faces: FaceDataset | FacesElsewhere, chosen: np.ndarray) -> np.ndarray:
        features = np.concatenate(list(features_of(faces, chosen, pdm)))
        found = (features - centre) @ weights + scores.mean(axis=0)
        return np.clip(found, 0, MAX_INTENSITY)

    elsewhere = ask(FacesElsewhere(people, rows, points, pdm), np.arange(len(rows)))
    judged = (truth > 1).sum(axis=0) >= _SHOWN
    error = float(np.abs(points - people.labels["landmarks"][rows]).mean())
    results: list[Row] = []
    for name, found in {
        "linear, labels' landmarks": ask(people, rows),
        f"linear, net's landmarks, {error:.2f} px off": elsewhere,
        "action unit net": net,
        "mean of the net and linear, net's landmarks": (net + elsewhere) / 2,
    }.items():
        r, mae = pearson(truth, found)[judged].mean(), np.abs(found - truth).mean()
        results.append(
            {
                "prediction": name,
                "faces": len(rows),
                "mean_r": round(float(r), 4),
                "mae": round(float(mae), 4),
            }
        )
        print(f"{name}: r {r:.3f}, MAE {mae:.3f}", flush=True)
    write_csv(args.output, results)


if __name__ == "__main__":
    main()
