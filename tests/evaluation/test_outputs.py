"""What people read: text, page and picture tell the same figures."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("h5py")

from labelled_faces import Oracle, move_every_second_outside, write_faces

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.evaluation.evaluate import Report, evaluate
from mlx_faceau.evaluation.html_report import write_page
from mlx_faceau.evaluation.plots import draw_report
from mlx_faceau.evaluation.targets import TARGETS
from mlx_faceau.evaluation.text_report import format_report
from mlx_faceau.train.target_statistics import TargetStatistics

KINDS = ["landmark_pose", "au_prediction"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    dataset = FaceDataset(write_faces(tmp_path_factory.mktemp("faces") / "faces.h5"))
    statistics = TargetStatistics.of(dataset.labels, dataset.masks)
    oracle = Oracle(dataset, landmark_error=1.25, au_error=0.375)
    return {kind: evaluate(oracle, dataset, kind, statistics) for kind in KINDS}


@pytest.fixture(scope="module")
def partial_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Of a file half of whose faces are left out, one of the others alone in its part."""
    path = write_faces(tmp_path_factory.mktemp("faces") / "faces.h5", people=3, each=5)
    dataset = FaceDataset(move_every_second_outside(path))
    dataset.labels["global_params"][:, 2] = 0.0
    dataset.labels["global_params"][0, 2] = 0.3
    oracle = Oracle(dataset, landmark_error=1.25, au_error=0.375)
    return {kind: evaluate(oracle, dataset, kind, None) for kind in KINDS}


class Page(HTMLParser):
    """Checks that every element is closed in its turn, and collects tables and references."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_shows_net_moved_crops_and_constant_predictor_side_by_side(
    kind: str, reports: dict[str, Report]
) -> None:
    report = reports[kind]
    assert report.boxes is not None
    lines = format_report(report).splitlines()
    columns = (report.net, report.jittered, report.boxes["metrics"], report.constant)
    last = TARGETS[kind][-1]
    line = next(line for line in lines if line.startswith(last.label))
    words = [word for word in line.split() if "[" not in word and "]" not in word]
    found = words[len(last.label.split()) :][:4]
    assert found == [f"{metrics[last.metric]:.3f}" for metrics in columns]
    for name in ("jaw", "inner_mouth") if kind == "landmark_pose" else ("AU01", "AU45"):
        assert any(line.startswith(name) for line in lines)
    assert all(len(line) <= 160 for line in lines if not line.startswith(("worst", "yunet boxes")))


def test_the_text_says_which_targets_fail(reports: dict[str, Report]) -> None:
    lines = format_report(reports["landmark_pose"]).splitlines()
    assert next(line for line in lines if line.startswith("landmark MAE")).endswith("pass (must)")
    assert next(line for line in lines if "the same, jittered" in line).endswith("FAIL")


def test_the_text_says_how_sure_it_is_and_where_boxes_are_from(reports: dict[str, Report]) -> None:
    text = format_report(reports["au_prediction"])
    assert "120 faces of 30 subjects" in text
    assert "95 % of 2000 resamples of the subjects" in text
    assert "yunet boxes: simulated" in text
    assert "the file's boxes were made from the labels" in text


@pytest.mark.parametrize("kind", KINDS)
def test_text_page_and_picture_say_how_many_faces_were_left_out(
    kind: str,
    partial_reports: dict[str, Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    titles: list[str] = []
    monkeypatch.setattr(matplotlib.Figure, "suptitle", lambda figure, text: titles.append(text))
    report = partial_reports[kind]
    told = "7 faces of 3 subjects; 8 of the file's 15 faces LEFT OUT"
    lines = format_report(report).splitlines()
    assert lines[0] == told
    assert any(line.startswith("left out: ") and "--keep-outside" in line for line in lines)
    picture = draw_report(report, tmp_path / "picture.png")
    assert titles == [told]
    write_page(report, "title", tmp_path / "page.html", picture)
    assert "7 faces of 3 subjects; 8 of the file&#x27;s 15" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_one_face_is_shown_without_figures(
    kind: str, partial_reports: dict[str, Report], tmp_path: Path
) -> None:
    report = partial_reports[kind]
    lines = format_report(report).splitlines()
    row = next(line for line in lines if line.startswith("yaw 10 to 20 degrees")).split()
    assert row[5:7] == ["1", "1"]  # faces, people
    assert set(row[7:]) == {"-"}
    write_page(report, "title", tmp_path / "page.html", None)
    cells = Page((tmp_path / "page.html").read_text("utf-8")).cells
    place = cells.index("yaw 10 to 20 degrees")
    assert cells[place + 1 : place + 4] == ["1", "1", "-"]


def test_the_picture_has_a_place_for_a_part_of_one_face(
    partial_reports: dict[str, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    drawn: list[Any] = []
    savefig = matplotlib.Figure.savefig
    monkeypatch.setattr(
        matplotlib.Figure,
        "savefig",
        lambda figure, *args, **kwargs: (drawn.append(figure), savefig(figure, *args, **kwargs)),
    )
    report = partial_reports["landmark_pose"]
    assert [row["faces"] for row in report.breakdown] == [6, 1]
    draw_report(report, tmp_path / "picture.png")
    axes = drawn[0].axes[-1]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["0 to 10°\n6 faces", "10 to 20°\n1 face"]
    left, right = axes.get_xlim()
    assert all(left < place < right for place in axes.get_xticks())


def test_the_constant_predictor_on_moved_crops_is_shown(
    reports: dict[str, Report], tmp_path: Path
) -> None:
    report = reports["landmark_pose"]
    lines = [line.split() for line in format_report(report).splitlines()]
    heading = next(i for i, words in enumerate(lines) if words[:2] == ["constant,", "moved"])
    assert lines[heading][3:] == ["MAE", "px", "pitch", "yaw", "roll", "mean"]
    write_page(report, "title", tmp_path / "page.html", None)
    cells = Page((tmp_path / "page.html").read_text("utf-8")).cells
    start = next(i for i in range(len(cells)) if cells[i : i + 2] == ["MAE px", "pitch"]) + 5
    for row, (name, key) in enumerate((("jittered", "jittered"), ("yunet boxes", "boxes"))):
        figures = report.constant_moved[key]
        expected = [f"{value:.2f}" for value in (figures["mae"], *figures["pose"].values())]
        assert lines[heading + 1 + row] == [*name.split(), *expected]
        assert cells[start + 6 * row : start + 6 * row + 6] == [name, *expected]


def test_a_file_the_net_was_trained_on_is_named_as_such(tmp_path: Path) -> None:
    dataset = FaceDataset(write_faces(tmp_path / "faces.h5", people=4))
    report = evaluate(
        Oracle(dataset), dataset, "au_prediction", None, boxes="none", trained_on=[dataset.hash]
    )
    text = format_report(report)
    assert "THE NET WAS TRAINED ON FACES OF THIS FILE" in text
    assert "records no training means" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_whole_and_tells_what_the_report_does(
    kind: str, reports: dict[str, Report], tmp_path: Path
) -> None:
    report, path = reports[kind], tmp_path / "page.html"
    picture = draw_report(report, tmp_path / "picture.png")
    write_page(report, "a < b on faces.h5", path, picture)
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    assert len(page.references) == 1
    assert page.references[0].startswith("data:image/png;base64,")
    assert "a &lt; b" in path.read_text("utf-8")
    for target in TARGETS[kind]:
        row = page.cells.index(target.label.strip())
        assert page.cells[row + 1].startswith(f"{report.net[target.metric]:.3f}")
    if kind == "au_prediction":
        row = page.cells.index("AU12 Lip Corner Puller")
        assert page.cells[row + 4].startswith(f"{report.net['aus']['AU12_r']['mae']:.3f}")
    else:
        row = page.cells.index("yaw")
        assert page.cells[row + 1].startswith(f"{report.net['pose']['yaw']:.2f}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_has_four_panels_with_something_in_each(
    kind: str, reports: dict[str, Report], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = draw_report(reports[kind], tmp_path / "picture.png")
    assert path is not None
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    for top in (0, height // 2):
        for left in (0, width // 2):
            panel = image[top : top + height // 2, left : left + width // 2]
            blue = np.abs(panel.astype(int) - (178, 114, 0)).sum(-1) < 12  # the net's colour, BGR
            assert blue.sum() > 200


def test_without_a_picture_the_page_is_still_written(
    reports: dict[str, Report], tmp_path: Path
) -> None:
    write_page(reports["au_prediction"], "title", tmp_path / "page.html", None)
    assert Page((tmp_path / "page.html").read_text("utf-8")).references == []
