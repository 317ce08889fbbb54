"""How far do linear models get with the points of networks, alone and beside a network?

    python benchmarks/linear_aus.py val.h5 \
        --landmark-model runs/landmark-pose/stage2 --au-model runs/au-from-builtin/stage4

OpenFace's intensities are linear in the gradients of the aligned face and in shape parameters. A
checkpoint that was trained with an auxiliary head holds such models, fitted to its training labels
(``OpenFaceAUModels``), and the head, which predicts landmarks and shape from the network's own
features. The models are asked about other people with the labels' own landmarks and shape, with the
landmark network's, and with the auxiliary head's; and averaged with the network's intensities.
``linear-aus.csv``: mean r of the units that at least 50 faces show above 1, with its 95 % interval
over people, and MAE; of the landmarks and shape that were asked with, their own error and mean r.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from timing import RESULTS, Row, write_csv

from mlx_faceau import load_au_predictor, load_predictor
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.core.facs import MAX_INTENSITY, NUM_AUS
from mlx_faceau.core.metrics import MINIMUM_SUPPORT, pearson
from mlx_faceau.core.pdm import fit_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels, features_of
from mlx_faceau.evaluation.bootstrap import au_intervals, subjects_of
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.checkpoints import AU_MODELS
from mlx_faceau.train.target_statistics import TargetStatistics

_NOISE = 0.5  # px that the PDM may miss the landmarks by
_GROUPS = 4  # of the auxiliary head's outputs: see mlx_faceau/train/batch_transforms.py


class FacesElsewhere:
    """Labelled faces with other landmarks and shape; the pose is the PDM's fit to the landmarks."""

    def __init__(
        self,
        faces: FaceDataset,
        models: OpenFaceAUModels,
        points: np.ndarray,
        shape: np.ndarray | None = None,
    ) -> None:
        fit = fit_pdm(models.pdm, points.astype(np.float64), _NOISE)
        self.labels = {
            "landmarks": points.astype(np.float32),
            "global_params": fit.global_params.astype(np.float32),
            "local_params": np.float32(fit.local_params if shape is None else shape),
        }
        self.read_images = faces.read_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path, help="faces of people not trained on")
    parser.add_argument("--landmark-model", type=Path, required=True)
    parser.add_argument("--au-model", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS / "linear-aus.csv")
    args = parser.parse_args()
    people = FaceDataset(args.people)
    truth, labelled = people.labels["au_intensities"], people.labels["landmarks"]
    images = people.read_images(np.arange(len(people)))
    checkpoint = load_checkpoint(args.au_model)
    models = OpenFaceAUModels.from_arrays(checkpoint.section(AU_MODELS))
    points, shape = auxiliary_outputs(checkpoint, images)
    bgr = np.ascontiguousarray(images[..., ::-1])
    found = load_predictor(args.landmark_model).predict_batch(bgr)
    net = load_au_predictor(args.au_model).predict_batch(bgr)["au_intensities"]

    def ask(faces: FaceDataset | FacesElsewhere) -> np.ndarray:
        features = np.concatenate(list(features_of(faces, np.arange(len(people)), models.pdm)))
        scores = (features - models.centre) @ models.weights[:, :NUM_AUS] + models.means[:NUM_AUS]
        return np.clip(scores, 0, MAX_INTENSITY)

    def row(name: str, predicted: np.ndarray, faces: FacesElsewhere | None = None) -> Row:
        judged = (truth > 1).sum(axis=0) >= MINIMUM_SUPPORT
        interval = au_intervals(truth, predicted, subjects_of(people)[1])["correlation"]
        found: Row = {
            "prediction": name,
            "faces": len(truth),
            "mean_r": f"{pearson(truth, predicted)[judged].mean():.4f}",
            "interval": "{:.3f} to {:.3f}".format(*interval),
            "mae": f"{np.abs(truth - predicted).mean():.4f}",
        }
        if faces is not None:
            shapes = people.labels["local_params"], faces.labels["local_params"]
            found["landmarks_px_off"] = f"{np.abs(faces.labels['landmarks'] - labelled).mean():.3f}"
            found["shape_mean_r"] = f"{pearson(*shapes).mean():.3f}"
        return found

    results = [
        row("action unit network", net),
        row("linear, the labels' own landmarks", ask(people)),
    ]
    for name, faces in {
        "landmark network's landmarks": FacesElsewhere(people, models, found["landmarks"]),
        "landmark network's landmarks and shape": FacesElsewhere(
            people, models, found["landmarks"], found["local_params"]
        ),
        "auxiliary head's landmarks": FacesElsewhere(people, models, points),
        "auxiliary head's landmarks and shape": FacesElsewhere(people, models, points, shape),
    }.items():
        asked = ask(faces)
        results.append(row(f"linear, {name}", asked, faces))
        results.append(row(f"mean of network and linear, {name}", (net + asked) / 2, faces))
    write_csv(args.output, results)


def auxiliary_outputs(checkpoint: Checkpoint, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (n, 68, 2) in pixels and shape parameters (n, 34) of the auxiliary head."""
    net = build(checkpoint.config, checkpoint.weights()).eval()
    head = auxiliary_weights(checkpoint.arrays)
    weight = next(value for name, value in head.items() if name.endswith("weight"))
    bias = next(value for name, value in head.items() if name.endswith("bias"))
    features = []
    with torch.no_grad():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64].astype(np.float32) / 255)
            features.append(net.backbone(batch.permute(0, 3, 1, 2)).numpy())
    outputs, values = np.concatenate(features) @ weight.T + bias, []
    statistics = TargetStatistics.from_json(
        checkpoint.metadata["target_statistics"], "checkpoint", checkpoint.config.output_shapes
    )
    for name, columns in (("landmarks", slice(136)), ("local_params", slice(136, 170))):
        mean, deviation = statistics.means[name], statistics.deviations[name]
        group = outputs[:, columns] * np.sqrt(_GROUPS * mean.size)
        values.append(group.reshape(-1, *mean.shape) * deviation + mean)
    return values[0], values[1]


if __name__ == "__main__":
    main()
