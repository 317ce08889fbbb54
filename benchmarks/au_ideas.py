"""Does the mean of a face and its mirror image, or of two heads, predict action units better?

    python benchmarks/au_ideas.py people.h5 RUN/stage3

The net's own head, the mean with its prediction for the mirror image, the auxiliary head's
unclipped scores, and the mean of both heads, on people that the training has not seen.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from timing import RESULTS, Row, write_csv

from mlx_faceau import load_au_predictor
from mlx_faceau.core.auxiliary_head import auxiliary_weights
from mlx_faceau.core.checkpoint import load_checkpoint
from mlx_faceau.core.metrics import MINIMUM_SUPPORT, pearson
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.checkpoints import AU_MODELS

SCORES = slice(170, 187)  # of the auxiliary head's outputs, behind landmarks and shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    faces = FaceDataset(args.people)
    images = faces.read_images(np.arange(len(faces)))[..., ::-1]
    truth = faces.labels["au_intensities"]
    net = load_au_predictor(args.checkpoint)
    own = net.predict_batch(np.ascontiguousarray(images))["au_intensities"]
    mirrored = net.predict_batch(np.ascontiguousarray(images[:, :, ::-1]))["au_intensities"]
    checkpoint = load_checkpoint(args.checkpoint)
    models = OpenFaceAUModels.from_arrays(checkpoint.section(AU_MODELS))
    linear = scores(checkpoint, images, models)
    rows = [
        figures("the net", truth, own),
        figures("mean with the mirror image's", truth, (own + mirrored) / 2),
        figures("auxiliary head", truth, linear),
        figures("mean of both heads", truth, (own + linear) / 2),
    ]
    write_csv(RESULTS / "au-ideas.csv", rows)


def scores(checkpoint, images: np.ndarray, models: OpenFaceAUModels) -> np.ndarray:
    """(n, 17) intensities of the auxiliary head."""
    net = build(checkpoint.config, checkpoint.weights()).eval()
    head = auxiliary_weights(checkpoint.arrays)
    weight = next(v for k, v in head.items() if k.endswith("weight"))
    bias = next(v for k, v in head.items() if k.endswith("bias"))
    found = []
    with torch.no_grad():
        for start in range(0, len(images), 64):
            batch = np.ascontiguousarray(images[start : start + 64, ..., ::-1], np.float32) / 255
            x = torch.from_numpy(batch).permute(0, 3, 1, 2)
            features = net.backbone(x).numpy()
            found.append(features @ weight.T + bias)
    standardised = np.concatenate(found)[:, SCORES] * np.sqrt(17 * 4)  # see batch_transforms.py
    return models.intensities(standardised)


def figures(name: str, truth: np.ndarray, predicted: np.ndarray) -> Row:
    shown = (truth > 1).sum(axis=0) >= MINIMUM_SUPPORT
    return {
        "prediction": name,
        "faces": len(truth),
        "units": int(shown.sum()),
        "mean_r": round(float(pearson(truth, predicted)[shown].mean()), 4),
        "mae": round(float(np.abs(truth - predicted).mean()), 4),
    }


if __name__ == "__main__":
    main()
