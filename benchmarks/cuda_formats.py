"""How does torch train fastest on this GPU?  python benchmarks/cuda_formats.py

Training steps of both nets with images in GPU memory's two layouts, in each precision, with and
without cuDNN's search for the fastest kernels; synthetic faces, from NumPy to the optimizer's step.
"""

import argparse
import itertools
import multiprocessing
import time
from pathlib import Path

from compare import RESULTS, write_csv

FORMATS = ("channels_last", "contiguous_format")
PRECISIONS = ("float32", "bfloat16", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description="layouts and precisions of training in torch")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--output", type=Path, default=RESULTS / "cuda_formats.csv")
    args = parser.parse_args()
    precisions = PRECISIONS if args.device == "cuda" else PRECISIONS[:1]
    searches = (False, True) if args.device == "cuda" else (False,)
    nets = ("landmark_pose", "au_prediction")
    rows = []
    for case in itertools.product(nets, args.batch, FORMATS, precisions, searches):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (*case, args.device, args.steps)))
        print(" ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    write_csv(args.output, rows)
    print(f"\n{args.output}")


def measure(
    kind: str, batch: int, layout: str, precision: str, search: bool, device: str, steps: int
) -> dict:
    """Images a second of one case: the fastest of three epochs, after one for warming up."""
    import numpy as np
    import torch

    from mlx_faceau.core.architectures import (
        AUPredictionConfig,
        LandmarkPoseConfig,
        initial_weights,
    )
    from mlx_faceau.torch_fallback import trainer as module

    torch.backends.cudnn.benchmark = search
    module.MEMORY_FORMAT = getattr(torch, layout)
    config = {c.kind: c for c in (LandmarkPoseConfig(), AUPredictionConfig())}[kind]
    options = {"loss_options": {}, "scaling": {}, "weight_decay": 1e-4, "seed": 0}
    weights = initial_weights(config, 0)
    net = module.TorchTrainer(config, weights, precision=precision, device=device, **options)
    rng = np.random.default_rng(0)
    faces = {"images": rng.integers(0, 256, (batch, 112, 112, 3), np.uint8)}
    shapes = {**config.output_shapes, "global_mask": (), "local_mask": ()}
    faces |= {name: np.ones((batch, *shape), np.float32) for name, shape in shapes.items()}
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        net.train_epoch([faces] * steps, lambda _: 1e-4)  # all losses come back, so it is done
        seconds.append(time.perf_counter() - started)
    rate = round(batch * steps / min(seconds[1:]), 1)
    return {
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "none",
        "net": kind,
        "batch": batch,
        "layout": layout,
        "precision": precision,
        "cudnn_search": search,
        "images_per_second": rate,
        "peak_gpu_mb": round(net.device_memory() / 1e6, 1),
    }


if __name__ == "__main__":
    main()
