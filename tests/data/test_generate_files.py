"""Many videos into one file: nothing ends the batch, and a second run goes on."""

import csv
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import h5py
import labelled_videos
import numpy as np
import pytest
from blobs import Blob
from labelled_videos import film, moving_face, write_csv

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import video_reports
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.data.labels import generate_files
from mlx_faceau.data.labels.generate import TrainingDataGenerator
from mlx_faceau.data.labels.generate_files import (
    GeneratorSettings,
    InputFile,
    Shard,
    generate_file,
)
from mlx_faceau.data.labels.quality import Limits
from mlx_faceau.errors import BackendError, DatasetError

KEEP_ALIKE = Limits(min_change=0)


def generate(*arguments: object) -> int:
    options = ["--limit", "min_change=0"]
    return main(["data", "generate", *map(str, arguments), *options])


def good_video(folder, name, frames, person=0):
    faces = moving_face(frames, person)
    write_csv(folder / f"{name}.csv", faces)
    return film(folder / f"{name}.mp4", faces)


def test_hostile_videos_are_reported_and_the_others_are_used(tmp_path, capsys):
    good_video(tmp_path, "a", 5)
    good_video(tmp_path, "z", 7, person=1)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mov").write_text("no video")
    film(tmp_path / "unlabelled.mp4", moving_face(2))
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / "who.csv").write_text("a,Anna\nz.mp4, Zoë\n")
    output, table = tmp_path / "out.h5", tmp_path / "report.csv"
    options = ["--labels", "openface-csv", "--subjects", tmp_path / "who.csv"]
    arguments = [tmp_path, "--output", output, "--workers", 2, "--report", table, *options]
    assert generate(*arguments) == 1
    out, err = capsys.readouterr()
    assert "12 samples of 2 videos" in out
    assert "3 of 5 videos could not be used" in err
    dataset = FaceDataset(output)
    assert dataset.videos.tolist() == ["a.mp4"] * 5 + ["z.mp4"] * 7
    assert dataset.subjects.tolist() == ["Anna"] * 5 + ["Zoë"] * 7
    own = list(TrainingDataGenerator(limits=KEEP_ALIKE).process_video(tmp_path / "z.mp4"))
    np.testing.assert_array_equal(dataset.read_images(range(5, 12)), [s["image"] for s in own])
    with h5py.File(output) as file:
        assert file["metadata/measures/sharpness"][5] == np.float32(own[0]["measures"]["sharpness"])
    with table.open() as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert rows["empty.mp4"]["error"] == "the file is empty"
    assert "no unlabelled.csv beside it" in rows["unlabelled.mp4"]["error"]
    assert rows["z.mp4"]["kept"] == "7"
    assert not (tmp_path / "out.h5.shards").exists()
    # Once more: what is in the file is not read again; a new video is added.
    good_video(tmp_path, "b", 3)
    (tmp_path / "a.mp4").write_text("gone")
    for name in ("empty.mp4", "text.mov", "unlabelled.mp4"):
        (tmp_path / name).unlink()
    assert generate(*arguments, "--workers", 0) == 0
    assert "15 samples of 3 videos" in capsys.readouterr().out
    assert set(FaceDataset(output).videos) == {"a.mp4", "b.mp4", "z.mp4"}


def test_recordings_of_one_name_are_told_apart_and_known_again(tmp_path, capsys):
    """Cameras call every recording alike; a later run gets them by other paths, or moved."""
    for person, name in enumerate(("anna", "ben", "cleo")):
        (tmp_path / name).mkdir()
        good_video(tmp_path / name, "video", 3 + person, person)
    anna, ben, cleo = (tmp_path / name / "video.mp4" for name in ("anna", "ben", "cleo"))
    output = ["--output", tmp_path / "out.h5", "--workers", 0]
    assert generate(anna, *output) == 0
    assert generate(ben, *output) == 0
    assert "video.mp4 (2): 4 samples" in capsys.readouterr().out
    (tmp_path / "anna").rename(tmp_path / "moved")
    assert generate(tmp_path / "moved" / "video.mp4", ben, *output) == 0
    assert generate(ben, cleo, *output) == 0
    videos = FaceDataset(tmp_path / "out.h5").videos.tolist()
    names = ["video.mp4", "video.mp4 (2)", cleo.as_posix()]
    assert videos == [names[0]] * 3 + [names[1]] * 4 + [names[2]] * 5
    assert str(tmp_path / "anna") not in str(video_reports(tmp_path / "out.h5"))


def test_the_advice_for_videos_without_labels_is_printed_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyfaceau", None)
    for name in ("a", "b", "c"):
        film(tmp_path / f"{name}.mp4", moving_face(2))
    output, table = tmp_path / "out.h5", tmp_path / "report.csv"
    assert generate(tmp_path, "--output", output, "--report", table, "--workers", 0) == 2
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("a.mp4: nothing labels it; four ways: ")
    assert others == ["b.mp4: nothing labels it", "c.mp4: nothing labels it"]
    with table.open() as file:
        assert all("four ways" in row["error"] for row in csv.DictReader(file))


def test_a_copy_of_a_video_is_named_in_the_closing_line(tmp_path, capsys):
    """Its samples are kept: splits put them on the side of the original's."""
    original = good_video(tmp_path, "a", 3)
    shutil.copy(original, tmp_path / "b.mp4")
    shutil.copy(tmp_path / "a.csv", tmp_path / "b.csv")
    good_video(tmp_path, "c", 3, person=1)
    assert generate(tmp_path, "--output", tmp_path / "out.h5", "--workers", 0) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "9 samples of 3 videos; copies that add no new face: b.mp4 = a.mp4" in line


def test_a_csv_of_another_video_is_a_failure_where_it_gives_no_sample(tmp_path, capsys, caplog):
    good_video(tmp_path, "a", 3)
    video = film(tmp_path / "b.mp4", moving_face(4))
    write_csv(tmp_path / "b.csv", moving_face(12))
    output = ["--output", tmp_path / "out.h5", "--workers", 0]
    problem = "b.csv: its rows are of 12 frames, but the video has 4"
    assert generate(tmp_path, *output, "--limit", "min_size=1000") == 2
    assert f"{problem}, and no sample came of it; it is of another video" in capsys.readouterr().out
    assert generate(video, *output) == 0
    assert f"{problem}; make sure that it is of this video" in caplog.text


@pytest.mark.parametrize(("rows", "warned"), [(303, False), (304, True), (297, False), (296, True)])
def test_a_csv_of_a_video_that_was_cut_afterwards_is_warned_of(tmp_path, caplog, rows, warned):
    """Its rows belong to other frames from the first on; decoders differ by a frame or two."""
    standing = [[Blob(110, 110, 40)]] * rows
    film(tmp_path / "a.mp4", standing[:1] * 300)
    write_csv(tmp_path / "a.csv", standing)
    assert generate(tmp_path, "--output", tmp_path / "out.h5", "--workers", 0) == 0
    problem = f"its rows are of {rows} frames, but the video has 300; make sure"
    assert (problem in caplog.text) == warned


def test_a_video_that_ended_early_counts_as_one_that_gave_samples(tmp_path, monkeypatch, capsys):
    def label(image: np.ndarray) -> list[dict]:
        calls.append(image)
        if len(calls) > 2:
            raise ValueError("tired")
        return labelled_videos.label(image)

    calls: list[np.ndarray] = []
    monkeypatch.setitem(sys.modules, "tiring", SimpleNamespace(label=label))
    film(tmp_path / "a.mp4", moving_face(4))
    options = ["--labels", "callable:tiring:label", "--workers", 0]
    assert generate(tmp_path, "--output", tmp_path / "out.h5", *options) == 1
    printed = capsys.readouterr()
    assert "out.h5: 2 samples of 1 video" in printed.out
    assert "1 of 1 video could not be used, or not to its end" in printed.err


def test_an_interrupted_run_keeps_the_finished_videos(tmp_path):
    inputs = [InputFile(good_video(tmp_path, name, 3), name) for name in ("a", "b", "c")]
    output, settings = tmp_path / "out.h5", GeneratorSettings("openface-csv", limits=KEEP_ALIKE)

    def interrupt(videos: int, frames: int) -> None:
        if videos == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_file(inputs, settings, output, workers=0, progress=interrupt)
    assert not output.exists()
    finished = sorted((tmp_path / "out.h5.shards").glob("[0-9a-f]*.h5"))
    assert len(finished) == 1
    (tmp_path / "a.csv").unlink()  # not needed any more
    reports = generate_file(inputs, settings, output, workers=0)
    assert [report.kept for report in reports] == [3, 3, 3]
    assert FaceDataset(output).videos.tolist() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def put_csv(path, faces):
    """A CSV that took its place after all others, however old its numbers are."""
    write_csv(path, faces)
    later = time.time() + 60
    os.utime(path, (later, later))


def test_a_resumed_run_reads_a_csv_anew_that_was_replaced_in_between(tmp_path):
    inputs = [InputFile(good_video(tmp_path, name, 3), name) for name in ("a", "b")]
    output, settings = tmp_path / "out.h5", GeneratorSettings(limits=KEEP_ALIKE)

    def interrupt(videos: int, frames: int) -> None:
        if videos == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_file(inputs, settings, output, workers=0, progress=interrupt)
    put_csv(tmp_path / "a.csv", moving_face(3, person=2))
    generate_file(inputs, settings, output, workers=0)
    first = FaceDataset(tmp_path / "out.h5").labels["local_params"][:, 0]
    assert first.tolist() == [1, 1, 1, -1, -1, -1]


def test_what_an_existing_file_holds_is_said_and_newer_labels_too(tmp_path, caplog):
    good_video(tmp_path, "a", 3)
    arguments = [tmp_path / "a.mp4", "--output", tmp_path / "out.h5", "--workers", 0]
    assert generate(*arguments) == 0
    assert caplog.messages == []
    put_csv(tmp_path / "a.csv", moving_face(3, person=2))
    assert generate(*arguments, "--frame-step", 2) == 0
    held, changed = caplog.messages
    assert "holds 1 of 1 file already, which are not labelled again" in held
    assert "labels of a.mp4 changed after it was written" in changed


def test_a_subject_that_an_existing_file_does_not_hold_is_refused(tmp_path, capsys):
    good_video(tmp_path, "a", 3)
    arguments = [tmp_path / "a.mp4", "--output", tmp_path / "out.h5", "--workers", 0]
    assert generate(*arguments) == 0
    table = tmp_path / "who.csv"
    table.write_text("a,Anna\n")
    assert generate(*arguments, "--subjects", table) == 2
    assert "holds a.mp4 under no subject, not Anna" in capsys.readouterr().err
    assert not (tmp_path / "out.h5.shards").exists()


def test_files_are_named_with_or_without_their_folders_in_the_table_of_subjects(tmp_path, capsys):
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        good_video(tmp_path / folder, "video", 2)
    good_video(tmp_path / "one", "alone", 2)
    table = tmp_path / "who.csv"
    table.write_text("one/video.mp4,Anna\n./two/video,Ben\none/alone,Cleo\n")
    arguments = [*(tmp_path / f for f in ("one", "two", "three")), "--output", tmp_path / "out.h5"]
    assert generate(*arguments, "--subjects", table, "--workers", 0) == 0
    subjects = FaceDataset(tmp_path / "out.h5").subjects
    assert subjects.tolist() == [*["Cleo"] * 2, *["Anna"] * 2, *["Ben"] * 2, "", ""]
    message = "no subject of 1 of 4 files"
    assert message in capsys.readouterr().err
    table.write_text("video.mp4,Anna\nvideo.mp4,Ben\n")
    assert generate(*arguments, "--subjects", table) == 2
    assert "line 2: video.mp4 is Ben, and Anna above" in capsys.readouterr().err


def test_hog_features_that_one_video_lacks_are_left_out_and_said(tmp_path, caplog):
    for name in ("a", "b"):
        good_video(tmp_path, name, 2)
    head = np.array([12, 12, 31], "i4").tobytes() + np.float32(1).tobytes()
    (tmp_path / "a.hog").write_bytes(2 * (head + np.zeros(4464, "f4").tobytes()))
    inputs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert generate(*inputs[:1], "--output", tmp_path / "out.h5", "--workers", 0) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["hog_features"].shape == (2, 4464)
    assert generate(*inputs, "--output", tmp_path / "out.h5", "--workers", 0) == 0
    assert "hog_features left out: 1 of 2 sources lack them" in caplog.text


def test_a_merged_file_knows_both_recordings_of_one_name(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for person, folder in enumerate(folders):
        folder.mkdir()
        good_video(folder, "video", 3 + person, person)
        assert generate(folder, "--output", folder / "own.h5", "--workers", 0) == 0
    merged = tmp_path / "merged.h5"
    parts = [str(folder / "own.h5") for folder in folders]
    assert main(["data", "merge", *parts, "--output", str(merged)]) == 0
    assert generate(*folders, "--output", merged, "--workers", 0) == 0
    assert FaceDataset(merged).videos.tolist() == ["video.mp4"] * 7
    third = tmp_path / "three"
    third.mkdir()
    good_video(third, "video", 2, 2)
    assert generate(*folders, third, "--output", merged, "--workers", 0) == 0
    reports = [(report["video"].split("/")[-1], report["kept"]) for report in video_reports(merged)]
    assert reports == [("video.mp4", 3), ("video.mp4", 4), ("video.mp4", 2)]


def test_reports_come_in_the_order_of_the_inputs_however_they_finish(tmp_path, monkeypatch):
    def backwards(shards, settings, workers, progress):
        for shard in reversed(shards):
            yield shard, generate_files.make_shard(shard, settings, lambda: None)

    monkeypatch.setattr(generate_files, "_process_in_pool", backwards)
    output, settings = tmp_path / "out.h5", GeneratorSettings("openface-csv", limits=KEEP_ALIKE)
    names = ["k", "a", "z", "c"]
    for count in (2, 4):  # the second run adds inputs before and after
        inputs = [InputFile(good_video(tmp_path, name, 3), name) for name in names[-count:]]
        generate_file(inputs, settings, output)
    written = ["z", "c", "k", "a"]
    assert [report["video"] for report in video_reports(output)] == written
    assert list(dict.fromkeys(FaceDataset(output).videos.tolist())) == written


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_workers_end_when_the_run_is_killed(tmp_path):
    good_video(tmp_path, "a", 2)
    (tmp_path / "waiting.py").write_text(WAITING)
    places = [tmp_path, Path(__file__).parents[2]]
    command = [sys.executable, "-m", "mlx_faceau", "data", "generate", "a.mp4", "--output"]
    command += ["faces.h5", "--labels", "callable:waiting:label"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    assert run.stdout.readline() == b"labelling\n"
    run.kill()
    run.communicate(timeout=60)  # returns once the worker, which holds the pipe too, is gone


WAITING = """
import time

def label(image):
    print("labelling", flush=True)
    time.sleep(90)
"""


def test_a_full_disk_is_no_fault_of_the_video_which_is_tried_again(tmp_path, monkeypatch):
    inputs = [InputFile(good_video(tmp_path, "a", 4), "a")]
    settings = GeneratorSettings(limits=KEEP_ALIKE)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlx_faceau.core.atomic_io.os.fsync", refuse)
        with pytest.raises(DatasetError, match="No space left"):
            generate_file(inputs, settings, tmp_path / "out.h5", workers=0)
    (report,) = generate_file(inputs, settings, tmp_path / "out.h5", workers=0)
    assert (report.kept, report.error) == (4, "")


def test_a_missing_input_and_refused_samples_are_reported(tmp_path):
    good = good_video(tmp_path, "a", 5)
    inputs = [
        InputFile(good, "a"),
        InputFile(tmp_path / "absent.mp4", "absent"),
        InputFile(good_video(tmp_path, "b", 3), "nul\0"),
    ]
    settings = GeneratorSettings("openface-csv", limits=KEEP_ALIKE)
    a, absent, refused = generate_file(inputs, settings, tmp_path / "out.h5", workers=0)
    assert (a.kept, a.error) == (5, "")
    assert absent.error
    assert "video_name" in refused.error
    assert FaceDataset(tmp_path / "out.h5").videos.tolist() == ["a"] * 5


def test_a_second_run_on_the_same_file_is_refused(tmp_path):
    inputs = [InputFile(good_video(tmp_path, "a", 5), "a")]
    settings = GeneratorSettings("openface-csv", limits=KEEP_ALIKE)
    output = tmp_path / "out.h5"

    def second(files: int, frames: int) -> None:
        with pytest.raises(DatasetError, match="another program is writing it"):
            generate_file(inputs, settings, output, workers=0)
        with pytest.raises(DatasetError, match="another writer has it open"):
            TrainingDataWriter(output)

    (report,) = generate_file(inputs, settings, output, workers=0, progress=second)
    assert report.kept == 5
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.mp4", "out.h5"}


def test_other_settings_make_a_part_anew(tmp_path):
    inputs = [InputFile(good_video(tmp_path, name, 6), name) for name in ("a", "b")]

    def interrupt(videos: int, frames: int) -> None:
        if videos == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_file(
            inputs, GeneratorSettings(), tmp_path / "out.h5", workers=0, progress=interrupt
        )
    settings = GeneratorSettings(frame_step=3, limits=KEEP_ALIKE)
    reports = generate_file(inputs, settings, tmp_path / "out.h5", workers=0)
    assert [(report.frames, report.kept) for report in reports] == [(2, 2), (2, 2)]


def test_a_video_that_kills_its_process_is_lost_alone(tmp_path):
    """The purple face is one that the decoder, or the labeller, dies of."""
    for name, person in (("a", 0), ("b", 4), ("c", 1)):
        film(tmp_path / f"{name}.mp4", [[Blob(100 + i, 110, 40, person)] for i in range(3)])
    inputs = [InputFile(tmp_path / f"{name}.mp4", name) for name in "abc"]
    settings = GeneratorSettings("callable:labelled_videos:label_or_crash", limits=KEEP_ALIKE)
    a, b, c = generate_file(inputs, settings, tmp_path / "out.h5", workers=2)
    assert (a.kept, c.kept) == (3, 3)
    assert "crashed" in b.error
    assert set(FaceDataset(tmp_path / "out.h5").videos) == {"a", "c"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "nobody"], "labeller 'nobody'"),
        (["--frame-step", "0"], "every"),
        (["--workers", "-1"], "-1 workers"),
        (["--limit", "min_sise=3"], "min_size"),
        (["--limit", "min_size"], "NAME=VALUE"),
        (["--pdm", "absent.txt"], "absent.txt"),
        (["--labels", "pyfaceau"], "pyfaceau"),
    ],
)
def test_bad_options_are_one_line_before_anything_is_read(tmp_path, capsys, arguments, message):
    video = film(tmp_path / "a.mp4", moving_face(2))
    assert generate(video, "--output", tmp_path / "out.h5", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_no_samples_at_all_leave_no_file(tmp_path, capsys):
    film(tmp_path / "a.mp4", moving_face(2))
    assert generate(tmp_path, "--output", tmp_path / "out.h5", "--workers", 0) == 2
    assert "no video gave a sample" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_a_file_that_was_not_made_from_videos_is_not_added_to(tmp_path, capsys):
    video = good_video(tmp_path, "a", 2)
    output = str(tmp_path / "out.h5")
    assert main(["data", "synth", "--output", output, "--count", "4", "--people", "2"]) == 0
    assert generate(video, "--output", output) == 2
    assert "not made from videos" in capsys.readouterr().err


def test_a_report_replaces_reports_alone_and_says_so_before_the_work(tmp_path, capsys):
    video = good_video(tmp_path, "a", 2)
    labels, output = tmp_path / "a.csv", tmp_path / "out.h5"
    before = labels.read_bytes()
    for report in (labels, tmp_path / "none" / "report.csv"):
        assert generate(video, "--output", output, "--report", report) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert labels.read_bytes() == before
    assert not output.exists()
    for _ in range(2):
        assert generate(video, "--output", output, "--report", tmp_path / "r.csv") == 0


def test_labels_of_another_labeller_are_not_added(tmp_path, capsys):
    output = tmp_path / "out.h5"
    assert generate(good_video(tmp_path, "a", 2), "--output", output) == 0
    before = output.read_bytes()
    options = ["--output", output, "--labels", "callable:labelled_videos:label", "--workers", 0]
    assert generate(good_video(tmp_path, "b", 2), *options) == 2
    err = capsys.readouterr().err
    assert "a.mp4 is labelled by openface-csv, b.mp4 by callable" in err
    assert output.read_bytes() == before


def test_the_limits_explain_themselves(capsys):
    assert main(["data", "generate", "x", "--output", "y", "--limit", "help"]) == 0
    assert "minimum confidence of the labeller" in capsys.readouterr().out


def test_pyfaceau_that_is_missing_says_how_to_get_it_and_its_licence():
    with pytest.raises(BackendError, match="pyfaceau-download-models yourself"):
        TrainingDataGenerator("pyfaceau")


def test_a_process_that_dies_between_two_videos_is_replaced(tmp_path, monkeypatch):
    class Dying:
        """A pool whose process dies after its first shard."""

        def __init__(self, *_):
            self.dead = False

        def submit(self, *_):
            if self.dead:
                raise BrokenProcessPool("a child process terminated abruptly")
            self.dead, done = True, Future()
            done.set_result([])
            return done

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(generate_files, "ProcessPoolExecutor", Dying)
    settings, files = GeneratorSettings(), [InputFile(tmp_path / name, name) for name in "abc"]
    shards = [Shard.of(tmp_path, [file], settings) for file in files]
    found = generate_files._process_in_pool(shards, settings, 1, lambda *_: None)
    assert [shard for shard, _ in found] == shards


def test_a_report_that_is_the_training_file_too_is_refused(tmp_path, capsys):
    good_video(tmp_path, "a", 3)
    output = tmp_path / "out.csv"
    assert generate(tmp_path, "--output", output, "--report", output, "--workers", 0) == 2
    assert f"--report {output}: is --output too" in capsys.readouterr().err
    assert not output.exists()


def test_what_a_killed_run_left_of_the_file_is_removed(tmp_path):
    good_video(tmp_path, "a", 3)
    output, left = tmp_path / "out.h5", tmp_path / ".out.h5.ab_c12x3.h5"
    other = tmp_path / ".out.h5.swp"
    for path in (left, other):
        path.touch()
    assert generate(tmp_path, "--output", output, "--workers", 0) == 0
    assert (left.exists(), other.exists()) == (False, True)
    left.touch()
    TrainingDataWriter(output).close()
    assert not left.exists()
