"""Action units of the development people from the mean weights of a recipe's last stages.

``python benchmarks/averaged_stages.py runs/au/stage8 runs/au/stage7 ... --data train.h5 mixed.h5
open.h5``: of the stages before the first one only weights are taken.
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
from mlx_faceau.evaluation.crops import jitter_matrices, warp_images
from mlx_faceau.torch_fallback import build
from mlx_faceau.train.hog_head import au_models_of, hog_head
from mlx_faceau.train.target_statistics import TargetStatistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", type=Path, nargs="+")
    parser.add_argument("--data", nargs="+", required=True)
    args = parser.parse_args()
    stages = [load_checkpoint(path) for path in args.stages]
    checkpoint = stages[0]
    dataset = ConcatDataset([FaceDataset(path) for path in args.data])
    settings = checkpoint.metadata["training"]
    split = split_dataset(dataset, settings["val_split"], settings["seed"], face_digests(dataset))
    usable = dataset.masks["global_mask"] > 0
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
    models = au_models_of(checkpoint)
    head = hog_head(models, statistics)
    kinds = [[stage] for stage in stages]
    kinds += [stages[:count] for count in range(2, len(stages) + 1)]
    kinds.append(stages[2:])
    rows: list[Row] = []
    for kind in kinds:
        row: Row = {
            "mean_of": " ".join(stage.path.parent.name for stage in kind),
            "faces": len(held),
        }
        for name, images in crops.items():
            scores = scores_of(images, auxiliary_outputs(kind, images), head)
            metrics = au_metrics(truth, np.clip(scores, 0, 5))
            row |= {
                f"{name}_r": f"{metrics['correlation']:.4f}",
                f"{name}_mae": f"{metrics['mae']:.4f}",
            }
        rows.append(row)
        print(row, flush=True)
    write_csv(RESULTS / "averaged-stages.csv", rows)


def mean_of(every: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {n: np.mean([one[n] for one in every], axis=0).astype(np.float32) for n in every[0]}


def auxiliary_outputs(stages: list[Checkpoint], images: np.ndarray) -> np.ndarray:
    net = build(stages[0].config, mean_of([stage.weights() for stage in stages])).eval()
    weights = mean_of([auxiliary_weights(stage.arrays) for stage in stages])
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
