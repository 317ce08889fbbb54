"""Tables of an evaluation, and the text, page and picture made of them."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from labelled_faces import Oracle, move_every_second_outside, write_faces

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import GENERATION
from mlx_faceau.evaluation.evaluate import TARGETS, Evaluation, evaluate
from mlx_faceau.evaluation.report import as_text, draw_evaluation, tables, write_report
from mlx_faceau.train.target_statistics import TargetStatistics

KINDS = ["landmark_pose", "au_prediction"]


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    dataset = FaceDataset(write_faces(tmp_path_factory.mktemp("faces") / "faces.h5"))
    statistics = TargetStatistics.of(dataset.labels, dataset.masks)
    oracle = Oracle(dataset, landmark_error=1.25, au_error=0.375)
    return {kind: evaluate(oracle, dataset, kind, statistics) for kind in KINDS}


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    """Of a file half of whose faces are left out; one of the others is alone in its part."""
    path = write_faces(tmp_path_factory.mktemp("faces") / "faces.h5", people=3, each=5)
    dataset = FaceDataset(move_every_second_outside(path))
    dataset.labels["global_params"][:, 2] = 0.0
    dataset.labels["global_params"][0, 2] = 0.3
    oracle = Oracle(dataset, landmark_error=1.25, au_error=0.375)
    return {kind: evaluate(oracle, dataset, kind, None) for kind in KINDS}


def rows_of(evaluation: Evaluation) -> dict[tuple[str, str], dict[str, str]]:
    """Every row's cells by column: table's first heading and row's label -> cells."""
    return {
        (table.columns[0], row[0]): dict(zip(table.columns[1:], row[1:], strict=True))
        for table in tables(evaluation)
        for row in table.rows
    }


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
def test_targets_are_shown_for_net_moved_crops_and_constant_predictor(
    kind: str, evaluations: dict[str, Evaluation]
) -> None:
    evaluation = evaluations[kind]
    assert evaluation.boxes is not None
    columns = {
        "net": evaluation.net,
        "jittered": evaluation.jittered,
        "yunet boxes": evaluation.boxes["metrics"],
        "constant": evaluation.constant,
    }
    for target in TARGETS[kind]:
        row = rows_of(evaluation)["target", target.label]
        for name, metrics in columns.items():
            assert row[name].split()[0] == f"{metrics[target.metric]:.3f}"
        assert "[" in row["net"]


def test_the_verdicts_follow_the_targets(evaluations: dict[str, Evaluation]) -> None:
    rows = rows_of(evaluations["landmark_pose"])
    assert rows["target", "landmark MAE, px"]["verdict"] == "pass (must)"
    assert rows["target", "landmark MAE, jittered"]["verdict"] == "FAIL"


def test_the_text_is_aligned_and_says_where_intervals_and_boxes_are_from(
    evaluations: dict[str, Evaluation],
) -> None:
    text = as_text(evaluations["au_prediction"])
    assert "120 faces of 30 subjects" in text
    assert "95 % bootstrap confidence intervals (2000 resamples of the subjects)" in text
    assert "yunet boxes: simulated" in text
    assert "the file's boxes were made from the labels" in text
    block = text.split("\n\n")[2].splitlines()
    assert block[0].startswith("action unit ")
    assert len(block) == 18
    ends = {line.rstrip().rfind("  ") for line in block if not line.endswith("(few)")}
    assert len({len(line) for line in block}) == 1 or len(ends) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_text_page_and_picture_say_how_many_faces_were_left_out(
    kind: str,
    partial: dict[str, Evaluation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    titles: list[str] = []
    monkeypatch.setattr(matplotlib.Figure, "suptitle", lambda figure, text: titles.append(text))
    evaluation = partial[kind]
    expected = "7 faces of 3 subjects; 8 of the file's 15 faces LEFT OUT"
    lines = as_text(evaluation).splitlines()
    assert lines[0] == expected
    assert any(line.startswith("left out: ") and "--keep-outside" in line for line in lines)
    picture = draw_evaluation(evaluation, tmp_path / "picture.png")
    assert titles == [expected]
    write_report(evaluation, "title", tmp_path / "page.html", picture)
    assert "7 faces of 3 subjects; 8 of the file&#39;s 15" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_one_face_is_shown_without_figures(
    kind: str, partial: dict[str, Evaluation]
) -> None:
    row = list(rows_of(partial[kind])["part of the faces", "yaw 10 to 20 degrees"].values())
    assert row[:2] == ["1", "1"]  # faces, subjects
    assert set(row[2:]) == {"-"}


def test_a_file_the_net_was_trained_on_is_named_as_such(tmp_path: Path) -> None:
    dataset = FaceDataset(write_faces(tmp_path / "faces.h5", people=4))
    evaluation = evaluate(
        Oracle(dataset), dataset, "au_prediction", None, boxes="none", trained_on=[dataset.hash]
    )
    text = as_text(evaluation)
    assert "THE NET WAS TRAINED ON FACES OF THIS FILE" in text
    assert "records no training means" in text


@pytest.mark.parametrize(
    ("net", "differs"),
    [
        ({"name": "open", "hash": "ab"}, True),
        ({"name": "openface", "hash": "cd"}, False),  # the labels' hash is not known
        (None, False),
    ],
)
def test_labels_of_another_pdm_are_named_as_such(
    net: dict[str, str] | None, differs: bool, tmp_path: Path
) -> None:
    dataset = FaceDataset(write_faces(tmp_path / "faces.h5", people=4))
    pdm = {"name": "openface", "hash": ""}
    report = {"video": "a.mp4", "kept": 1, "labeller": "openface-csv", "pdm": pdm}
    with h5py.File(dataset.path, "a") as file:
        file[GENERATION] = json.dumps([report])
    evaluation = evaluate(Oracle(dataset), dataset, "landmark_pose", None, boxes="none", pdm=net)
    assert ("the labels' PDM (openface) is not the net's" in as_text(evaluation)) == differs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", [True, False])
def test_the_page_is_well_formed_needs_no_other_file_and_shows_every_cell(
    kind: str, drawn: bool, evaluations: dict[str, Evaluation], tmp_path: Path
) -> None:
    evaluation, path = evaluations[kind], tmp_path / "page.html"
    picture = draw_evaluation(evaluation, tmp_path / "picture.png") if drawn else None
    write_report(evaluation, "a < b on faces.h5", path, picture)
    page = Page(path.read_text("utf-8"))
    assert page.open == []
    assert len(page.references) == drawn
    assert all(text.startswith("data:image/png;base64,") for text in page.references)
    assert "a &lt; b" in path.read_text("utf-8")
    expected = [c for table in tables(evaluation) for r in [table.columns, *table.rows] for c in r]
    assert page.cells == expected


def test_an_undefined_correlation_is_not_drawn(
    evaluations: dict[str, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = pytest.importorskip("matplotlib.axes")
    drawn: dict[str, np.ndarray] = {}
    plot = axes.Axes.plot

    def record(self: Any, *args: Any, label: str = "", **options: Any) -> Any:
        drawn[label] = args[1]
        return plot(self, *args, label=label, **options)

    monkeypatch.setattr(axes.Axes, "plot", record)
    evaluation = evaluations["au_prediction"]
    aus = {name: {**figures, "r": 0.5} for name, figures in evaluation.jittered["aus"].items()}
    aus["AU01_r"]["r"] = float("nan")
    jittered = {**evaluation.jittered, "aus": aus}
    draw_evaluation(replace(evaluation, jittered=jittered), tmp_path / "picture.png")
    np.testing.assert_array_equal(drawn["jittered"], [np.nan, *[0.5] * 16])


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_has_two_panels_with_something_in_each(
    kind: str, evaluations: dict[str, Evaluation], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = draw_evaluation(evaluations[kind], tmp_path / "picture.png")
    assert path is not None
    image = cv2.imread(str(path))
    for panel in np.array_split(image, 2, axis=1):
        blue = np.abs(panel.astype(int) - (178, 114, 0)).sum(-1) < 12  # the net's colour, BGR
        assert blue.sum() > 150
