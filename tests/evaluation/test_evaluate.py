"""Evaluation with predictors whose quality is known."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from labelled_faces import EACH, PEOPLE, Oracle, move_every_second_outside, write_faces

from mlx_faceau.core.metrics import nme
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import CheckpointError, DatasetError
from mlx_faceau.evaluation.crops import jitter_matrices, warp_images
from mlx_faceau.evaluation.evaluate import JITTER_SEED, TARGETS, evaluate
from mlx_faceau.train.target_statistics import TargetStatistics

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


@pytest.mark.parametrize("trained_with", [False, True])
def test_a_net_s_own_file_is_recognised_whatever_became_of_faces_outside_the_crop(
    trained_with: bool, tmp_path: Path
) -> None:
    path = move_every_second_outside(write_faces(tmp_path / "faces.h5", people=4))
    trained_on = [FaceDataset(path, keep_outside=trained_with).hash]
    for keep_outside in (False, True):
        faces = FaceDataset(path, keep_outside)
        report = evaluate(Oracle(faces), faces, "au_prediction", None, trained_on=trained_on)
        assert report.trained_on
    stranger = FaceDataset(write_faces(tmp_path / "other.h5", people=3))
    assert not evaluate(
        Oracle(stranger), stranger, "au_prediction", None, trained_on=trained_on
    ).trained_on


def test_faces_that_the_file_holds_beyond_those_evaluated_are_counted(tmp_path: Path) -> None:
    path = move_every_second_outside(write_faces(tmp_path / "faces.h5", people=4))
    for keep_outside, expected in ((False, (8, 8)), (True, (16, 0))):
        faces = FaceDataset(path, keep_outside)
        report = evaluate(Oracle(faces), faces, "au_prediction", None)
        assert (report.faces, report.left_out) == expected
        assert report.to_json()["left_out"] == report.left_out


def test_a_correlation_that_no_action_unit_supports_is_not_passed(tmp_path: Path) -> None:
    few = FaceDataset(write_faces(tmp_path / "few.h5", people=5, each=2))
    report = evaluate(Oracle(few), few, "au_prediction", None)
    assert math.isnan(report.net["correlation"])
    assert report.grades() == {"correlation": "unmeasured", "mae": "aim"}
    assert not report.passed


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_passes_that_is_no_better_than_the_constant_predictor(
    dataset: FaceDataset, kind: str
) -> None:
    alike = deepcopy(dataset)  # faces so alike that their mean meets the targets
    for name, values in alike.labels.items():
        alike.labels[name] = values.mean(axis=0) + (values - values.mean(axis=0)) / 20
    means = {name: values.mean(axis=0) for name, values in alike.labels.items()}

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.repeat(mean[None], len(images), 0) for name, mean in means.items()}

    report = evaluate(predict, alike, kind, None, boxes="none")
    grades = report.grades()
    assert grades["mae"] == "unbeaten"
    assert {"aim", "must"}.isdisjoint(grades[target.metric] for target in TARGETS[kind])
    assert not report.passed


def test_subjects_are_counted(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset), dataset, "au_prediction", None)
    assert (report.faces, report.subjects, report.subjects_by) == (PEOPLE * EACH, PEOPLE, "subject")


def test_the_breakdown_by_yaw_holds_each_face_once_and_its_own_error(dataset: FaceDataset) -> None:
    report = evaluate(Oracle(dataset, landmark_error=1.5), dataset, "landmark_pose", None)
    rows = {row["part"]: row for row in report.breakdown if row["by"] == "yaw"}
    # Yaw is 0, 13.3, 26.7 and 40 degrees, one of each a person.
    assert list(rows) == ["0 to 10 degrees", "10 to 20 degrees", "20 to 30 degrees",
                          "30 to 45 degrees"]  # fmt: skip
    for row in rows.values():
        assert (row["faces"], row["subjects"]) == (PEOPLE, PEOPLE)
        assert row["mae"] == pytest.approx(1.5, abs=1e-5)


def test_the_breakdown_counts_every_face_even_one_alone_or_turned_all_the_way_round(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = dataset.labels["global_params"].copy()
    params[:, 2] = 0.0
    params[[5, 6, 7], 2] = np.radians([190, -400, 15])
    monkeypatch.setitem(dataset.labels, "global_params", params)
    for kind in KINDS:
        rows = evaluate(Oracle(dataset, 1.5, 0.5), dataset, kind, None).breakdown
        faces = {row["part"]: row["faces"] for row in rows}
        assert faces == {"0 to 10 degrees": 117, "10 to 20 degrees": 1, "over 45 degrees": 2}
        alone = rows[1]
        figures = alone.keys() - {"by", "part", "faces", "subjects"}
        assert figures == rows[0].keys() - {"by", "part", "faces", "subjects"}
        assert all(math.isnan(alone[key]) for key in figures)
        assert rows[2]["mae"] == pytest.approx(1.5 if kind == "landmark_pose" else 0.5, abs=1e-5)


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


def test_the_breakdown_counts_the_units_that_its_mean_correlation_is_of(
    dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = np.array(["studio", "street"], object)[np.arange(len(dataset)) % 2]
    intensities = np.random.default_rng(0).uniform(1.1, 5, (len(dataset), 17)).astype(np.float32)
    intensities[groups == "street", :3] = 2.0  # these three have no correlation there
    monkeypatch.setattr(dataset, "groups", groups)
    monkeypatch.setitem(dataset.labels, "au_intensities", intensities)
    report = evaluate(Oracle(dataset), dataset, "au_prediction", None)
    rows = [row for row in report.breakdown if row["by"] == "group"]
    assert {row["part"]: row["counted"] for row in rows} == {"studio": 17, "street": 14}
    assert [row["correlation"] for row in rows] == [pytest.approx(1.0)] * 2


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
    with pytest.raises(CheckpointError, match=r"NaN or infinite for 1 of 120 .*row 7"):
        evaluate(oracle, dataset, kind, None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_not_a_number_on_moved_crops_is_refused_with_their_name(
    kind: str, dataset: FaceDataset
) -> None:
    oracle = Oracle(dataset)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        known = np.array([image.tobytes() in oracle.rows for image in images])
        answers = {name: values.copy() for name, values in oracle(images).items()}
        for values in answers.values():
            values[~known] = np.nan
        return answers

    with pytest.raises(CheckpointError, match=r"for 120 of 120 jittered crops \(first in row 0"):
        evaluate(predict, dataset, kind, None)
    images = dataset.read_images(np.arange(len(dataset)))
    oracle.learn(warp_images(jitter_matrices(len(dataset), JITTER_SEED), images))
    with pytest.raises(CheckpointError, match=r"for 120 of 120 crops from boxes \(first in row 0"):
        evaluate(predict, dataset, kind, None)


@pytest.mark.parametrize("wrong", [-0.1, 5.5])
def test_intensities_that_are_none_are_refused_where_they_are_what_is_measured(
    wrong: float, dataset: FaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = dataset.labels["au_intensities"].copy()
    units[[3, 9], 4] = wrong
    monkeypatch.setitem(dataset.labels, "au_intensities", units)
    with pytest.raises(DatasetError, match=r"faces\.h5: .* leave \[0, 5\] in 2 of 120 faces"):
        evaluate(Oracle(dataset), dataset, "au_prediction", None)
    assert evaluate(Oracle(dataset), dataset, "landmark_pose", None).net["mae"] == 0.0


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
