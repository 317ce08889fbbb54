"""Event files for TensorBoard, read back by their published layout."""

import importlib.util
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.errors import MissingDependency
from mlx_faceau.train.config import AUTrainConfig
from mlx_faceau.train.history import TENSORBOARD_FOLDER, scalars
from mlx_faceau.train.run import run_training


def settings(folder: Path) -> dict[str, Any]:
    given = {"data": str(folder / "faces.h5"), "output": str(folder / "run"), "tensorboard": True}
    tiny = {"epochs": 1, "batch_size": 8, "val_split": 0.17, "width_mult": 0.1, "num_workers": 0}
    return {**given, **tiny, "framework": "torch", "device": "cpu", "no_export": True}


def events(folder: Path) -> Iterator[Any]:
    """TFRecord: a little-endian length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4


def test_every_number_of_an_epoch_is_there_and_a_resumed_training_voids_what_it_repeats(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboardX")
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    write_faces(tmp_path / "faces.h5")
    run_training(AUTrainConfig, settings(tmp_path))
    result = run_training(AUTrainConfig, {"epochs": 2}, resume=tmp_path / "run")
    written = list(events(tmp_path / "run" / TENSORBOARD_FOLDER))
    by_epoch: dict[int, dict[str, float]] = {1: {}, 2: {}}
    for event in written:
        for value in event.summary.value:
            by_epoch[event.step][value.tag] = value.simple_value
    for name, value in scalars(result.state.best):
        if name != "epoch":
            assert by_epoch[result.state.best_epoch][name] == pytest.approx(value, rel=1e-6)
    assert {"training/loss", "validation/loss", "learning_rate", "metrics/mae"} <= set(by_epoch[2])
    assert "metrics/aus/AU12_r/ccc" in by_epoch[2]
    assert [event.step for event in written if event.HasField("session_log")] == [1, 2]


def test_without_the_library_its_extra_is_named_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDependency, match=r"mlx-faceau\[tensorboard\]"):
        run_training(AUTrainConfig, {"data": "unread.h5", "output": "run", "tensorboard": True})
    assert not list(tmp_path.iterdir())


def test_what_is_no_finite_number_is_left_out() -> None:
    entry = {"epoch": 3, "metrics": {"aus": {"AU01_r": {"r": float("nan"), "mae": 0.5}}, "x": [1]}}
    assert dict(scalars(entry)) == {"epoch": 3.0, "metrics/aus/AU01_r/mae": 0.5}
