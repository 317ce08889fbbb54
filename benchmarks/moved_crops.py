"""Action units on moved crops, cut again around the landmark net's landmarks as ``predict`` does.

    python benchmarks/moved_crops.py val.h5 --landmark-model RUN --au-model FILE...

The evaluation's jittered crops, and those from the file's detector boxes, go through the landmark
net; the standard crop around its landmarks then goes through the action unit nets.
"""

import argparse
from typing import Any

import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.geometry import standard_crop_matrix
from mlx_faceau.core.metrics import au_metrics
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.evaluation.crops import box_crops, jitter_matrices, warp_images
from mlx_faceau.evaluation.evaluate import JITTER_SEED
from mlx_faceau.inference.predictor import load_au_predictor, load_predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", nargs="+", required=True)
    args = parser.parse_args()
    dataset = FaceDataset(args.data)
    images = np.ascontiguousarray(dataset.read_images(np.arange(len(dataset)))[..., ::-1])
    truth = dataset.labels["au_intensities"]
    boxes: Any = box_crops(dataset, "file")
    moves = {
        "standard crops": np.tile(np.eye(3)[:2], (len(dataset), 1, 1)),
        "jittered": jitter_matrices(len(dataset), JITTER_SEED),
        boxes.name: boxes.matrices,
    }
    landmark_net = load_predictor(args.landmark_model)
    nets = {path: load_au_predictor(path) for path in args.au_model}
    rows: list[Row] = []
    for name, moved in moves.items():
        crops = warp_images(moved, images)
        found = landmark_net.predict_batch(crops)["landmarks"]
        again = np.stack(
            [
                standard_crop_matrix(points) @ np.vstack([matrix, [0, 0, 1]])
                for points, matrix in zip(found, moved, strict=True)
            ]
        )
        for path, net in nets.items():
            for how, pixels in (("as they are", crops), ("cut again", warp_images(again, images))):
                metrics = au_metrics(truth, net.predict_batch(pixels)["au_intensities"])
                row: Row = {"crops": name, "cut": how, "net": path.rsplit("/", 1)[-1]}
                figures = {key: f"{metrics[key]:.4f}" for key in ("correlation", "mae")}
                rows.append(row | {"faces": len(dataset), **figures})
    write_csv(RESULTS / "moved-crops.csv", rows)


if __name__ == "__main__":
    main()
