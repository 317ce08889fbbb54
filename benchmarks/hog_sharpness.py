"""Linear models of OpenFace's labels, fitted to gradients of crops that are sharpened more or less.

``python benchmarks/hog_sharpness.py runs/au/stage6 --data train.h5 mixed.h5 open.h5`` fits to 6,000
faces of the training side and predicts those of the other side from the landmarks and the shape
that the training's auxiliary head finds in standard and in jittered crops.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from timing import RESULTS, Row, write_csv

from mlx_faceau.core import hog
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import Checkpoint, load_checkpoint
from mlx_faceau.core.metrics import au_metrics
from mlx_faceau.data.format.dataset import ConcatDataset, FaceDataset
from mlx_faceau.data.format.identity import face_digests
from mlx_faceau.data.format.split import split_dataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.evaluation.crops import jitter_matrices, warp_images
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.hog_head import hog_head
from mlx_faceau.train.target_statistics import TargetStatistics

FACES = 6000
SHARPNESS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.training)
    dataset = ConcatDataset([FaceDataset(path) for path in args.data])
    settings = checkpoint.metadata["training"]
    split = split_dataset(dataset, settings["val_split"], settings["seed"], face_digests(dataset))
    usable = dataset.masks["global_mask"] > 0
    train = split.train[usable[split.train]]
    train = np.sort(np.random.default_rng(0).choice(train, FACES, replace=False))
    held = split.validation[usable[split.validation]]
    truth = dataset.labels["au_intensities"][held]
    standard = dataset.read_images(held)
    crops = {
        "standard": standard,
        "jittered": warp_images(jitter_matrices(len(held), 0), standard),
    }
    shapes = {"landmarks": (68, 2), "local_params": (34,)}
    statistics = TargetStatistics.from_json(
        checkpoint.metadata["target_statistics"], checkpoint.path, shapes
    )
    outputs = {name: auxiliary_outputs(checkpoint, images) for name, images in crops.items()}
    rows: list[Row] = []
    for sharpness in SHARPNESS:
        hog._SHARPNESS = sharpness
        models = OpenFaceAUModels.fit(dataset, train)
        row: Row = {"sharpness": sharpness, "fitted_to": FACES, "faces": len(held)}
        head = hog_head(models, statistics)
        for name, images in crops.items():
            scores = scores_of(images, outputs[name], head)
            metrics = au_metrics(truth, np.clip(scores, 0, 5))
            row |= {
                f"{name}_r": f"{metrics['correlation']:.4f}",
                f"{name}_mae": f"{metrics['mae']:.4f}",
            }
        rows.append(row)
        print(row, flush=True)
    write_csv(RESULTS / "hog-sharpness.csv", rows)


def auxiliary_outputs(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    net = build(checkpoint.config, checkpoint.weights()).eval()
    weights = auxiliary_weights(checkpoint.arrays)
    weight, bias = (weights[f"auxiliary_head.layers.0.{part}"] for part in ("weight", "bias"))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            pixels = np.ascontiguousarray(images[start : start + 64])
            found.append(net.backbone(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).numpy())
    return np.concatenate(found) @ weight.T + bias


def scores_of(images: np.ndarray, outputs: np.ndarray, head: dict[str, np.ndarray]) -> np.ndarray:
    constants = hog.hog_constants()
    geometry = outputs[:, : len(head["scale"])] * head["scale"] + head["first"]
    points = geometry[:, :136].reshape(-1, 68, 2)
    grey = images @ (constants["luminance"] / np.float32(255))
    features = [
        hog.hog_features(grey[s : s + 64], points[s : s + 64], head, constants)
        for s in range(0, len(images), 64)
    ]
    read = np.concatenate([np.concatenate(features), geometry[:, 136:]], axis=1)
    return read @ head["linear.weight"] + head["linear.bias"]


if __name__ == "__main__":
    main()
