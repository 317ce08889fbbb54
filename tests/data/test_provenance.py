"""Who labelled a file, from the reports that its making left in it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("h5py")

import h5py
from training_files import arrays, write

from mlx_faceau.data.provenance import GENERATION, labellers


def report(labeller: str, licence: str, kept: int) -> dict[str, object]:
    return {"video": "a.mp4", "labeller": labeller, "licence": licence, "kept": kept}


def test_each_labeller_that_labelled_something_is_named_once(tmp_path: Path) -> None:
    path = write(tmp_path / "faces.h5", arrays())
    reports = [
        report("openface", "research only", 4),
        report("openface", "research only", 2),
        report("a function", "", 1),
        report("pyfaceau", "CC BY-NC", 0),
        report("", "", 0),
    ]
    with h5py.File(path, "r+") as file:
        file.create_dataset(GENERATION, data=json.dumps(reports), dtype=h5py.string_dtype())
    assert labellers(path) == [
        {"labeller": "a function", "licence": ""},
        {"labeller": "openface", "licence": "research only"},
    ]


def test_a_file_that_records_nothing_has_no_labellers(tmp_path: Path) -> None:
    assert labellers(write(tmp_path / "faces.h5", arrays())) == []
