import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig, initial_weights
from mlx_faceau.core.artifact_metadata import parse_metadata
from mlx_faceau.core.atomic_io import atomic_file, clear_unfinished
from mlx_faceau.core.checkpoint import describe, load_checkpoint, read_metadata, save_checkpoint
from mlx_faceau.errors import CheckpointError

CONFIG = AUPredictionConfig(width_mult=0.25, dropout=0.1)


def write(path: Path, **changes: np.ndarray | None) -> Path:
    weights = initial_weights(CONFIG, seed=0)
    arrays = {f"model.{name}": array for name, array in weights.items()} | changes
    save_checkpoint(
        path, {k: v for k, v in arrays.items() if v is not None}, describe(CONFIG, note="x")
    )
    return path


def test_a_checkpoint_loads_with_no_further_argument(tmp_path: Path) -> None:
    path = write(tmp_path / "checkpoint_best.safetensors")
    loaded = load_checkpoint(tmp_path)
    assert loaded.path == path
    assert loaded.config == CONFIG
    assert loaded.metadata["note"] == "x"
    for name, array in initial_weights(CONFIG, seed=0).items():
        np.testing.assert_array_equal(loaded.weights()[name], array)


def test_averaged_weights_are_preferred_and_raw_ones_can_be_asked_for(tmp_path: Path) -> None:
    name = "au_head.layers.2.bias"
    path = write(tmp_path / "a.safetensors", **{f"ema.{name}": np.full(17, 3, np.float32)})
    loaded = load_checkpoint(path)
    assert (loaded.weights()[name] == 3).all()
    assert (loaded.section("model.")[name] == 0).all()


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_all_wrong_weights_are_named_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.safetensors",
        **{
            "model.backbone.stem.conv.weight": None,
            "model.au_head.layers.2.bias": np.zeros(3, np.float32),
            "model.stranger": np.zeros(1, np.float32),
            "model.au_head.layers.1.bias": np.full(128, np.nan, np.float32),
            "model.au_head.layers.0.bias": np.zeros(256, np.float64),
            "model.backbone.stem.norm.running_var": np.full(8, -1, np.float32),
        },
    )
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    for part in ("missing", "shape (3,)", "unknown", "NaN", "float64", "negative variance"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("keep", [0, 5, 8, 200, 40_000, -1])
def test_truncated_files_are_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_checkpoint(path)


def test_a_declared_header_size_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="cut short"):
        read_metadata(path)


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not written by this package"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("version", 2),
        ("crop", "tight"),
        ("color_order", "BGR"),
        ("au_names", ["AU01_r"]),
        ("kind", "emotion"),
        ("model", {"width_mult": "wide"}),
        ("model", None),
    ],
)
def test_metadata_of_another_convention_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "a.safetensors"
    metadata = describe(CONFIG) | {key: value}
    save_file({"x": np.zeros(1)}, path, metadata={"mlx-faceau": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_checkpoint(path)


PDM = {"name": "open", "hash": "1"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": "faces.h5"}, "'data' of the metadata is not a JSON object"),
        ({"data": {"files": 5}}, "'files' of 'data' of the metadata is not a list"),
        ({"data": {"files": [5]}}, "an entry of 'files' of 'data' of the metadata is not a string"),
        ({"data": {"faces": True}}, "'faces' of 'data' of the metadata is not a whole number"),
        ({"data": {"labellers": [{"pdm": PDM}]}}, "'labellers' of .* has no 'labeller'"),
        ({"pdm": {"name": "open"}}, "'pdm' of the metadata has no 'hash'"),
        ({"training": [1]}, "'training' of the metadata is not a JSON object"),
        ({"init": {"init": {"data": 3}}}, "'data' of 'init' of 'init' of .* is not a JSON"),
        ({"progress": {"epoch": 1, "batch": "2"}}, "'batch' of 'progress' .* not a whole number"),
        ({"presence_thresholds": {"AU12": "1"}}, "'AU12' of 'presence_thresholds' .* not a number"),
        ({"nets": {"au_prediction": [1]}}, "'au_prediction' of 'nets' .* not a JSON object"),
    ],
)
def test_metadata_of_another_form_are_refused_where_they_are_read(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {**describe(CONFIG), **more}
    save_file({"x": np.zeros(1)}, path, metadata={"mlx-faceau": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match=words):
        read_metadata(path)
    with pytest.raises(CheckpointError, match=words):
        parse_metadata(json.dumps(metadata), "net.onnx")


def test_metadata_may_be_null_where_nothing_is_recorded(tmp_path: Path) -> None:
    names = ("data", "pdm", "init", "training", "au_weights", "progress", "target_statistics")
    unknown = [{"labeller": "a", "licence": None, "pdm": None}, {"labeller": "b", "pdm": {}}]
    earlier = {"data": {"labellers": unknown}}
    metadata = {**describe(CONFIG, **dict.fromkeys(names)), "init": {**earlier, "init": None}}
    save_checkpoint(tmp_path / "a.safetensors", {"x": np.zeros(1)}, metadata)
    assert read_metadata(tmp_path / "a.safetensors") == metadata


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = initial_weights(LandmarkPoseConfig(width_mult=0.25), seed=0)
    arrays = {f"model.{name}": array for name, array in weights.items()}
    save_checkpoint(path, arrays, describe(LandmarkPoseConfig(width_mult=0.5)))
    with pytest.raises(CheckpointError, match="expected"):
        load_checkpoint(path)


def test_missing_paths_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint_best\.safetensors"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "nothing.safetensors")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_clearing_leaves_the_unfinished_files_of_similar_names(tmp_path: Path) -> None:
    long = "recordings_of_a_long_study_2024-01-15_camera"
    names = ["a.h5", "a.h5.h5", f"{long}_left.h5", f"{long}_right.h5"]
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(atomic_file(tmp_path / name)) for name in names}
        for name, own in opened.items():
            clear_unfinished(tmp_path / name)
            assert [opened[n] for n in names if not opened[n].exists()] == [own]
            own.touch()


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_written_files_have_the_usual_mode(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = write(tmp_path / "a.safetensors")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_and_what_it_leads_to_changes(tmp_path):
    real, link = tmp_path / "disk" / "a.csv", tmp_path / "a.csv"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    with atomic_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert [path.name for path in real.parent.iterdir()] == ["a.csv"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="is not a regular file"), atomic_file(tmp_path / name):
            pass
    assert (tmp_path / "pipe").is_fifo()
