"""Files of results: rows that survive, neutral calibration, Parquet, overlay, records."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame
from test_openface_csv import face

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.libraries import installed_version
from mlx_faceau.errors import MissingDependency, UsageError, VideoError
from mlx_faceau.output.neutral_calibration import NeutralCalibration
from mlx_faceau.output.openface_csv import Layout, read_openface_csv
from mlx_faceau.output.result_files import OutputFiles, json_lines, write_results
from mlx_faceau.output.row_file import RowFile, is_complete
from mlx_faceau.output.run_record import run_record
from mlx_faceau.video.results import Frame, FrameResult

IMAGE = draw_frame([Blob(100, 80, 40)])
MODEL = {"model": {"name": "builtin-1", "hash": "ab" * 32}, "backend": "onnx"}
RECORD = run_record({"detector": "dlib", "landmark_model": MODEL}, {"smooth": True})


def results(count: int = 60, intensities: np.ndarray | None = None) -> Iterator[FrameResult]:
    for i in range(count):
        values = np.full(17, 1.0) if intensities is None else intensities[i]
        yield FrameResult(Frame(i, i / 30, IMAGE), (face(au_intensities=values),))


def varying_results(count: int) -> Iterator[FrameResult]:
    """With pictures that do not compress away."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 120, 160, 3), dtype=np.uint8)
    for i, found in enumerate(results(count)):
        yield replace(found, frame=Frame(i, i / 30, noise[i % 8]))


def broken(count: int, error: BaseException) -> Iterator[FrameResult]:
    yield from results(count)
    raise error


def test_a_parquet_file_is_not_named_as_the_csv_it_is_made_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.csv: .*end it with \.parquet"):
        OutputFiles(tmp_path / "a.csv", "parquet")


def test_a_report_without_its_library_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency, match="pip install jinja2"):
        OutputFiles(tmp_path / "a.csv", report=tmp_path / "a.report.html")


def test_a_recording_writes_rows_overlay_and_report(tmp_path: Path) -> None:
    files = OutputFiles(
        tmp_path / "a.csv",
        overlay=tmp_path / "a.overlay.mp4",
        report=tmp_path / "a.report.html",
        record=RECORD,
    )
    summary = write_results(results(), files, "clip <1>")
    assert (summary.frames, summary.faces, summary.faceless) == (60, 60, 0)
    assert len(read_openface_csv(tmp_path / "a.csv")["frame"]) == 60
    capture = cv2.VideoCapture(str(tmp_path / "a.overlay.mp4"))
    assert sum(iter(lambda: capture.read()[0], False)) == 60
    assert "clip &lt;1&gt;" in (tmp_path / "a.report.html").read_text()
    assert is_complete(tmp_path / "a.csv")
    written = [tmp_path / f"a.{end}" for end in ("csv", "report.html", "run.json", "overlay.mp4")]
    assert summary.written == written
    assert json.loads(written[2].read_text()) == RECORD


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which files are open")
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_no_file_is_open_when_it_is_replaced_which_windows_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    move = os.replace

    def replace_closed(source: Path, target: Path) -> None:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        used = {os.readlink(link) for link in links if os.path.lexists(link)}
        assert not used & {str(source), str(target)}
        move(source, target)

    monkeypatch.setattr(os, "replace", replace_closed)
    files = OutputFiles(tmp_path / f"a.{form}", form, subtract_neutral=True, record=RECORD)
    write_results(results(), files, "a")
    assert is_complete(tmp_path / f"a.{form}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broke")])
def test_finished_rows_stay_when_the_source_breaks_and_count_as_unfinished(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        write_results(broken(25, error), OutputFiles(tmp_path / "a.csv"), "a")
    assert len(read_openface_csv(tmp_path / "a.csv")["frame"]) == 25
    assert not is_complete(tmp_path / "a.csv")


def test_a_killed_program_leaves_every_finished_row_and_frame(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_result_files import varying_results
from mlx_faceau.output.result_files import OutputFiles, write_results
def progress(found):
    if found.frame.index == 299:
        print("ready", flush=True)
        time.sleep(60)
folder = Path({str(tmp_path)!r})
files = OutputFiles(folder / "a.csv", overlay=folder / "a.mp4")
write_results(varying_results(400), files, "a", progress=progress)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(read_openface_csv(tmp_path / "a.csv")["frame"]) == 300
    assert not is_complete(tmp_path / "a.csv")
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    # The last fragment may be missing.
    assert sum(iter(lambda: capture.read()[0], False)) >= 140


def test_a_full_disk_ends_with_one_error_and_a_whole_last_row(tmp_path: Path) -> None:
    class Full:
        """Takes part of a write, then refuses, as a full disk does."""

        def __init__(self, file: object, room: int) -> None:
            self.file, self.room = file, room

        def write(self, data: bytes) -> int:
            if self.room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(data[: self.room])  # type: ignore[attr-defined]
            self.room -= written
            return int(written)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    path = tmp_path / "a.csv"

    def fill() -> None:
        with RowFile(path, "a, b") as rows:
            rows._file = Full(rows._file, 12)  # type: ignore[assignment]
            rows.write(["1, 2"])
            rows.write(["3, 4", "5, 6"])

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.filename == str(path)
    assert path.read_text() == "a, b\n1, 2\n"
    assert not is_complete(path)


def test_the_record_names_models_hashes_detector_settings_and_versions() -> None:
    assert RECORD["models"] == {"landmark_model": {**MODEL["model"], "backend": "onnx"}}
    assert (RECORD["detector"], RECORD["settings"]) == ("dlib", {"smooth": True})
    assert RECORD["versions"]["numpy"] == np.__version__
    detector = installed_version("dlib") or installed_version("dlib-bin")
    assert detector in (None, *RECORD["versions"].values())


def test_a_killed_programs_rows_have_their_record(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_results(
            broken(5, KeyboardInterrupt()), OutputFiles(tmp_path / "a.csv", record=RECORD), "a"
        )
    assert json.loads((tmp_path / "a.run.json").read_text()) == RECORD


def test_a_table_of_images_names_the_file_of_each_row(tmp_path: Path) -> None:
    names = ["a.jpg", 'b, "best".jpg']
    found = [replace(r, source=name) for r, name in zip(results(2), names, strict=True)]
    overlays = {name: tmp_path / f"{i}.png" for i, name in enumerate(names)}
    layout = Layout(("2d",), file_column=True)
    for form in ("csv", "jsonl"):
        files = OutputFiles(tmp_path / f"a.{form}", form, layout, overlay=overlays)
        summary = write_results(found, files, "a")
    assert summary.written == [tmp_path / "a.jsonl", *overlays.values()]
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    assert [row["file"] for row in rows] == names
    assert [row["frame"] for row in rows] == ["1", "2"]
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == names
    assert read_openface_csv(tmp_path / "a.csv")["frame"].tolist() == [1, 2]


def test_json_lines_hold_the_same_faces(tmp_path: Path) -> None:
    empty = FrameResult(Frame(1, 1 / 30, IMAGE))
    write_results([next(results(1)), empty], OutputFiles(tmp_path / "a.jsonl", "jsonl"), "a")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[0]["au_intensities"]["AU45_r"] == 1.0
    assert np.shape(rows[0]["landmarks"]) == (68, 2)
    assert (rows[1]["face_id"], rows[1]["success"]) == (None, False)


def test_a_small_negative_number_is_a_plain_zero_in_json_lines_too() -> None:
    small = face(local_params=np.full(34, -1e-5))
    (line,) = json_lines(FrameResult(Frame(0, 0.0, IMAGE), (small,)), Layout())
    values = json.loads(line)["local_params"]
    assert values == [0.0] * 34
    assert not np.signbit(values).any()


def test_parquet_equals_the_csv_beside_it(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_results(results(10), OutputFiles(tmp_path / "a.parquet", "parquet"), "a")
    table = parquet.read_table(tmp_path / "a.parquet")
    columns = read_openface_csv(tmp_path / "a.csv")
    assert table.column_names == list(columns)
    assert all(table[name].to_numpy().tolist() == columns[name].tolist() for name in columns)


@pytest.mark.parametrize("broken", [False, True])
def test_without_pyarrow_parquet_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    if broken:
        (tmp_path / "pyarrow.py").write_text("raise OSError('libarrow.so: no such file')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "pyarrow")
    with pytest.raises(ImportError, match=r"pyarrow is.*pip install"):
        OutputFiles(tmp_path / "a.parquet", "parquet")


def smiling(count: int = 200) -> np.ndarray:
    """A person whose AU04 never rests below 1.2 and who smiles (AU12) a third of the time."""
    values = np.zeros((count, 17))
    values[:, 2] = 1.2
    values[::3, 8] = 3.0
    return values


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_calibration_subtracts_the_resting_face_and_keeps_expressions(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"a.{form}"
    write_results(results(200, smiling()), OutputFiles(path, form, subtract_neutral=True), "a")
    if form == "csv":
        columns = read_openface_csv(path)
        brow, smile = columns["AU04_r"], columns["AU12_r"]
        assert columns["AU04_c"].max() == 0
        assert columns["AU12_c"][:3].tolist() == [1, 0, 0]
    else:
        rows = [json.loads(line)["au_intensities"] for line in path.read_text().splitlines()]
        brow, smile = (np.array([row[n] for row in rows]) for n in ("AU04_r", "AU12_r"))
    assert np.abs(brow).max() <= 0.01
    assert smile[:3].tolist() == [3, 0, 0]
    assert is_complete(path)


def test_offsets_are_the_persons_quantile_and_zero_for_one_who_was_hardly_seen() -> None:
    generator = np.random.default_rng(0)
    values = generator.uniform(0, 5, (400, 17))
    calibration = NeutralCalibration()
    for found in results(400, values):
        calibration.add(found)
        other = face(1, au_intensities=np.full(17, 2.0))
        if found.frame.index < 10:
            calibration.add(replace(found, faces=(other,)))
        doubtful = face(0, au_intensities=np.full(17, 0.1), success=False)
        calibration.add(replace(found, faces=(doubtful,)))
    np.testing.assert_allclose(calibration.offsets(0), np.quantile(values, 0.3, axis=0), atol=0.03)
    assert calibration.offsets(1).tolist() == [0.0] * 17
    corrected = calibration.corrected(0, values[0])
    np.testing.assert_allclose(corrected, np.clip(values[0] - calibration.offsets(0), 0, 5))


def test_presence_is_that_of_the_written_intensity_calibrated_or_not(tmp_path: Path) -> None:
    """Around the threshold 1: .99499 is written .99, .995001 and .9999 are written 1.00."""
    values = np.resize([0.0, 0.98, 0.99499, 0.995001, 0.9999, 1.0, 1.004, 5.0], 17)
    given = np.tile(values, (10, 1))  # too few frames: nothing is subtracted
    tables = []
    for calibrate in (False, True):
        path = tmp_path / f"{calibrate}.csv"
        write_results(results(10, given), OutputFiles(path, subtract_neutral=calibrate), "a")
        tables.append(path.read_text())
    assert tables[0] == tables[1]
    columns = read_openface_csv(tmp_path / "True.csv")
    for name in AU_NAMES:
        present = columns[name.replace("_r", "_c")]
        assert (present == (columns[name] >= 1.0)).all()
    assert columns["AU04_c"][0] == 0
    assert columns["AU05_c"][0] == 1


def test_calibrated_presence_follows_the_calibrated_intensity(tmp_path: Path) -> None:
    """A resting face at .21: 1.21 becomes 1.00, which is present; 1.20 becomes .99."""
    given = np.full((200, 17), 0.21)
    given[150:170], given[170:] = 1.21, 1.20
    write_results(results(200, given), OutputFiles(tmp_path / "a.csv", subtract_neutral=True), "a")
    columns = read_openface_csv(tmp_path / "a.csv")
    assert columns["AU12_r"][[0, 160, 180]].tolist() == [0.0, 1.0, 0.99]
    assert columns["AU12_c"][[0, 160, 180]].tolist() == [0.0, 1.0, 0.0]


def test_a_frame_without_a_face_has_no_unit_present_calibrated_or_not(tmp_path: Path) -> None:
    layout = Layout(presence_thresholds=(0.0,) * 17)
    shown = [*results(40, np.ones((40, 17))), replace(next(iter(results(1))), faces=())]
    for calibrate in (False, True):
        files = OutputFiles(tmp_path / "a.csv", layout=layout, subtract_neutral=calibrate)
        write_results(shown, files, "a")
        columns = read_openface_csv(tmp_path / "a.csv")
        assert [columns["AU12_c"][i] for i in (0, -1)] == [1.0, 0.0]


def test_no_frame_is_an_error_and_no_result(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="clip: there is no frame"):
        write_results([], OutputFiles(tmp_path / "a.csv"), "clip")
    assert not list(tmp_path.iterdir())


def test_calibration_without_a_file_or_action_units_is_refused() -> None:
    with pytest.raises(ValueError, match="standard output"):
        OutputFiles("-", subtract_neutral=True)
    with pytest.raises(ValueError, match="no action units"):
        OutputFiles("a.csv", layout=Layout(("2d",)), subtract_neutral=True)
    with pytest.raises(ValueError, match="none of csv, jsonl, parquet"):
        OutputFiles("a.xls", "xls")


def test_a_neutral_face_is_not_subtracted_of_single_images() -> None:
    with pytest.raises(ValueError, match="not of single images"):
        OutputFiles("a.csv", layout=Layout(file_column=True), subtract_neutral=True)
