"""Training in MLX equals training in torch."""

import numpy as np
import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("torch")

from tiny_training import take_steps

from mlx_faceau.core.architectures import CONFIGS, initial_weights, output_biases
from mlx_faceau.core.trainer import TrainerSettings
from mlx_faceau.data.synthetic.people import synthesize
from mlx_faceau.torch_fallback.trainer import TorchTrainer
from mlx_faceau.train.loop import learning_rate
from mlx_faceau.train.mlx_trainer import MLXTrainer
from mlx_faceau.train.target_statistics import TargetStatistics

STEPS, BATCH = 10, 8
TOLERANCE = 1e-3  # relative; float32 training is chaotic after some dozens of steps
STANDARDISED = {"landmark_pose": ("global_params", "local_params"), "au_prediction": ()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_losses_of_both_frameworks_are_equal(kind: str) -> None:
    """Same first weights and batches, dropout replaced by identity."""
    config = CONFIGS[kind](width_mult=0.25)
    faces = synthesize(64, seed=6)
    ones = np.ones(len(faces["images"]), np.float32)
    targets = ("landmarks", "global_params", "local_params", "au_intensities")
    statistics = TargetStatistics.of(
        {name: faces[name] for name in targets}, {"global_mask": ones, "local_mask": ones}
    )
    weights = initial_weights(config, seed=3) | output_biases(config, statistics.means)
    order = np.random.default_rng(0).integers(0, len(ones), (STEPS, BATCH))
    columns = ("images", *config.output_shapes)
    losses = []
    for trainer_class in (MLXTrainer, TorchTrainer):
        scaling = statistics.scaling(STANDARDISED[kind])
        settings = TrainerSettings(
            config, weights, scaling=scaling, weight_decay=1e-4, device="cpu"
        )
        trainer = trainer_class(settings)
        for head in config.heads:
            layers = getattr(trainer.net, head.name)
            layers.dropouts = [type(layer)(0.0) for layer in layers.dropouts]
        batches = [{name: faces[name][rows] for name in columns} for rows in order]
        terms = take_steps(trainer, batches, lambda step: learning_rate(step, 200, 1e-4))
        losses.append(np.float64(terms["loss"]))
    ours, other = losses
    assert (np.abs(ours - other) / other).max() <= TOLERANCE
    assert np.ptp(other) > 0.02 * other.mean()
