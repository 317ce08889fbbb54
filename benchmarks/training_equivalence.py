"""Does training in MLX equal training in torch?  python benchmarks/training_equivalence.py

Same first weights, same batches of synthetic faces, dropout replaced by identity: the loss of every
step in MLX float32, torch float32 and torch float64. Float32 training is chaotic after some dozens
of steps in any framework, so torch float32 against float64 is the control beside MLX against torch.

Passes when the first 20 losses lie within 1e-3 relative, and from then on means over 50 steps
within 3 % (of torch float32). Exit status 1 otherwise.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from compare import RESULTS, machine_stamp

from mlx_faceau.core.architectures import CONFIGS, ModelConfig, initial_weights, output_biases
from mlx_faceau.data.synthetic.people import synthesize
from mlx_faceau.torch_fallback.trainer import TorchTrainer
from mlx_faceau.train.mlx_trainer import MLXTrainer
from mlx_faceau.train.schedule import learning_rate
from mlx_faceau.train.target_statistics import TargetStatistics

EARLY, EARLY_TOLERANCE = 20, 1e-3
WINDOW, LATE_TOLERANCE = 50, 0.03
STEPS, LEARNING_RATE = 200, 1e-4  # of the run, and the peak after its warm-up
STANDARDISED = {"landmark_pose": ("global_params", "local_params"), "au_prediction": ()}

Arrays = dict[str, np.ndarray]


class DoubleTrainer(TorchTrainer):
    """The torch trainer in float64: what both float32 trainings approximate."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.net.double()
        self._scaling = {
            name: tuple(part.double() for part in pair) for name, pair in self._scaling.items()
        }

    def _input(self, images: np.ndarray) -> torch.Tensor:
        return super()._input(images).double()

    def _to_device(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        return {name: value.double() for name, value in super()._to_device(arrays).items()}


TRAINERS = {"mlx": MLXTrainer, "torch": TorchTrainer, "torch float64": DoubleTrainer}


def losses_of(
    trainer_class: type, config: ModelConfig, faces: Arrays, steps: int, batch: int
) -> np.ndarray:
    """(steps,) loss before each step."""
    columns = {name: faces[name] for name in config.output_shapes}
    masks = {name: np.ones(len(faces["images"]), np.float32) for name in ("global_mask",)}
    statistics = TargetStatistics.of(
        {name: faces[name] for name in ALL_TARGETS}, {**masks, "local_mask": masks["global_mask"]}
    )
    weights = initial_weights(config, seed=3) | output_biases(config, statistics.means)
    trainer = trainer_class(
        config,
        weights,
        loss_options={},
        scaling=statistics.scaling(STANDARDISED[config.kind]),
        weight_decay=1e-4,
        seed=0,
        device="cpu",
    )
    without_dropout(trainer.net, config)
    terms = trainer.train_epoch(
        batches(faces["images"], columns, steps, batch),
        lambda step: learning_rate(step, STEPS, LEARNING_RATE),
    )
    return np.float64(terms["loss"])


ALL_TARGETS = ("landmarks", "global_params", "local_params", "au_intensities")


def without_dropout(net, config: ModelConfig) -> None:
    """Make every dropout the identity."""
    for head in config.heads:
        layers = getattr(net, head.name)
        layers.dropouts = [
            type(rate)(0.0)
            for rate in layers.dropouts  # a number in torch, a module in MLX
        ]


def batches(images: np.ndarray, columns: Arrays, steps: int, batch: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(5)
    for _ in range(steps):
        rows = rng.choice(len(images), batch, replace=False)
        yield {"images": images[rows], **{name: value[rows] for name, value in columns.items()}}


def largest_gaps(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Largest relative gap of the first losses, and of the means over windows after them."""
    early = np.abs(first[:EARLY] - second[:EARLY]) / np.abs(second[:EARLY])
    ends = range(WINDOW, len(first) + 1, WINDOW)
    means = np.array([[x[end - WINDOW : end].mean() for end in ends] for x in (first, second)])
    late = np.abs(means[0] - means[1]) / np.abs(means[1]) if means.size else np.zeros(1)
    return float(early.max()), float(late.max())


def main() -> None:
    parser = argparse.ArgumentParser(description="losses of MLX and torch training side by side")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width-mult", type=float, default=1.0)
    parser.add_argument("--output", type=Path, default=RESULTS / "training_equivalence.csv")
    args = parser.parse_args()
    faces = synthesize(512, seed=6)
    curves = {}
    for kind, config_class in CONFIGS.items():
        config = config_class(width_mult=args.width_mult)
        for name, trainer in TRAINERS.items():
            curves[kind, name] = losses_of(trainer, config, faces, args.steps, args.batch)
            print(f"{kind} {name}: last loss {curves[kind, name][-1]:.5f}", flush=True)
    write(args, curves)
    draw(args.output.with_suffix(".png"), curves)
    sys.exit(0 if sum(report(kind, curves) for kind in CONFIGS) == len(CONFIGS) else 1)


def report(kind: str, curves: dict) -> bool:
    early, late = largest_gaps(curves[kind, "mlx"], curves[kind, "torch"])
    control = largest_gaps(curves[kind, "torch"], curves[kind, "torch float64"])
    passed = early <= EARLY_TOLERANCE and late <= LATE_TOLERANCE
    print(
        f"{kind}: MLX against torch, first {EARLY} losses {early:.1e}, means over {WINDOW} steps "
        f"{100 * late:.2f} %; control (torch float32 against float64) {control[0]:.1e}, "
        f"{100 * control[1]:.2f} %: {'passed' if passed else 'FAILED'}"
    )
    return passed


def write(args: argparse.Namespace, curves: dict) -> None:
    stamp = {**machine_stamp(), "width_mult": args.width_mult, "batch": args.batch}
    with args.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["net", "step", *TRAINERS, *stamp])
        for kind in CONFIGS:
            for step in range(args.steps):
                values = [f"{curves[kind, name][step]:.8g}" for name in TRAINERS]
                writer.writerow([kind, step, *values, *stamp.values()])


def draw(path: Path, curves: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(CONFIGS), figsize=(11, 6), sharex=True, layout="constrained")
    for column, kind in enumerate(CONFIGS):
        loss, gap = axes[:, column]
        for name in TRAINERS:
            loss.plot(curves[kind, name], label=name, lw=1)
        loss.set_title(kind.replace("_", " "))
        loss.set_ylabel("loss")
        loss.legend()
        for first, second in (("mlx", "torch"), ("torch", "torch float64")):
            relative = np.abs(curves[kind, first] - curves[kind, second]) / curves[kind, second]
            gap.semilogy(np.maximum(relative, 1e-9), label=f"{first} - {second}", lw=1)
        gap.set_ylabel("relative gap")
        gap.set_xlabel("step")
        gap.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
