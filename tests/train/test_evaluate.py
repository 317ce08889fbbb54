"""Evaluation with predictors whose quality is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.train.evaluate import TARGETS, evaluate
from mlx_faceau.train.report import format_report
from mlx_faceau.train.targets import TargetStatistics


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return FaceDataset(write_faces(tmp_path_factory.mktemp("faces") / "faces.h5", 30, 4))


@pytest.fixture
def statistics(dataset: FaceDataset) -> TargetStatistics:
    return TargetStatistics.of(dataset.labels, dataset.masks)


class Oracle:
    """Knows the labels of the images it is shown, jittered ones excepted: those it repeats."""

    def __init__(self, dataset: FaceDataset) -> None:
        self.labels = dataset.labels
        images = dataset.read_images(np.arange(len(dataset)))
        self.rows = {image.tobytes(): row for row, image in enumerate(images)}

    def __call__(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [self.rows.get(image.tobytes(), 0) for image in images]
        return {name: values[rows] for name, values in self.labels.items()}


def test_a_perfect_landmark_net_reaches_every_aim_and_the_constant_one_none(
    dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(Oracle(dataset), dataset, "landmark_pose", statistics)
    assert report.net["correlation_without_mean"] == pytest.approx(1.0)
    assert report.net["mae"] == 0.0
    assert report.constant["correlation_without_mean"] == 0.0
    assert report.constant["mae"] > 2.0
    assert report.means_from == "training"
    grades = report.grades()
    assert {grades[t.metric] for t in TARGETS["landmark_pose"]} == {"aim"}
    assert grades["mae_jittered"] == "missed"


def test_a_perfect_au_net_reaches_every_aim_on_jittered_crops_the_labels_stay(
    dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(Oracle(dataset), dataset, "au_prediction", statistics)
    assert set(report.grades().values()) == {"aim"}
    assert report.constant["correlation"] == 0.0
    assert report.constant["aus"]["AU01_r"]["mae"] > 0.5


def test_without_training_means_the_faces_own_stand_in_and_the_text_says_so(
    dataset: FaceDataset,
) -> None:
    report = evaluate(Oracle(dataset), dataset, "au_prediction", None)
    assert report.means_from == "evaluation"
    assert "records no training means" in format_report(report)


@pytest.mark.parametrize("kind", ["landmark_pose", "au_prediction"])
def test_the_text_shows_net_and_constant_predictor_side_by_side(
    kind: str, dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(Oracle(dataset), dataset, kind, statistics)
    text = format_report(report)
    last = TARGETS[kind][-1]
    line = next(line for line in text.splitlines() if line.startswith(last.label))
    assert line.split()[-8:-5] == [
        f"{metrics[last.metric]:.3f}" for metrics in (report.net, report.jittered, report.constant)
    ]
    for name in ("jaw", "inner_mouth") if kind == "landmark_pose" else ("AU01", "AU45"):
        assert any(line.startswith(name) for line in text.splitlines())


def test_a_file_without_known_pose_is_evaluated_without_it(
    dataset: FaceDataset, statistics: TargetStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown: dict[str, Any] = {**dataset.masks, "global_mask": np.zeros(len(dataset))}
    monkeypatch.setattr(dataset, "masks", unknown)
    report = evaluate(Oracle(dataset), dataset, "landmark_pose", statistics)
    assert report.net["pose"] == {}
    assert "pose error" in format_report(report)
