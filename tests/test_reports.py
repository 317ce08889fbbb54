"""Reports of videos and of photographs: one page, everything inside, nothing empty."""

import re
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from blobs import Blob, draw_frame
from test_openface_csv import face

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.output.neutral_calibration import NeutralCalibration
from mlx_faceau.output.report import ImageReport, VideoReport, timeline
from mlx_faceau.video.results import FaceResult, Frame, FrameResult

pytest.importorskip("matplotlib")
IMAGE = draw_frame([Blob(100, 80, 40)])
ABOUT = {"landmark model": "builtin-1, SHA-256 abcd", "face detector": "dlib <auto>"}


def frame(index: int, *faces: FaceResult) -> FrameResult:
    return FrameResult(Frame(index, index / 10, IMAGE), faces, f"folder/{index} <a>.jpg")


class Page(HTMLParser):
    """Checks that every element is closed in its turn; collects what the page loads."""

    VOID = ("meta", "img", "br", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v or "" for k, v in attrs if k in ("src", "href") and tag != "use"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def video_page(
    folder: Path, results: Iterable[FrameResult], calibration: NeutralCalibration | None = None
) -> str:
    report = VideoReport("clip <1>", ABOUT, calibration)
    for result in results:
        report.add(result)
        if calibration is not None:
            calibration.add(result)
    report.write(folder / "a.html")
    text = (folder / "a.html").read_text("utf-8")
    loaded = Page(text).loaded
    assert all(reference.startswith(("data:", "#")) for reference in loaded)
    assert "clip &lt;1&gt;" in text
    assert "dlib &lt;auto&gt;" in text
    return text


def moving(count: int, unit: int = 8, face_id: int = 0) -> list[FaceResult]:
    """A face whose one action unit rises from 0 to 4."""
    faces = []
    for i in range(count):
        aus = np.zeros(17)
        aus[unit] = 4 * i / (count - 1)
        faces.append(face(face_id, au_intensities=aus))
    return faces


def test_a_video_has_timelines_of_what_moves_and_names_the_rest(tmp_path: Path) -> None:
    text = video_page(tmp_path, [frame(i, f) for i, f in enumerate(moving(50))])
    assert "AU12 Lip Corner Puller" in text
    assert "mean 2.0, maximum 4.0" in text
    quiet = re.search(r"At most 0.5 throughout: ([^<]*)\.", text)
    assert quiet is not None
    assert quiet[1].split(", ") == [name[:4] for name in AU_NAMES if name != "AU12_r"]
    assert text.count("<svg") == 1
    for title in ("Head pose, degrees", "Confidence, 0 to 1"):
        assert title in text
    assert "4.9 s, 50 frames" in text


@pytest.mark.parametrize(("highest", "shown"), [(0.54, []), (0.56, ["maximum 0.6"])])
def test_a_unit_has_a_timeline_if_its_maximum_as_shown_is_above_the_limit(
    tmp_path: Path, highest: float, shown: list[str]
) -> None:
    aus = np.r_[np.zeros(8), highest, np.zeros(8)]
    text = video_page(tmp_path, [frame(i, face(au_intensities=aus)) for i in range(5)])
    assert re.findall(r"maximum [\d.]+", text) == shown


def test_the_peak_of_a_unit_has_a_picture_and_its_time(tmp_path: Path) -> None:
    text = video_page(tmp_path, [frame(i, f) for i, f in enumerate(moving(50))])
    peaks = re.findall(r"<b>([\d.]+)</b> at ([\d.]+) s<br>([^<]*)<", text)
    assert peaks == [("4.0", "4.9", "AU12 Lip Corner Puller")]
    assert text.count("data:image/jpeg") == 1


def test_a_peak_has_the_maximum_that_its_timeline_names(tmp_path: Path) -> None:
    """However little it exceeds an earlier one."""
    units = [np.r_[np.zeros(8), value, np.zeros(8)] for value in (2.5, 1.0, 2.56, 1.0)]
    text = video_page(tmp_path, [frame(i, face(au_intensities=aus)) for i, aus in enumerate(units)])
    assert re.findall(r"maximum [\d.]+", text) == ["maximum 2.6"]
    assert re.findall(r"<b>([\d.]+)</b> at ([\d.]+) s", text) == [("2.6", "0.2")]


def test_frames_without_success_count_in_no_mean_or_maximum(tmp_path: Path) -> None:
    aus = [np.full(17, value) for value in (1.0, 2.0, 3.0, 5.0)]
    faces = [face(au_intensities=units, success=units[0] < 4) for units in aus]
    text = video_page(tmp_path, [frame(i, each) for i, each in enumerate(faces)])
    assert set(re.findall(r"mean [\d.]+, maximum [\d.]+", text)) == {"mean 2.0, maximum 3.0"}
    text = video_page(tmp_path, [frame(0, faces[-1])])
    assert "mean" not in text.split("<svg")[1]


def test_several_people_have_a_chart_of_who_is_visible_when(tmp_path: Path) -> None:
    first, second = moving(40), moving(40, 2, face_id=3)
    results = [frame(i, f, *([second[i]] if i > 20 else [])) for i, f in enumerate(first)]
    text = video_page(tmp_path, results)
    assert "<h2>Visibility</h2>" in text
    assert re.findall(r"<h2>Face (\d)</h2>", text) == ["0", "3"]
    assert text.count("<svg") == 1 + 2


def test_a_face_that_was_away_leaves_a_gap_and_no_line_across(tmp_path: Path) -> None:
    faces = moving(100)
    whole = [frame(i, f) for i, f in enumerate(faces)]
    gone = [r if not 30 <= i < 70 else replace(r, faces=()) for i, r in enumerate(whole)]
    starts = [
        max(line.count("M ") for line in re.findall(r'<path d="([^"]*)"', video_page(tmp_path, r)))
        for r in (whole, gone)
    ]
    assert starts == [1, 2]


def test_without_action_units_or_faces_there_is_no_empty_panel(tmp_path: Path) -> None:
    text = video_page(tmp_path, [frame(i, face(au_intensities=None)) for i in range(5)])
    assert "Action units" not in text
    assert text.count("<svg") == 1
    text = video_page(tmp_path, [frame(i) for i in range(5)])
    assert "No face was found" in text
    assert "<svg" not in text


def test_the_neutral_face_is_subtracted_from_timelines_and_peaks(tmp_path: Path) -> None:
    aus = np.full((60, 17), 1.5)
    aus[50:, 8] = 3.5
    results = [frame(i, face(au_intensities=values)) for i, values in enumerate(aus)]
    text = video_page(tmp_path, results, NeutralCalibration())
    assert "maximum 2.0" in text
    assert re.findall(r"<b>([\d.]+)</b> at", text) == ["2.0"]


def test_a_page_of_photographs_shows_each_with_its_faces_and_no_timelines(tmp_path: Path) -> None:
    report = ImageReport("photos", ABOUT)
    report.add(frame(0, face(au_intensities=np.r_[3.25, np.zeros(16)]), face(1, success=False)))
    report.add(frame(1))
    report.write(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text("utf-8")
    assert all(reference.startswith("data:image/jpeg") for reference in Page(text).loaded)
    assert text.count("<figure>") == 2
    assert re.findall(r'class="close-up" alt="face (\d)"', text) == ["0", "1"]
    assert "0 &lt;a&gt;.jpg" in text
    assert "AU01 Inner Brow Raiser&nbsp;<b>3.2</b>" in text
    pose = face().pose
    assert f"pitch {pose.pitch:.0f}°, yaw {pose.yaw:.0f}°, roll {pose.roll:.0f}°" in text
    assert text.count("below the threshold") == 1
    assert text.count("no face found") == 1
    assert "<svg" not in text
    assert "frame" not in text.split("<body>")[1]


def test_a_strip_of_a_picture_has_its_card(tmp_path: Path) -> None:
    report = ImageReport("photos", ABOUT)
    report.add(FrameResult(Frame(0, 0.0, np.zeros((2, 3000, 3), np.uint8)), (), "strip.png"))
    report.write(tmp_path / "a.html")
    assert "strip.png" in (tmp_path / "a.html").read_text("utf-8")


def test_the_length_of_a_part_is_its_own(tmp_path: Path) -> None:
    text = video_page(tmp_path, [frame(100 + i, f) for i, f in enumerate(moving(50))])
    assert re.search(r"\b4\.9 s, 50 frames", text)


def test_the_charts_of_a_part_span_the_part_alone(tmp_path: Path) -> None:
    results = [frame(600 + i, f, face(1)) for i, f in enumerate(moving(50))]
    text = video_page(tmp_path, results)
    ticks = [float(tick) for tick in re.findall(r">(\d+(?:\.\d+)?)</text>", text)]
    assert {60.0, 61.0, 62.0, 63.0, 64.0} <= set(ticks)
    assert not [tick for tick in ticks if 30 < tick < 60]


def test_means_and_maxima_of_a_long_video_are_those_of_its_frames(tmp_path: Path) -> None:
    aus = np.zeros((6000, 17))
    aus[::3, 8] = 4.5  # one frame of three, which a point of the timeline averages
    aus[2999, 2] = 3.0
    text = video_page(tmp_path, [frame(i, face(au_intensities=a)) for i, a in enumerate(aus)])
    assert re.findall(r"mean [\d.]+, maximum [\d.]+", text) == [
        "mean 0.0, maximum 3.0",
        "mean 1.5, maximum 4.5",
    ]


def test_a_timeline_of_a_long_video_has_few_points_its_means_and_its_gap() -> None:
    rows = np.full((50_000, 23), 7.0)
    rows[:, 0] = np.r_[np.arange(30_000), np.arange(40_000, 60_000)] / 30
    found = timeline(rows.ravel().tolist())
    assert 1900 <= len(found) <= 2003
    (gap,) = np.flatnonzero(np.isnan(found[:, 0]))
    assert found[gap - 1, 0] == pytest.approx(1000, abs=1)
    assert found[gap + 1, 0] == pytest.approx(40_000 / 30, abs=1)
    kept = np.delete(found, gap, axis=0)
    np.testing.assert_allclose(kept[:, 1:], 7)
    assert np.all(np.diff(kept[:, 0]) > 0)
    rows[::2, 3] = rows[10_000:10_100, 3] = np.nan  # in frames without success
    known = timeline(rows.ravel().tolist())[:, 3]
    assert set(np.unique(known[np.isfinite(known)])) == {7}
    assert 2 <= np.isnan(known).sum() <= 6
