"""Training files that lead elsewhere, or claim more than they hold."""

from collections.abc import Callable
from pathlib import Path

import pytest

h5py = pytest.importorskip("h5py")

# ruff: noqa: E402
from hostile_data import hdf5_files, read_shard

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import DatasetError


def changed_hdf5(path: Path, change: Callable[[object], None]) -> Path:

    path.write_bytes(hdf5_files()[2])
    with h5py.File(path, "a") as file:
        change(file)
    return path


def link_outside(file) -> None:

    del file["landmarks"]
    file["landmarks"] = h5py.ExternalLink("other.h5", "/landmarks")


def keep_outside(file) -> None:
    del file["landmarks"]
    raw = [(str(Path(file.filename).with_name("raw.bin")), 0, 3 * 136 * 4)]
    file.create_dataset("landmarks", (3, 68, 2), "f4", external=raw)


def map_outside(file) -> None:

    del file["landmarks"]
    layout = h5py.VirtualLayout((3, 68, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "landmarks", (3, 68, 2))
    file.create_virtual_dataset("landmarks", layout)


@pytest.mark.parametrize("change", [link_outside, keep_outside, map_outside])
def test_a_training_file_leads_to_no_other(change: Callable, tmp_path: Path) -> None:
    changed_hdf5(tmp_path / "other.h5", lambda file: None)
    (tmp_path / "raw.bin").write_bytes(bytes(3 * 136 * 4))
    path = changed_hdf5(tmp_path / "faces.h5", change)
    with pytest.raises(DatasetError, match="'landmarks' lies in another file"):
        FaceDataset(path)


def claim_rows(file) -> None:
    shape = (10**9, 112, 112, 3)
    del file["images"]
    file.create_dataset("images", shape, "u1", chunks=(1, 112, 112, 3))


def claim_chunk(file) -> None:
    del file["images"]
    face = (112, 112, 3)
    chunk = (50_000, *face)
    file.create_dataset("images", (3, *face), "u1", chunks=chunk, maxshape=(None, *face))


def claim_text(file) -> None:
    del file["metadata/video_names"]
    file.create_dataset("metadata/video_names", (3,), "S1000000000", chunks=(1,))


@pytest.mark.parametrize("change", [claim_rows, claim_chunk, claim_text])
def test_sizes_are_checked_before_memory_is_taken(change: Callable, tmp_path: Path) -> None:
    path = changed_hdf5(tmp_path / "faces.h5", change)
    with pytest.raises(DatasetError, match=r"claims \d+ bytes"):
        FaceDataset(path)


def other_shape(file) -> None:
    file["metadata/frame_indices"] = [[1, 2], [3, 4]]


def not_a_number(file) -> None:
    file["metadata/frame_indices"] = ["one", "two"]


@pytest.mark.parametrize("change", [other_shape, not_a_number])
def test_columns_that_no_training_reads_are_checked_before_they_are_copied(
    change: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "faces.h5"
    path.write_bytes(hdf5_files()[1])
    with h5py.File(path, "a") as file:
        change(file)
    FaceDataset(path)
    with pytest.raises(DatasetError, match=r"shard.*000\.h5: (.*'metadata/frame_indices'|damaged)"):
        read_shard(tmp_path / "shard", path.read_bytes())
