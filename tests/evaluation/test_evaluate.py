"""Evaluation with predictors whose quality is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from labelled_faces import EACH, PEOPLE, Oracle, write_faces

from mlx_faceau.data.hdf5 import FaceDataset
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.evaluation.evaluate import evaluate
from mlx_faceau.evaluation.targets import TARGETS
from mlx_faceau.metrics import nme
from mlx_faceau.train.targets import TargetStatistics

KINDS = ["landmark_pose", "au_prediction"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FaceDataset:
    return FaceDataset(write_faces(tmp_path_factory.mktemp("faces") / "faces.h5"))


@pytest.fixture(scope="module")
def statistics(dataset: FaceDataset) -> TargetStatistics:
    return TargetStatistics.of(dataset.labels, dataset.masks)


def test_a_perfect_landmark_net_reaches_every_aim_and_the_constant_one_none(
    dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(Oracle(dataset), dataset, "landmark_pose", statistics)
    assert report.net["correlation_without_mean"] == pytest.approx(1.0)
    assert report.net["mae"] == 0.0
    assert report.net["failure_rate_8"] == 0.0
    assert report.net["auc_8"] == 1.0
    assert report.constant["correlation_without_mean"] == 0.0
    assert report.constant["mae"] > 2.0
    assert report.means_from == "training"
    grades = report.grades()
    assert {grades[t.metric] for t in TARGETS["landmark_pose"]} == {"aim"}
    # The oracle does not know moved crops, so one target is missed and the whole not passed.
    assert grades["mae_jittered"] == "missed"
    assert not report.passed


def test_a_perfect_au_net_reaches_every_aim(
    dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(Oracle(dataset), dataset, "au_prediction", statistics)
    assert set(report.grades().values()) == {"aim"}
    assert report.passed
    assert report.constant["correlation"] == 0.0
    assert report.constant["aus"]["AU01_r"]["mae"] > 0.5


def test_without_training_means_the_faces_own_stand_in(dataset: FaceDataset) -> None:
    assert evaluate(Oracle(dataset), dataset, "au_prediction", None).means_from == "evaluation"


def test_a_net_never_passes_on_the_file_it_was_trained_on(
    dataset: FaceDataset, statistics: TargetStatistics
) -> None:
    report = evaluate(
        Oracle(dataset), dataset, "au_prediction", statistics, trained_on=[dataset.hash]
    )
    assert report.trained_on
    assert set(report.grades().values()) == {"aim"}
    assert not report.passed


def test_a_correlation_that_no_action_unit_supports_is_not_passed(tmp_path: Path) -> None:
    few = FaceDataset(write_faces(tmp_path / "few.h5", people=5, each=2))
    report = evaluate(Oracle(few), few, "au_prediction", None)
    assert math.isnan(report.net["correlation"])
    assert report.grades() == {"correlation": "unmeasured", "mae": "aim"}
    assert not report.passed


def test_people_are_counted_by_subject(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset), dataset, "au_prediction", None)
    assert (report.faces, report.people, report.people_by) == (PEOPLE * EACH, PEOPLE, "subject")


def test_the_breakdown_by_yaw_holds_each_face_once_and_its_own_error(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset, landmark_error=1.5), dataset, "landmark_pose", None)
    rows = {row["part"]: row for row in report.breakdown if row["by"] == "yaw"}
    # Yaw is 0, 13.3, 26.7 and 40 degrees, one of each a person.
    assert list(rows) == ["0 to 10 degrees", "10 to 20 degrees", "20 to 30 degrees",
                          "30 to 45 degrees"]  # fmt: skip
    for row in rows.values():
        assert (row["faces"], row["people"]) == (PEOPLE, PEOPLE)
        assert row["mae"] == pytest.approx(1.5, abs=1e-5)


def test_the_breakdown_names_the_files_groups(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = np.array(["studio", "street"], object)[np.arange(len(dataset)) % 2]
    monkeypatch.setattr(dataset, "groups", groups)
    oracle = Oracle(dataset)
    oracle.labels["au_intensities"][groups == "street"] += 0.7
    report = evaluate(oracle, dataset, "au_prediction", None)
    rows = {row["part"]: row for row in report.breakdown if row["by"] == "group"}
    assert rows["studio"]["mae"] == 0.0
    assert rows["street"]["mae"] == pytest.approx(0.7, abs=1e-5)


def test_the_error_curve_is_the_share_of_faces_below_each_bound(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset, landmark_error=2.0), dataset, "landmark_pose", None)
    errors = nme(dataset.labels["landmarks"], dataset.labels["landmarks"] + np.float32(2.0))
    bound = report.curves["nme"][35]
    assert 0.1 < report.curves["net"][35] < 0.9  # the bound tells faces apart
    assert report.curves["net"][35] == np.mean(errors <= bound)


def test_the_answers_to_each_true_intensity_are_averaged(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset, au_error=0.25), dataset, "au_prediction", None)
    curve = report.curves["AU12_r"]
    truth = dataset.labels["au_intensities"][:, 8]
    near_two = (truth >= 1.5) & (truth < 2.5)
    assert curve["count"][2] == near_two.sum()
    assert curve["mean"][2] == pytest.approx(truth[near_two].mean() + 0.25, abs=1e-5)
    assert curve["count"][5] == 0
    assert math.isnan(curve["mean"][5])


def test_the_worst_faces_are_named_by_their_row(dataset: FaceDataset) -> None:
    oracle = Oracle(dataset)
    oracle.labels["landmarks"][[17, 60]] += np.float32([[[3.0]], [[5.0]]])
    worst = evaluate(oracle, dataset, "landmark_pose", None).worst
    assert [face["row"] for face in worst[:2]] == [60, 17]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_not_a_number_is_refused_with_its_row(
    kind: str, dataset: FaceDataset
) -> None:
    oracle = Oracle(dataset)
    for values in oracle.labels.values():
        values[7] = np.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinity for 1 of 120 .*row 7"):
        evaluate(oracle, dataset, kind, None)


def test_a_single_face_is_refused(tmp_path: Path) -> None:
    single = FaceDataset(write_faces(tmp_path / "one.h5", people=1, each=1))
    with pytest.raises(DatasetError, match="two or more"):
        evaluate(Oracle(single), single, "au_prediction", None)


def test_a_face_whose_eyes_are_in_one_place_is_refused_with_its_row(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = dataset.labels["landmarks"].copy()
    flat[5] = 50.0
    monkeypatch.setitem(dataset.labels, "landmarks", flat)
    with pytest.raises(DatasetError, match=r"in 1 of 120 faces \(first in row 5\)"):
        evaluate(Oracle(dataset), dataset, "landmark_pose", None)


def test_a_file_without_known_pose_is_evaluated_without_it(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown: dict[str, Any] = {**dataset.masks, "global_mask": np.zeros(len(dataset))}
    monkeypatch.setattr(dataset, "masks", unknown)
    report = evaluate(Oracle(dataset), dataset, "landmark_pose", None)
    assert report.net["pose"] == {}
    assert report.intervals["pose"] == {}
    assert [row["part"] for row in report.breakdown] == ["unknown"]
