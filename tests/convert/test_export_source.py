"""What exported files take over from the checkpoint that they are made of."""

from pathlib import Path
from typing import Any

import pytest
from random_nets import AU, LANDMARK, random_weights

pytest.importorskip("torch")

from mlx_faceau.convert.source_model import CombinedModel, SourceModel, read_source
from mlx_faceau.core.architectures import ModelConfig
from mlx_faceau.core.checkpoint import describe, save_checkpoint

BEFORE = {"hash": "1", "data": {"hash": "b", "files": ["b"]}, "training": {"epochs": 7}}


def read(path: Path, config: ModelConfig, **told: Any) -> SourceModel:
    arrays = {f"model.{name}": value for name, value in random_weights(config).items()}
    save_checkpoint(path, arrays, describe(config, **told))
    source = read_source(path)
    assert isinstance(source, SourceModel)
    return source


def test_the_training_goes_along_without_its_paths_and_its_progress(tmp_path: Path) -> None:
    data = {"hash": "ab", "files": ["a", "b"], "labellers": [{"labeller": "OpenFace"}], "faces": 9}
    source = read(
        tmp_path / "net.safetensors",
        AU,
        target_statistics={"count": 1},
        data=data,
        training={"epochs": 40, "lr": 0.001, "data": ["/home/me/faces.h5"], "num_workers": 2},
        init={"file": "/home/me/run/checkpoint_best.safetensors", **BEFORE},
        progress={"epoch": 3},
    )
    own = {key: source.metadata[key] for key in source.metadata.keys() - describe(AU).keys()}
    assert own.pop("source_hash")
    assert own == {
        "target_statistics": {"count": 1},
        "data": data,
        "training": {"epochs": 40, "lr": 0.001},
        "init": BEFORE,
    }


def test_in_a_file_of_both_nets_each_keeps_its_own_training(tmp_path: Path) -> None:
    same = {"data": {"hash": "a"}, "training": {"epochs": 40}, "init": BEFORE}
    landmarks = read(tmp_path / "landmarks.safetensors", LANDMARK, **same)
    aus = read(tmp_path / "aus.safetensors", AU, **same)
    metadata = CombinedModel(landmarks, aus).metadata
    assert metadata.keys().isdisjoint(same)
    for net in metadata["nets"].values():
        assert {key: net[key] for key in same} == same
