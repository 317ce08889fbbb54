"""Photographs into one file: names, people, misses with reasons, and a run that is killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame
from labelled_videos import film, moving_face, write_csv

from mlx_faceau.cli.main import main
from mlx_faceau.core.artifact_metadata import check_form
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import check_same_labels, labellers
from mlx_faceau.data.format.merge import merge_files
from mlx_faceau.data.labels.generate_files import GeneratorSettings, InputFile, generate_file
from mlx_faceau.data.labels.quality import Limits
from mlx_faceau.errors import DatasetError
from mlx_faceau.output.openface_csv import GROUPS
from mlx_faceau.train.config import LandmarkPoseTrainConfig
from mlx_faceau.train.datasets import open_data

LABELS = "callable:labelled_videos:label"


def photograph(folder: Path, name: str, *people: int, half: float = 40.0) -> Path:
    blobs = [Blob(70 + 100 * place, 110, half, who) for place, who in enumerate(people)]
    cv2.imwrite(str(folder / name), draw_frame(blobs))
    return folder / name


def generate(*arguments: object) -> int:
    return main(["data", "generate", *map(str, arguments)])


def test_a_folder_gives_a_file_with_all_names_and_a_list_of_misses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    photograph(folder, "anna.jpg", 0)
    photograph(folder, "both.png", 0, 1)
    photograph(folder, "nobody.jpg")
    photograph(folder, "tiny.png", 2, half=9)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.csv").write_text("not looked at")
    (tmp_path / "who.csv").write_text("anna.jpg,Anna\nboth,Anna and Bo\n")
    output = tmp_path / "faces.h5"
    arguments = [folder, "--labels", LABELS, "--output", output, "--subjects", tmp_path / "who.csv"]
    assert generate(*arguments, "--workers", 0) == 1
    out, err = capsys.readouterr()
    dataset = FaceDataset(output)
    assert dataset.videos.tolist() == ["anna.jpg", "both.png", "both.png"]
    assert dataset.subjects.tolist() == ["Anna", "Anna and Bo", "Anna and Bo"]
    trained = {"data": {"labellers": labellers(output)}}  # as a checkpoint says; no PDM is known
    assert trained["data"]["labellers"][0]["pdm"] == {}
    assert check_form(trained, output) == trained
    with (tmp_path / "faces.misses.csv").open() as file:
        misses = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert misses == {
        "broken.jpg": "not a readable image",
        "nobody.jpg": "no face found",
        "tiny.png": "1 dropped (min_size)",
    }
    assert "5 photographs: 3 samples, 3 photographs without one" in out
    assert "anna.jpg" not in out
    assert "3 samples of 4 photographs" in out
    assert "1 of 5 photographs could not be used" in err
    # Once more, with the broken one replaced and one more: the others are not read again.
    photograph(folder, "broken.jpg", 3)
    photograph(folder, "zoe.jpg", 1)
    (folder / "anna.jpg").write_bytes(b"gone")
    assert generate(*arguments) == 0
    assert set(FaceDataset(output).videos) == {"anna.jpg", "both.png", "broken.jpg", "zoe.jpg"}
    assert len(FaceDataset(output)) == 5


def test_labels_from_csv_files_leave_a_folders_pictures_alone(tmp_path: Path) -> None:
    faces = moving_face(3)
    film(tmp_path / "a.mp4", faces)
    write_csv(tmp_path / "a.csv", faces)
    photograph(tmp_path, "thumbnail.png", 0)
    assert generate(tmp_path, "--output", tmp_path / "out.h5") == 0
    assert set(FaceDataset(tmp_path / "out.h5").videos) == {"a.mp4"}


def test_a_photograph_that_kills_its_process_is_lost_alone(tmp_path: Path) -> None:
    inputs = [
        InputFile(photograph(tmp_path, f"{i}.png", 4 if i == 2 else i % 3), f"{i}")
        for i in range(5)
    ]
    settings = GeneratorSettings("callable:labelled_videos:label_or_crash")
    reports = generate_file(inputs, settings, tmp_path / "out.h5", workers=2)
    assert [report.kept for report in reports] == [1, 1, 0, 1, 1]
    assert "crashed" in reports[2].error
    assert FaceDataset(tmp_path / "out.h5").videos.tolist() == ["0", "1", "3", "4"]


COUNTING = """
import time
from labelled_videos import label

def counted(image):
    with open("labelled.txt", "a") as file:
        file.write("x")
    time.sleep(0.003)
    return label(image)
"""


def test_a_killed_run_goes_on_with_what_it_had_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 while it labels: at most the work in progress is done again, nothing is lost."""
    count, part = 150, 64
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(count):
        photograph(folder, f"{number:03}.png", number % 3)
    (tmp_path / "counting.py").write_text(COUNTING)
    labelled = tmp_path / "labelled.txt"
    places = [tmp_path, Path(__file__).parent, Path(__file__).parents[1]]
    arguments = ["photographs", "--workers", "0", "--labels", "callable:counting:counted"]
    arguments += ["--output", "faces.h5"]
    command = [sys.executable, "-m", "mlx_faceau", "data", "generate", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as run:
        deadline = time.monotonic() + 240
        while not labelled.exists() or labelled.stat().st_size < part + 10:
            assert run.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
    before = labelled.stat().st_size
    assert before < count
    assert not (tmp_path / "faces.h5").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert generate(*arguments) == 0
    assert labelled.stat().st_size == before + count - part  # the finished part was not done again
    assert FaceDataset(tmp_path / "faces.h5").videos.tolist() == [
        f"{number:03}.png" for number in range(count)
    ]
    assert not (tmp_path / "faces.h5.shards").exists()


def labelled_file(folder: Path, name: str, labels: str = "openface-csv") -> Path:
    faces = moving_face(4, person=len(name), half=36.0 + 4 * len(name))
    film(folder / f"{name}.mp4", faces)
    if labels == "openface-csv":
        write_csv(folder / f"{name}.csv", faces)
    job = InputFile(folder / f"{name}.mp4", name)
    generate_file(
        [job],
        GeneratorSettings(labels, limits=Limits(min_change=0)),
        folder / f"{name}.h5",
        workers=0,
    )
    return folder / f"{name}.h5"


def test_files_of_other_labellers_are_merged_only_if_told(tmp_path: Path) -> None:
    one, other = labelled_file(tmp_path, "a"), labelled_file(tmp_path, "bb", LABELS)
    with pytest.raises(
        DatasetError, match=r"a\.h5 is labelled by openface-csv, .*bb\.h5 by callable"
    ):
        merge_files([one, other], tmp_path / "both.h5")
    assert not (tmp_path / "both.h5").exists()
    assert main(["data", "merge", str(one), str(other), "--output", str(tmp_path / "both.h5")]) == 2
    merge = ["data", "merge", str(one), str(other), "--mixed-labels"]
    assert main([*merge, "--output", str(tmp_path / "both.h5")]) == 0
    assert [entry["labeller"] for entry in labellers(tmp_path / "both.h5")] == [
        "callable",
        "openface-csv",
    ]


def test_a_training_on_files_of_other_labellers_is_refused_unless_told(tmp_path: Path) -> None:
    files = [str(labelled_file(tmp_path, name)) for name in ("a", "bb")]
    other = str(labelled_file(tmp_path, "ccc", LABELS))
    options = {"batch_size": 2, "val_split": 0.4, "output": str(tmp_path / "run")}
    open_data(LandmarkPoseTrainConfig(data=tuple(files), **options))
    with pytest.raises(DatasetError, match=r"labelled by openface-csv, .*ccc\.h5 by callable"):
        open_data(LandmarkPoseTrainConfig(data=(files[0], other), **options))
    with pytest.raises(DatasetError, match="--mixed-labels"):
        open_data(LandmarkPoseTrainConfig(data=(files[0],), val_data=(other,), **options))
    faces = open_data(LandmarkPoseTrainConfig(data=(files[0], other), mixed_labels=True, **options))
    assert len(faces.dataset) == 8


def test_a_run_does_not_mix_labellers(tmp_path: Path) -> None:
    output = labelled_file(tmp_path, "a")
    film(tmp_path / "bb.mp4", moving_face(4, person=2))
    with pytest.raises(DatasetError, match="choose a labeller with --labels"):
        generate_file(
            [InputFile(tmp_path / "bb.mp4", "bb")], GeneratorSettings(LABELS), output, workers=0
        )
    assert FaceDataset(output).videos.tolist() == ["a"] * 4


def test_what_is_not_recorded_agrees_with_everything() -> None:
    known = {"labeller": "mediapipe", "licence": "", "pdm": {"name": "open", "hash": "1"}}
    older = {"labeller": "mediapipe", "licence": ""}
    other = {**known, "pdm": {"name": "given", "hash": "2"}}
    check_same_labels({"a": [known], "b": [], "c": [older]}, "")
    with pytest.raises(DatasetError, match=r"a and d have parameters of different PDMs.*mend it"):
        check_same_labels({"a": [known], "c": [older], "d": [other]}, "mend it")


def test_measures_of_a_photograph_are_stored(tmp_path: Path) -> None:
    import h5py

    job = InputFile(photograph(tmp_path, "a.png", 0), "a.png")
    (report,) = generate_file([job], GeneratorSettings(LABELS), tmp_path / "out.h5", workers=0)
    assert (report.frames, report.kept, report.damaged) == (1, 1, 0)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["metadata/frame_indices"][:].tolist() == [0]
        size = file["metadata/measures/face_size"][0]
        assert size == pytest.approx(1.4 * 80, rel=0.03)  # of a disc of 80 px
        assert np.isfinite(file["metadata/quality_scores"][0])


def test_photographs_take_labels_from_a_csv_of_one_frame_beside_each(tmp_path: Path) -> None:
    picture = photograph(tmp_path, "anna.jpg", 0)
    landmarks = np.random.default_rng(0).uniform((35, 75), (105, 145), (68, 2)).round(3)
    values = [1, 0.0, *landmarks.T.ravel(), 1.2, 0.1, 0.2, 0.3, 70, 110, *range(34), *[2.5] * 17]
    columns = [*GROUPS["2d"], *GROUPS["params"], *AU_NAMES]
    header = ",".join(["frame", "timestamp", *columns])
    (tmp_path / "anna.csv").write_text(f"{header}\n{','.join(map(str, values))}\n")
    output = tmp_path / "faces.h5"
    assert generate(picture, "--labels", "openface-csv", "--output", output) == 0
    dataset = FaceDataset(output)
    assert dataset.videos.tolist() == ["anna.jpg"]
    np.testing.assert_array_equal(dataset.labels["au_intensities"], np.full((1, 17), 2.5))
    np.testing.assert_array_equal(dataset.labels["local_params"][0], np.arange(34))
