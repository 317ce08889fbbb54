"""Training in MLX equals training in torch; the long run is benchmarks/training_equivalence.py."""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("mlx.core")
pytest.importorskip("torch")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import training_equivalence as long_run

from mlx_faceau.core.architectures import CONFIGS
from mlx_faceau.data.synthetic.people import synthesize


@pytest.mark.parametrize("kind", CONFIGS)
def test_losses_of_both_frameworks_stay_together(kind: str) -> None:
    config = CONFIGS[kind](width_mult=0.25)
    faces = synthesize(64, seed=6)
    ours, torch = (
        long_run.losses_of(long_run.TRAINERS[name], config, faces, long_run.EARLY, 16)
        for name in ("mlx", "torch")
    )
    early, _ = long_run.largest_gaps(ours, torch)
    assert early <= long_run.EARLY_TOLERANCE
    assert np.ptp(torch) > 0.02 * torch.mean()
