"""A small untrained pair in the place of the built-in one, made by the command that fills it."""

import sys
from pathlib import Path

import numpy as np
from conftest import REPOSITORY
from random_nets import AU, LANDMARK

from mlx_faceau.core.architectures import random_weights
from mlx_faceau.core.checkpoint import describe
from mlx_faceau.core.pdm import PDM, write_pdm

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
try:
    import build_builtin
finally:
    sys.path.pop(0)

VERSION = "builtin-1"


def stand_in_weights(config) -> dict[str, np.ndarray]:
    """Weights that rounding to half precision changes no more than those of trained nets."""
    weights = random_weights(config, 0)
    for name in weights:
        if name.startswith("global_head.") and name.endswith(".weight"):
            weights[name] = weights[name] * np.float32(0.5)
    return weights


def stand_in_pair():
    """Both nets as the exporters take them."""
    from mlx_faceau.convert.source_model import CombinedModel, SourceModel

    sources = (
        SourceModel(config, stand_in_weights(config), describe(config, source_hash="0" * 64))
        for config in (LANDMARK, AU)
    )
    return CombinedModel(*sources)


def stand_in_pdm() -> PDM:
    """68 points and 34 modes of no face."""
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 40, (68, 3))
    basis = np.linalg.qr(rng.normal(size=(204, 34)))[0].reshape(68, 3, 34)
    return PDM(mean - mean.mean(axis=0), basis, np.linspace(300, 1, 34))


def build_stand_in(folder: Path) -> Path:
    """Fill a weights folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pdm(folder / "open_pdm.txt", stand_in_pdm())
    pair = stand_in_pair()
    build_builtin.build(pair, folder, VERSION)
    build_builtin.write_card(pair, folder, VERSION)
    return folder
