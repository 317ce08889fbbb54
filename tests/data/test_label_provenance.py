"""Who labelled a file, from the reports that its making left in it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("h5py")

import h5py
import numpy as np
from training_files import arrays, write

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import GENERATION, labellers
from mlx_faceau.data.format.merge import merge_files, write_subset
from mlx_faceau.data.format.writer import TrainingDataWriter


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


def test_who_labelled_is_passed_on_by_merging_dividing_rewriting_and_appending(
    tmp_path: Path,
) -> None:
    data = arrays(20)
    path = write(tmp_path / "faces.h5", data)
    plain = write(tmp_path / "plain.h5", arrays(20, seed=1))
    openface = {**report("openface", "research only", 4), "video": "video0"}
    pyfaceau = {**report("pyfaceau", "CC BY-NC", 16), "video": "video3"}
    with h5py.File(path, "r+") as file:
        text = json.dumps([openface, pyfaceau])
        file.create_dataset(GENERATION, data=text, dtype=h5py.string_dtype())
    both = labellers(path)
    merge_files([plain, path], tmp_path / "merged.h5", mixed_labels=True)
    main(["data", "convert", str(path), "--output", str(tmp_path / "converted.h5")])
    dataset = FaceDataset(path)
    write_subset(tmp_path / "part.h5", dataset, np.flatnonzero(dataset.videos == "video3"))
    dataset.close()
    first = {name: data[name][:1] for name in (*FaceDataset(path).labels, "images", "bboxes")}
    with TrainingDataWriter(path) as writer:
        writer.add_batch(**first, video_names=["by hand"], frame_indices=[0])
    assert [labellers(tmp_path / f"{name}.h5") for name in ("merged", "converted", "faces")] == [
        both,
        both,
        both,
    ]
    assert labellers(tmp_path / "part.h5") == [{"labeller": "pyfaceau", "licence": "CC BY-NC"}]


def test_a_file_that_records_nothing_has_no_labellers(tmp_path: Path) -> None:
    assert labellers(write(tmp_path / "faces.h5", arrays())) == []


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"a": 1}',
        '[{"video": "x"}]',
        '[{"video": "", "kept": 1, "labeller": "", "pdm": 5}]',
        '[{"video": "", "kept": 1, "labeller": "x", "pdm": {"name": "open"}}]',
    ],
)
def test_malformed_reports_are_one_line_and_status_2(tmp_path, capsys, text) -> None:
    path = write(tmp_path / "faces.h5", arrays())
    with h5py.File(path, "r+") as file:
        file.create_dataset(GENERATION, data=text, dtype=h5py.string_dtype())
    assert main(["data", "merge", str(path), "--output", str(tmp_path / "merged.h5")]) == 2
    assert main(["data", "generate", str(path), "--output", str(path)]) == 2
    wrong = f"{path}: 'metadata/generation' is not a list of reports; write the file again"
    assert capsys.readouterr().err.splitlines() == [f"mlx-faceau: {wrong}"] * 2
