"""Training while the clocks misbehave."""

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("h5py")

from test_loop import make_loop
from tiny_training import write_faces


def test_clocks_that_jump_or_stand_still_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, jumps = write_faces(tmp_path / "faces.h5"), random.Random(0)
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    monkeypatch.setattr("time.time", lambda: 1e9 + jumps.uniform(-1e8, 1e8))
    assert make_loop(data, tmp_path / "run", [3.0, 2.0], epochs=2).run() == "finished"
    history = json.loads((tmp_path / "run" / "training_history.json").read_text())
    assert [entry["epoch"] for entry in history["epochs"]] == [1, 2]
    assert all(0 <= entry["waiting"] <= 1 for entry in history["epochs"])
