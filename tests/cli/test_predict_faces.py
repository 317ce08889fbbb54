"""predict on pictures, videos and folders, through the command line's own entry."""

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import Blob, BlobAUs, BlobLandmarks, boxes_of, draw_frame, write_video

from mlx_faceau.cli import inputs, predict_faces
from mlx_faceau.cli.inputs import Input, find_inputs, shard
from mlx_faceau.cli.main import main
from mlx_faceau.errors import UsageError
from mlx_faceau.inference import predictor
from mlx_faceau.output.openface_csv import read_openface_csv
from mlx_faceau.output.result_files import OutputFiles
from mlx_faceau.output.row_file import RowFile, is_complete, marker_of
from mlx_faceau.video import reader
from mlx_faceau.video.reader import Span, Webcam
from mlx_faceau.video.results import Frame, FrameResult, ResultStream

MODELS = ["--landmark-model", "lm", "--au-model", "au", "--detector", "drawn:find"]


@pytest.fixture(autouse=True)
def _drawn_people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find(image: Any) -> list[Any]:
        return [(*box, 0.9) for box in boxes_of(image)]

    monkeypatch.setitem(sys.modules, "drawn", SimpleNamespace(find=find))
    monkeypatch.setattr(predictor, "load_predictor", lambda path, **_: BlobLandmarks())
    monkeypatch.setattr(predictor, "load_au_predictor", lambda path, **_: BlobAUs())
    monkeypatch.chdir(tmp_path)


def clip(path: Path, frames: int = 12) -> Path:
    return write_video(path, [draw_frame([Blob(60 + 3 * i, 80, 30)]) for i in range(frames)])


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), *MODELS])


def frames_in(path: Path) -> int:
    return len(set(read_openface_csv(path)["frame"]))


def test_a_video_becomes_a_csv_overlay_and_report_in_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    video = clip(tmp_path / "in" / "clip.mp4")
    assert predict(video, "--overlay", "--report", "--smooth", "--subtract-neutral") == 0
    assert frames_in(tmp_path / "clip.csv") == 12
    assert (tmp_path / "clip.overlay.mp4").is_file()
    assert "<svg" in (tmp_path / "clip.report.html").read_text()
    files = "clip.csv, clip.report.html, clip.run.json, clip.overlay.mp4"
    line = f"clip.mp4: 12 frames -> {files} (detector callable)\n"
    assert capsys.readouterr().out == line
    record = json.loads((tmp_path / "clip.run.json").read_text())
    settings = {"detector": "drawn:find", "smooth": True, "subtract_neutral": True}
    assert (record["source"], record["settings"]) == ("clip.mp4", settings)


@pytest.mark.parametrize(
    ("more", "threshold"), [([], 0.25), (["--presence-threshold", "4"], 4.0)], ids=["own", "given"]
)
def test_presence_follows_the_net_s_thresholds_unless_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], threshold: float
) -> None:
    class Described(BlobAUs):
        def describe(self) -> dict[str, Any]:
            metadata = {"presence_thresholds": {"AU01": 0.25}}
            model = {"name": "blobs", "hash": "00"}
            return {"backend": "onnx", "path": "", "metadata": metadata, "model": model}

        def predict_batch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
            return {"au_intensities": np.full((len(crops), 17), 0.5)}

    monkeypatch.setattr(predictor, "load_au_predictor", lambda path, **_: Described())
    assert predict(clip(tmp_path / "clip.mp4", 2), *more) == 0
    columns = read_openface_csv(tmp_path / "clip.csv")
    assert columns["AU01_c"].tolist() == [float(threshold <= 0.5)] * 2
    assert columns["AU02_c"].tolist() == [0.0, 0.0]
    stated = json.loads((tmp_path / "clip.run.json").read_text())["presence_thresholds"]
    assert (stated["AU01_c"], stated["AU45_c"]) == (threshold, max(1.0, threshold))


def test_an_image_gives_a_line_a_face_and_a_drawn_image(tmp_path: Path) -> None:
    people = draw_frame([Blob(70, 80, 30, 0), Blob(220, 100, 40, 1)])
    cv2.imwrite(str(tmp_path / "people.png"), people)
    assert predict("people.png", "--overlay", "--output", "out/p.csv") == 2
    (tmp_path / "out").mkdir()
    assert predict("people.png", "--overlay", "--output", "out/p.csv") == 0
    columns = read_openface_csv(tmp_path / "out" / "p.csv")
    assert columns["face_id"].tolist() == [0, 1]
    assert cv2.imread(str(tmp_path / "out" / "p.overlay.png")).shape == people.shape


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "wedding"
    folder.mkdir()
    two = [Blob(70, 80, 30, 0), Blob(220, 100, 40, 1)]
    for name, blobs in (("a", two), ("b", []), ("d, e", two[:1])):
        cv2.imwrite(str(folder / f"{name}.png"), draw_frame(blobs))
    (folder / "c.png").write_bytes(b"no image")
    return folder


def test_a_folder_of_images_gives_one_table_with_a_row_a_face_and_a_contact_sheet(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("wedding", "--output", "out", "--report", "--overlay", "--smooth") == 1
    out = tmp_path / "out"
    with (out / "wedding.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    assert [(row["file"], row["frame"], row["face_id"], row["success"]) for row in rows] == [
        ("wedding/a.png", "1", "0", "1"),
        ("wedding/a.png", "1", "1", "1"),
        ("wedding/b.png", "2", "0", "0"),
        ("wedding/d, e.png", "3", "0", "1"),
    ]
    names = {"wedding.csv", "wedding.report.html", "wedding.run.json"}
    names |= {f"{name}.overlay.png" for name in ("a", "b", "d, e")}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "wedding.report.html").read_text().count("<figure>") == 3
    printed = capsys.readouterr()
    assert "wedding: 3 images, 1 without a face -> out/wedding.csv, " in printed.out
    drawn = "out/wedding.run.json, out/*.overlay.png (3 files) ("
    assert drawn in printed.out.replace(os.sep, "/")
    assert "c.png: not a readable" in printed.err
    assert "--smooth and --subtract-neutral change videos alone" in printed.err
    assert "1 of 4 inputs could not be read" in printed.err


def test_aligned_faces_are_one_crop_a_face_and_frame_and_replace_older_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [draw_frame([Blob(60, 80, 30, 0), Blob(220, 100, 40, 1)]) for _ in range(3)]
    video = write_video(tmp_path / "clip.mp4", both)
    folder = tmp_path / "crops" / "clip"
    folder.mkdir(parents=True)
    for name in ("frame_000009_face_00.png", "frame_000009_face_00.csv", "my_face_00.png"):
        (folder / name).touch()
    assert predict(video, "--aligned-faces", "crops") == 0
    assert "clip.csv, crops/clip/, clip.run.json (" in capsys.readouterr().out
    own = [f"frame_00000{frame}_face_0{face}.png" for frame in (1, 2, 3) for face in (0, 1)]
    others = ["frame_000009_face_00.csv", "my_face_00.png"]
    assert sorted(path.name for path in folder.iterdir()) == own + others
    crop = cv2.imread(str(folder / own[-1]))
    assert crop.shape == (112, 112, 3)
    blob = boxes_of(crop)[0]  # a standard crop: the blob's landmarks span 80 px around the centre
    assert np.allclose((blob[0] + blob[2] / 2, blob[1] + blob[3] / 2), 55.5, atol=3)
    (tmp_path / "clip.csv").unlink()
    (folder / own[0]).unlink()
    assert predict(video, "--aligned-faces", "crops", "--resume") == 0
    assert (folder / own[0]).is_file()
    (folder / own[0]).unlink()
    assert predict(video, "--aligned-faces", "crops", "--resume") == 0  # the table is complete
    assert not (folder / own[0]).exists()
    assert predict(video, "--aligned-faces", "clip.mp4") == 2
    assert "clip.mp4" in capsys.readouterr().err


def test_aligned_faces_of_images_have_the_images_names(tmp_path: Path, photos: Path) -> None:
    (photos / "a.png").rename(photos / "a.tif.png")
    assert predict("wedding", "--aligned-faces", "crops") == 1
    names = sorted(path.name for path in (tmp_path / "crops").iterdir())
    assert names == ["a.tif_face_00.png", "a.tif_face_01.png", "d, e_face_00.png"]
    assert predict("wedding/d, e.png", "--aligned-faces", "one") == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["d, e_face_00.png"]


def test_each_image_gets_a_table_only_on_request(tmp_path: Path, photos: Path) -> None:
    assert predict("wedding", "--output", "out", "--file-per-image") == 1
    tables = sorted(path.name for path in (tmp_path / "out").glob("*.csv"))
    assert tables == ["a.csv", "b.csv", "d, e.csv"]


def test_images_beside_videos_share_a_table_of_their_own(tmp_path: Path, photos: Path) -> None:
    clip(photos / "film.mp4", 4)
    photos.rename(tmp_path / "may.2024")
    assert predict("may.2024", "--output", "out", "--shard", "2/2") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.csv")) == ["may.2024-2-of-2.csv"]
    (tmp_path / "may.2024").rename(photos)
    assert predict("wedding/a.png", "wedding/b.png", "wedding/film.mp4", "--output", "out") == 0
    assert frames_in(tmp_path / "out" / "images.csv") == 2
    assert frames_in(tmp_path / "out" / "film.csv") == 4


def test_a_part_of_the_videos_leaves_the_images_beside_them_whole(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(photos / "clip.mp4", 12)
    (photos / "c.png").unlink()
    assert predict("wedding", "--frame-step", 4) == 0
    assert "--frame-step are for the videos, images are taken whole" in capsys.readouterr().err
    assert frames_in(tmp_path / "clip.csv") == 3
    with (tmp_path / "wedding.csv").open(newline="") as file:
        rows = [row["file"] for row in csv.DictReader(file, skipinitialspace=True)]
    assert rows == ["wedding/a.png", "wedding/a.png", "wedding/b.png", "wedding/d, e.png"]


def test_an_error_of_writing_ends_the_reading(tmp_path: Path) -> None:
    closed = []

    def results() -> Iterator[FrameResult]:
        try:
            for index in range(100):
                yield FrameResult(Frame(index, 0.0, np.zeros((8, 8, 3), np.uint8)))
        finally:
            closed.append(True)

    pipeline: Any = SimpleNamespace(video=lambda *_: ResultStream(results()))
    clip(tmp_path / "film.mp4", 2)
    source = Input(tmp_path / "film.mp4")
    job = predict_faces.Job("film", [source], OutputFiles(tmp_path / "absent" / "film.csv"))
    with pytest.raises(FileNotFoundError) as caught:
        predict_faces._run_job(pipeline, job, Span(), [], total=2, show=False)
    assert closed
    assert caught.tb is not None  # which has kept the results from being collected


def test_without_one_good_image_there_is_no_table(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "d, e"):
        (photos / f"{name}.png").write_bytes(b"no image")
    assert predict("wedding", "--output", "out") == 2
    assert "4 of 4 inputs could not be read" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_gives_a_file_each_and_a_bad_one_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mp4", 5)
    (tmp_path / "in" / "b.mp4").write_bytes(b"no video")
    cv2.imwrite(str(tmp_path / "in" / "c.png"), draw_frame([]))
    (tmp_path / "in" / "notes.txt").touch()
    assert predict("in", "--output", "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.csv")) == ["a.csv", "in.csv"]
    assert read_openface_csv(tmp_path / "out" / "in.csv")["success"].tolist() == [0]
    error = capsys.readouterr().err
    assert "in: 1 other file skipped (notes.txt)" in error
    assert "b.mp4: cannot be read" in error
    assert "1 of 3 inputs" in error


def test_a_video_that_may_not_be_read_ends_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4", "c.ts"):
        clip(tmp_path / name, 3)

    def is_text(path: Path) -> bool:
        if path.name != "b.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(reader, "is_text", is_text)
    monkeypatch.setattr(inputs, "is_text", is_text)
    assert predict(".") == 1
    error = capsys.readouterr().err
    assert "mlx-faceau: a.mp4: Permission denied\n" in error
    assert "mlx-faceau: c.ts: Permission denied\n" in error
    assert frames_in(tmp_path / "b.csv") == 3


@pytest.mark.parametrize("span", [["--start", 9], ["--start", 9, "--end", 10]], ids=len)
def test_a_part_without_a_frame_is_an_error_and_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], span: list[object]
) -> None:
    asked = [clip(tmp_path / "clip.mp4"), "--output", "clip.csv"]
    assert predict(*asked, *span) == 2
    error = capsys.readouterr().err
    assert "clip.mp4: " in error
    assert " no frame " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "clip.csv").exists()
    assert predict(*asked) == 0
    rows = (tmp_path / "clip.csv").read_bytes()
    assert predict(*asked, *span) == 2
    assert (tmp_path / "clip.csv").read_bytes() == rows
    assert is_complete(tmp_path / "clip.csv")


def test_each_face_with_too_few_frames_for_the_calibration_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [
        [Blob(70, 80, 30, 0), *([Blob(220, 100, 40, 1)] if i < 12 else [])] for i in range(40)
    ]
    write_video(tmp_path / "two.mp4", [draw_frame(blobs) for blobs in people])
    assert predict("two.mp4", "--subtract-neutral") == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("two.mp4: face 1: no neutral face is subtracted: 1")
    assert re.search(r" 1\d frames with success, expected at least 30$", note)
    assert predict("two.mp4", "--subtract-neutral", "--end", 0.5) == 0
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(": ")[1] for note in notes] == ["face 0", "face 1"]


def test_a_function_that_fails_is_named_for_every_video_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(image: Any) -> Any:
        return image @ image

    fail.__module__, fail.__qualname__ = "drawn", "find"
    monkeypatch.setitem(sys.modules, "drawn", SimpleNamespace(find=fail))
    for name in "ab":
        clip(tmp_path / f"{name}.mp4", 4)
    assert predict("a.mp4") == 2
    line = capsys.readouterr().err
    assert line.startswith("mlx-faceau: detector drawn:find: ValueError: ")
    assert "test_predict_faces.py, line " in line
    assert predict("a.mp4", "b.mp4") == 2
    assert capsys.readouterr().err.count("detector drawn:find: ValueError") == 2
    assert predict("a.mp4", "-v") == 2
    assert "return image @ image" in capsys.readouterr().err


def test_a_folder_s_other_files_are_counted_and_some_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ["a.MTS", "b.m2ts", "c.heic", "d.avif", "e.3gp", *(f"{n}.txt" for n in range(7))]:
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / ".hidden").touch()
    found = [source.name for source in find_inputs(["in"])]
    assert found == ["a.MTS", "b.m2ts", "c.heic", "d.avif", "e.3gp"]
    error = capsys.readouterr().err
    assert error == "in: 7 other files skipped (0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...)\n"


def test_folders_in_a_folder_are_said_not_to_be_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "tuesday").mkdir(parents=True)
    (tmp_path / "in" / ".cache").mkdir()
    with pytest.raises(UsageError, match="in this folder; 1 folder not searched"):
        find_inputs(["in"])
    (tmp_path / "in" / "a.mpo").touch()
    assert [source.name for source in find_inputs(["in"])] == ["a.mpo"]
    assert capsys.readouterr().err == "in: 1 folder not searched (tuesday)\n"


@pytest.mark.parametrize("name", ["in", "in/*"])
def test_a_link_to_nothing_fails_by_its_name_and_is_not_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """As in folders of git-annex and DVC, whose files may be elsewhere."""
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mp4", 2)
    links = ("b.mp4", "c.ts", "d.png")
    for link in links:
        (tmp_path / "in" / link).symlink_to("nowhere")
    assert predict(name, "--output", "out") == 1
    err = capsys.readouterr().err
    for link in links:
        assert f"in/{link}: no such file" in err.lower().replace(os.sep, "/")
    assert "3 of 4 inputs could not be read" in err
    assert predict("in/b.mp4") == 2
    assert "in/b.mp4: no such file\n" in capsys.readouterr().err.replace(os.sep, "/")


@pytest.mark.parametrize("name", ["in", "in/*"])
def test_text_files_of_a_folder_are_skipped_and_not_taken_for_damaged_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "clip.mp4", 2)
    texts = {"go.mod": "module x\n", "pyvenv.cfg": "home = /usr/bin\n", "x.ts": "let \u00e4 = 1;\n"}
    for text_name, text in texts.items():
        (tmp_path / "in" / text_name).write_text(text, "utf-8")
    assert predict(name) == 0
    assert f"{name}: 3 other files skipped (go.mod, pyvenv.cfg, x.ts)\n" in capsys.readouterr().err
    assert predict("in/pyvenv.cfg") == 2
    assert "cannot be read as a video; it is plain text" in capsys.readouterr().err
    (tmp_path / "in" / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert predict("in") == 1  # a name that promises a video is reported


def test_a_video_without_a_frame_is_an_error_each_time_and_never_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clip(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    for more in ((), ("--resume",)):
        assert predict("a.mp4", *more) == 2
        assert "a.mp4: not one frame can be decoded" in capsys.readouterr().err
        assert not (tmp_path / "a.csv").exists()


def test_a_part_behind_the_end_is_an_error_and_never_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "a.mp4")
    assert predict("a.mp4", "--start", 100) == 2
    assert "a.mp4: no frame from 100 s on" in capsys.readouterr().err
    assert not is_complete(tmp_path / "a.csv")


def test_a_picture_of_any_ending_is_read_as_one(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), draw_frame([Blob(70, 80, 30)]))
    (tmp_path / "a.png").rename(tmp_path / "a.scan")
    assert predict("a.scan") == 0
    assert frames_in(tmp_path / "a.csv") == 1


def test_resume_takes_up_what_is_missing_or_unfinished(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        clip(tmp_path / "in" / f"{name}.mp4", 4)
    assert predict("in", "--output", "out") == 0
    out = tmp_path / "out"
    (out / "a.csv").write_text("frame")
    marker_of(out / "b.csv").touch()
    (out / "c.csv").unlink()
    assert predict("in", "--output", "out", "--resume") == 0
    assert (out / "a.csv").read_text() == "frame"
    assert is_complete(out / "b.csv")
    assert frames_in(out / "c.csv") == 4


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_resume_takes_up_images_that_are_not_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a, 1.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), draw_frame([Blob(70, 80, 30)]))
    resume = ("in", "--output", "out/", "--format", form, "--resume")
    assert predict(*resume) == 0
    capsys.readouterr()
    assert predict(*resume) == 0
    assert "nothing left to do" in capsys.readouterr().err
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "b.png").read_bytes())
    assert predict(*resume) == 0
    assert "in: 3 images" in capsys.readouterr().out
    assert "c.png" in (tmp_path / "out" / f"in.{form}").read_text()


@pytest.mark.parametrize(
    ("form", "edited"),
    [("csv", b"\xe4.png, 1\n"), ("jsonl", b'{"file": "a'), ("jsonl", b"\n"), ("jsonl", b"[]\n")],
)
def test_resume_refuses_a_table_of_images_that_was_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, edited: bytes
) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), draw_frame([Blob(70, 80, 30)]))
    resume = ("in", "--output", "out/", "--format", form, "--resume")
    assert predict(*resume) == 0
    table = tmp_path / "out" / f"in.{form}"
    table.write_bytes(table.read_bytes() + edited)
    before = table.read_bytes()
    assert predict(*resume) == 2
    assert f"in.{form}: not as it was written (" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_resume_makes_the_overlay_report_and_crops_that_an_earlier_run_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = clip(tmp_path / "a.mp4", 4)
    for more in ([], ["--overlay"], ["--report"], ["--aligned-faces", "crops"]):
        assert predict(video, "--output", "out", *more, "--resume") == 0
        assert "4 frames" in capsys.readouterr().out
        assert predict(video, "--output", "out", *more, "--resume") == 0
        assert capsys.readouterr().err == "nothing left to do: the tables are complete\n"
    assert (tmp_path / "out" / "a.overlay.mp4").is_file()
    assert (tmp_path / "out" / "a.report.html").is_file()
    assert (tmp_path / "crops" / "a").is_dir()


def test_resume_makes_the_drawn_images_that_an_earlier_run_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them suffices: an image that cannot be read never gets one."""
    for more in ([], ["--overlay"]):
        assert predict(photos, *more, "--resume") == 1
        assert " images" in capsys.readouterr().out
    assert predict(photos, "--overlay", "--resume") == 0
    assert capsys.readouterr().err == "nothing left to do: the tables are complete\n"


def test_resume_takes_up_a_parquet_file_whose_rows_were_left_unfinished(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    asked = [clip(tmp_path / "a.mp4", 4), "--format", "parquet", "--output", "out"]
    assert predict(*asked) == 0
    out = tmp_path / "out"
    (out / "a.csv").write_text("frame, face_id\n1, 0")
    marker_of(out / "a.csv").touch()
    assert predict(*asked, "--resume") == 0
    assert frames_in(out / "a.csv") == 4
    assert is_complete(out / "a.csv")


def test_resume_writes_a_missing_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    asked = [clip(tmp_path / "a.mp4", 4), "--format", "parquet", "--output", "out", "--resume"]
    assert predict(*asked) == 0
    table = tmp_path / "out" / "a.parquet"
    table.unlink()
    assert predict(*asked) == 0
    assert table.is_file()


def test_parquet_without_pyarrow_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(predict_faces, "FacePipeline", None)
    assert predict(clip(tmp_path / "a.mp4", 4), "--format", "parquet") == 2
    assert "mlx-faceau[parquet]" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_json_lines_on_standard_output_come_alone(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    clip(tmp_path / "clip.mp4", 4)
    assert predict("clip.mp4", "--output", "-", "--format", "jsonl", "--frame-step", 2) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["frame"] for row in rows] == [1, 3]


def test_ctrl_c_keeps_finished_rows_and_exits_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []

    @contextmanager
    def interrupting(*_: object) -> Iterator[Callable[[], None]]:
        def advance() -> None:
            steps.append(1)
            if len(steps) == 7:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(predict_faces, "_progress_bar", interrupting)
    clip(tmp_path / "clip.mp4")
    assert predict("clip.mp4") == 130
    assert frames_in(tmp_path / "clip.csv") == 7
    assert not is_complete(tmp_path / "clip.csv")
    assert "clip.csv: 7 finished frames are in it" in capsys.readouterr().err


def test_an_interrupted_standard_output_is_called_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []

    def write(self: RowFile, lines: list[str]) -> None:
        written.append(lines)
        if len(written) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RowFile, "write", write)
    clip(tmp_path / "clip.mp4")
    assert predict("clip.mp4", "--output", "-") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mp4")
    assert predict("clip.mp4", "--output", "nowhere/clip.csv") == 2
    assert capsys.readouterr().err == "mlx-faceau: nowhere: no such folder\n"


def test_a_webcam_is_read_until_the_end_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, Any]:
            return True, draw_frame([Blob(100, 100, 40)])

        def release(self) -> None:
            pass

    real = Webcam.__init__
    monkeypatch.setattr(Webcam, "__init__", lambda self, source=0: real(self, source, Endless()))
    assert predict("webcam:1", "--end", 0.3) == 0
    assert frames_in(tmp_path / "webcam1.csv") >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "no such file or folder"),
        (["clpi.mp4"], "clpi.mp4: no such file or folder; did you mean clip.mp4?"),
        (["clip.mp4", "--shard", "3/2"], "--shard 3/2"),
        (["clip.mp4", "--start", "5", "--end", "2"], "0 <= start < end"),
        (["clip.mp4", "--columns", "3d"], "need the PDM"),
        (["clip.mp4", "--presence-threshold", "nan"], "expected an intensity in [0, 5]"),
        (["clip.mp4", "--columns", "gaze"], "no column groups"),
        (["clip.mp4", "--pdm", "none.txt"], "none.txt"),
        (["clip.mp4", "--camera-intrinsics", "1,2"], "FX,FY,CX,CY"),
        (["clip.mp4", "--camera-intrinsics", "0,500,160,120"], "focal lengths are positive"),
        (["clip.mp4", "--camera-intrinsics", "500,500,nan,120"], "all are finite"),
        (["clip.mp4", "--start", "nan"], "0 <= start < end"),
        (["a.png", "b.png", "--start", "5", "--frame-step", "2"], "for videos, not for images"),
        (["clip.mp4", "other.mp4", "--output", "broken.mp4"], "not a folder"),
        (["clip.mp4", "--output", "drawn.png"], "for a folder of this name, write drawn.png/"),
        (["clip.mp4", "--format", "json"], "json is for --aligned"),
        (["clip.mp4", "--format", "parquet", "--output", "x.csv"], "x.csv: contradicts"),
        (["clip.mp4", "clip.mp4"], "two inputs of this name"),
        (["clip.mp4", "other/clip.mp4", "--shard", "1/2"], "two inputs of this name"),
        (["clip.mp4", "other.mp4", "--output", "x.csv"], "need a folder"),
        (["clip.mp4", "--output", "-", "--subtract-neutral"], "standard output"),
        (["empty"], "no images or videos"),
        (["*.cfg"], "no images or videos among these files"),
        (["broken.mp4"], "cannot be read as a video"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    clip(tmp_path / "clip.mp4", 2)
    clip(tmp_path / "other.mp4", 2)
    (tmp_path / "other").mkdir()
    clip(tmp_path / "other" / "clip.mp4", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.cfg").write_text("text")
    (tmp_path / "broken.mp4").write_bytes(b"x" * 1000)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), draw_frame([]))
    assert predict(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mlx-")]
    assert len(lines) == 1
    assert lines[0].count(message) == 1
    assert lines[0].count("did you mean") <= 1


@pytest.mark.parametrize("more", [(), ("--aligned",)])
def test_a_missing_input_is_reported_without_a_note_about_the_nets(
    capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert main(["predict", "none.mp4", "--landmark-model", "lm", *more]) == 2
    assert capsys.readouterr().err == "mlx-faceau: none.mp4: no such file or folder\n"


@pytest.mark.parametrize("flag", ["--start", "--end"])
def test_a_time_that_is_no_number_of_seconds_is_explained(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "clip.mp4", flag, "1:30"])
    line = f"argument {flag}: '1:30': expected seconds, such as 90\n"
    assert capsys.readouterr().err.endswith(line)


def test_another_program_s_json_lines_are_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mp4", 2)
    cv2.imwrite(str(tmp_path / "p.png"), draw_frame([]))
    for name in ("clip.mp4", "p.png"):
        table = (tmp_path / name).with_suffix(".jsonl")
        words = [name, "--format", "jsonl"]
        assert predict(*words) == 0
        whole = table.read_bytes()
        for left in (whole[:5], b"", whole):  # what a killed run leaves
            table.write_bytes(left)
            assert predict(*words) == 0
            assert table.read_bytes() == whole
        table.write_text('{"text": "an annotation"}\n')
        assert predict(*words) == 2
        assert f"{table.name}: another program's file (it does" in capsys.readouterr().err
        assert "annotation" in table.read_text()


@pytest.mark.parametrize("flags", [["--overlay"], ["--report"], ["--aligned-faces", "crops"], []])
def test_a_name_too_long_for_our_endings_is_refused_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), draw_frame([]))
    os.rename("p.png", long := "p" * 251 + ".png")
    assert predict(long, *flags, "--output", "long.csv") == 0  # the only image: by the table's
    clip(tmp_path / "clip.mp4", 2)
    os.rename("clip.mp4", long := "v" * 250 + ".mp4")
    capsys.readouterr()
    made = {path.name for path in tmp_path.iterdir()} | {"crops"}
    assert predict(long, *flags) == 2
    error = capsys.readouterr().err
    assert "too long a name to be written; rename the input" in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= made


def test_an_output_without_a_name_before_its_ending_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mp4", 2)
    assert predict("clip.mp4", "--output", ".csv") == 2
    assert "--output .csv: has no name before its ending" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("more", [(), ("--resume",), ("--format", "parquet")])
def test_another_program_s_csv_is_neither_replaced_nor_taken_for_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    """OpenFace's files have the same names; a later run's own file is replaced."""
    clip(tmp_path / "clip.mp4", 2)
    clip(tmp_path / "a.mp4", 2)
    openface = "frame, face_id, timestamp, confidence, success, gaze_0_x\n1, 0, 0, 1, 1, 0.5\n"
    (tmp_path / "clip.csv").write_text(openface)
    assert predict("a.mp4", "clip.mp4", *more) == 2
    error = capsys.readouterr().err
    assert "clip.csv: another program's file (column 'gaze_0_x'" in error
    assert error.count("\n") == 1
    assert (tmp_path / "clip.csv").read_text() == openface
    assert not (tmp_path / "a.csv").exists()  # nothing was begun
    assert predict("clip.mp4", "--output", "results/") == 0
    ours = tmp_path / "results" / "clip.csv"
    ours.write_text(ours.read_text(), encoding="utf-8-sig")  # as a spreadsheet saves it
    assert predict("clip.mp4", "--output", "results/") == 0


def test_overlays_of_an_earlier_run_are_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "a.overlay.mp4", "b.v2.png", "b.v2.overlay.png"):
        (tmp_path / name).touch()
    assert [found.name for found in find_inputs([str(tmp_path)])] == ["a.mp4", "b.v2.png"]
    assert "2 other files skipped (a.overlay.mp4, b.v2.overlay.png)" in capsys.readouterr().err


def test_shards_share_all_inputs_out() -> None:
    inputs = [Input(Path(f"{i}.mp4")) for i in range(7)]
    shared = [found for i in (1, 2, 3) for found in shard(inputs, f"{i}/3")]
    assert sorted(shared, key=lambda s: s.name) == inputs


def test_shards_of_inputs_with_one_stem_write_files_of_their_own(
    tmp_path: Path, photos: Path
) -> None:
    """The names come from all inputs, not from those of the shard."""
    for name in ("film.mov", "film.mp4"):
        clip(photos / name, 2)
    (photos / "a.png").unlink()
    cv2.imwrite(str(photos / "b.bmp"), cv2.imread(str(photos / "b.png")))
    (photos / "c.png").unlink()
    for part in range(1, 6):
        options = ("--output", "out", "--overlay", "--aligned-faces", "crops", "--resume")
        assert predict("wedding", *options, "--shard", f"{part}/5") == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"film.mov.csv", "film.mp4.csv"} <= made
    assert {f"wedding-{part}-of-5.csv" for part in (1, 2, 3)} <= made
    assert {"b.bmp.overlay.png", "b.png.overlay.png", "d, e.overlay.png"} <= made
    assert not {"film.csv", "b.overlay.png"} & made
    assert (tmp_path / "crops" / "d, e_face_00.png").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_names_that_are_no_utf_8_are_written_with_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "old disk"
    folder.mkdir()
    clip(folder / "clip.mp4", 2).rename(folder / os.fsdecode(b"caf\xe9.mp4"))
    for name in (b"f\xfcr.png", b"a\nb.png", b"c.png"):
        image = cv2.imencode(".png", draw_frame([Blob(70, 80, 30)]))[1].tobytes()
        (folder / os.fsdecode(name)).write_bytes(image)
    options = ("--output", "out", "--format", "parquet", "--overlay", "--report")
    assert predict("old disk", *options, "--aligned-faces", "crops") == 0
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out" / "old disk.parquet")
    names = ["old disk/a\nb.png", "old disk/c.png", "old disk/f\\udcfcr.png"]
    assert table["file"].to_pylist() == names
    with (tmp_path / "out" / "old disk.csv").open(newline="", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == names
    for name, page in ((b"caf\xe9", "caf\\udce9.mp4"), (b"old disk", "f\\udcfcr.png")):
        report = tmp_path / "out" / os.fsdecode(name + b".report.html")
        assert page in report.read_text("utf-8")
    assert (tmp_path / "crops" / os.fsdecode(b"f\xfcr_face_00.png")).is_file()


def test_names_that_standard_output_cannot_write_do_not_end_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that output is redirected to is in one of its old encodings."""
    for name in ("\u65e5\u672c.mp4", "zug.mp4"):
        clip(tmp_path / name, 2)
    output = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", output)
    assert predict("\u65e5\u672c.mp4", "zug.mp4") == 0
    lines = output.buffer.getvalue().decode("cp1252").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["\\u65e5\\u672c.mp4", "zug.mp4"]


def test_patterns_are_expanded_where_the_shell_does_not(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "c.txt"):
        (tmp_path / name).touch()
    assert [found.name for found in find_inputs(["*.mp4"])] == ["a.mp4", "b.mp4"]


def test_the_progress_bar_shows_share_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with predict_faces._progress_bar("clip.mp4", 4, "frames") as advance:
        for _ in range(3):
            time.sleep(0.11)
            advance()
        shown = capsys.readouterr().err
    assert re.search(r"clip\.mp4: +\d+%.*[23]/4 \[00:00<00:\d\d, +[\d.]+ frames/s\]", shown)


def test_slow_images_are_counted_in_images_a_second_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("tqdm.std.time", map(float, range(0, 10**6, 4)).__next__)
    with predict_faces._progress_bar("photos", 4, "images") as advance:
        for _ in range(3):
            advance()
    shown = capsys.readouterr().err
    assert re.search(r" 0\.\d\d images/s\]", shown)
    assert "s/ images" not in shown


def test_rows_go_to_a_standard_output_that_takes_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a program has put an object of its own in its place."""
    video = clip(tmp_path / "clip.mp4", 2)
    assert predict(video) == 0
    monkeypatch.setattr("sys.stdout", output := io.StringIO())
    assert predict(video, "--output", "-") == 0
    assert output.getvalue() == (tmp_path / "clip.csv").read_text()


def test_an_end_that_never_comes_is_the_end_of_the_video(tmp_path: Path) -> None:
    assert predict(clip(tmp_path / "clip.mp4", 3), "--end", "inf") == 0
    assert frames_in(tmp_path / "clip.csv") == 3


def test_videos_whose_names_in_full_and_in_part_are_alike_share_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("clip.mp4", "clip.mov", "clip.mov.mp4"):
        clip(tmp_path / f"in-{name}", 1).rename(tmp_path / name)
    assert predict("clip.mp4", "clip.mov", "clip.mov.mp4") == 2
    assert "clip.mov: two inputs of this name" in capsys.readouterr().err
    assert predict("clip.mp4", "clip.mov") == 0
    assert {path.name for path in tmp_path.glob("*.csv")} == {"clip.mp4.csv", "clip.mov.csv"}


def test_inputs_named_like_overlays_or_crops_of_others_are_not_replaced(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "clip.mp4", 2)
    clip(tmp_path / "clip.overlay.mp4", 3)
    (photos / "d, e.png").rename(photos / "a_face_00.png")
    before = {path: path.read_bytes() for path in (*tmp_path.glob("*.mp4"), *photos.iterdir())}
    assert predict("clip.mp4", "clip.overlay.mp4", "--overlay") == 2
    assert "clip.overlay.mp4: is an input and would be replaced" in capsys.readouterr().err
    assert predict("wedding", "--aligned-faces", "wedding") == 2
    assert "a_face_00.png: is an input and would be replaced" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob("*.csv"))
    assert predict("clip.mp4", "clip.overlay.mp4", "--overlay", "--output", "out/") == 0
    assert predict("wedding", "--aligned-faces", "crops") == 1


def test_videos_whose_names_are_one_to_macos_share_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Clip.mp4", "clip.mov", "\u00e9.mp4", "e\u0301.mov")
    for name in names:
        clip(tmp_path / f"in-{name}.mp4", 1).rename(tmp_path / name)
    monkeypatch.setattr(predict_faces.sys, "platform", "darwin")
    assert predict(*names) == 0
    assert {path.name for path in tmp_path.glob("*.csv")} == {f"{name}.csv" for name in names}
    (tmp_path / "other").mkdir()
    clip(tmp_path / "other" / "in.mp4", 1).rename(tmp_path / "other" / "CLIP.mp4")
    assert predict("Clip.mp4", "other/CLIP.mp4") == 2
    assert "Clip.mp4: two inputs of this name" in capsys.readouterr().err


def test_an_output_may_have_the_longest_name_of_the_system(tmp_path: Path) -> None:
    image = cv2.imencode(".png", draw_frame([Blob(70, 80, 30)]))[1].tobytes()
    (tmp_path / "a.png").write_bytes(image)
    table = tmp_path / ("\u65e5" * 78 + ".csv")
    assert predict("a.png", "--output", table) == 0
    assert {path.name for path in tmp_path.glob("*.json")} == {f"{table.stem}.run.json"}
