"""Auxiliary answers of a batch, and what mirrored faces are said to show."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.core.metrics import pearson
from mlx_faceau.core.pdm import fit_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.train.config import AUTrainConfig
from mlx_faceau.train.datasets import (
    AuxiliaryTargets,
    FaceTargets,
    auxiliary_targets,
    keep_labels,
    open_data,
)
from mlx_faceau.train.target_statistics import TargetStatistics

COUNT = 400
TURNED = slice(0, None, 2)  # rows of the batch that are mirrored
PLAIN = slice(1, None, 2)


def labels() -> dict[str, np.ndarray]:
    """Of a data set in reverse order, every other face mirrored."""
    rng = np.random.default_rng(0)
    mask = np.ones(COUNT, np.float32)
    mask[TURNED] = 0
    return {
        "landmarks": rng.normal(50, 9, (COUNT, 68, 2)).astype(np.float32),
        "local_params": rng.normal(2, 5, (COUNT, 34)).astype(np.float32),
        "au_intensities": rng.uniform(0, 5, (COUNT, 17)).astype(np.float32),
        "global_mask": np.ones(COUNT, np.float32),
        "local_mask": mask,
        "index": np.arange(COUNT)[::-1],
    }


def some_answers(seed: int) -> np.ndarray:
    answers = np.random.default_rng(seed).normal(size=(COUNT, 17 + 256)).astype(np.float32)
    return (answers - answers.mean(axis=0)) / answers.std(axis=0)


@pytest.fixture
def auxiliary() -> AuxiliaryTargets:
    """Of a data set whose mirrored faces keep their intensities."""
    batch = labels()
    known = {name: batch[name] for name in ("landmarks", "local_params")}
    statistics = TargetStatistics.of(known, {})
    own = FaceTargets(batch["au_intensities"][::-1], batch["local_params"][::-1], some_answers(1))
    return AuxiliaryTargets(own, keep_labels(own), np.linspace(2, 0.1, 17 + 256), statistics)


def answered(auxiliary: AuxiliaryTargets, batch: dict[str, np.ndarray] | None = None) -> np.ndarray:
    return auxiliary.add_to(labels() if batch is None else batch)["auxiliary"]


def test_each_kind_of_answer_costs_a_constant_predictor_a_quarter(
    auxiliary: AuxiliaryTargets,
) -> None:
    answers = answered(auxiliary)
    assert answers.shape == (COUNT, 443)
    assert answers.dtype == np.float32
    cost = np.nanmean(np.square(answers, dtype=np.float64), axis=0)
    for part in np.split(cost, [136, 170, 187]):
        assert part.sum() == pytest.approx(0.25, rel=0.02)


def test_answers_belong_to_the_batch_s_faces(auxiliary: AuxiliaryTargets) -> None:
    batch = labels()
    scores = answered(auxiliary, batch)[:, 170:187] * np.sqrt(17 * 4)
    np.testing.assert_allclose(scores, auxiliary.faces.features[::-1, :17], rtol=1e-5)
    moved = {**batch, "landmarks": batch["landmarks"] + np.float32(3)}
    shift = (answered(auxiliary, moved) - answered(auxiliary, batch))[:, :136] * np.sqrt(136 * 4)
    expected = 3 / auxiliary.statistics.deviations["landmarks"].reshape(-1)
    np.testing.assert_allclose(shift, np.tile(expected, (COUNT, 1)), rtol=1e-3)


def test_a_mirrored_face_that_keeps_its_labels_has_no_shape_parameters_and_no_components(
    auxiliary: AuxiliaryTargets,
) -> None:
    answers = answered(auxiliary)
    assert np.isnan(answers[TURNED, 136:170]).all()
    assert np.isnan(answers[TURNED, 187:]).all()
    assert np.isfinite(answers[TURNED, :136]).all()
    assert np.isfinite(answers[TURNED, 170:187]).all()
    assert np.isfinite(answers[PLAIN]).all()
    np.testing.assert_array_equal(
        auxiliary.add_to(labels())["au_intensities"], labels()["au_intensities"]
    )


def test_a_relabelled_mirrored_face_has_answers_of_its_own(auxiliary: AuxiliaryTargets) -> None:
    rng = np.random.default_rng(3)
    other = FaceTargets(
        rng.uniform(0, 5, (COUNT, 17)).astype(np.float32),
        rng.normal(2, 5, (COUNT, 34)).astype(np.float32),
        some_answers(2),
    )
    relabelled = replace(auxiliary, mirrored=other)
    batch = relabelled.add_to(labels())
    np.testing.assert_array_equal(batch["au_intensities"][TURNED], other.intensities[::-1][TURNED])
    np.testing.assert_array_equal(batch["au_intensities"][PLAIN], labels()["au_intensities"][PLAIN])
    as_if_plain = replace(auxiliary, faces=other, mirrored=None)
    np.testing.assert_array_equal(batch["auxiliary"][TURNED], answered(as_if_plain)[TURNED])
    np.testing.assert_array_equal(batch["auxiliary"][PLAIN], answered(auxiliary)[PLAIN])


def test_larger_components_count_more(auxiliary: AuxiliaryTargets) -> None:
    answers = answered(auxiliary)[PLAIN, 187:]
    expected = np.sqrt(auxiliary.deviations[17:] / auxiliary.deviations[17:].sum() / 4)
    rows = auxiliary.faces.features[::-1][PLAIN, 17:]
    np.testing.assert_allclose(answers, rows * expected, rtol=1e-4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.h5"
    write_synthetic(path, 240, seed=3)
    return path


@pytest.fixture(scope="module")
def faces(path: Path) -> FaceDataset:
    return FaceDataset(path)


@pytest.fixture(scope="module")
def au_models(faces: FaceDataset) -> OpenFaceAUModels:
    return OpenFaceAUModels.fit(faces, np.arange(len(faces)))


def test_mirror_images_of_symmetric_people_show_what_the_people_show(
    faces: FaceDataset, au_models: OpenFaceAUModels
) -> None:
    statistics = TargetStatistics.of(faces.labels, faces.masks)
    rows = np.arange(240)
    found = auxiliary_targets(au_models, faces, rows, statistics, mirror=0.5, relabel=True).mirrored
    assert found is not None
    own = faces.labels["au_intensities"]
    assert np.nanmean(pearson(own, found.intensities)) > 0.95
    assert np.abs(found.intensities.mean(axis=0) - own.mean(axis=0)).max() < 0.1
    for row in range(0, 240, 40):
        points = faces.labels["landmarks"][row]
        unmirrored = fit_pdm(au_models.pdm, points, noise=0.2).local_params
        np.testing.assert_allclose(found.shape[row], unmirrored, atol=0.3)


def test_the_models_is_asked_about_mirrored_pixels_landmarks_and_shapes(
    faces: FaceDataset, au_models: OpenFaceAUModels
) -> None:
    """As it is about a data set of mirrored people; their shape model is symmetric."""
    rows = np.arange(0, 240, 9)
    pose = faces.labels["global_params"][rows] * np.float32([1, 1, -1, -1, -1, 1])
    points = faces.labels["landmarks"][rows][:, MIRROR] * np.float32([-1, 1])
    labels = {
        "landmarks": points + np.float32([111, 0]),
        "global_params": pose + np.float32([0, 0, 0, 0, 111, 0]),
        "local_params": faces.labels["local_params"][rows],
        "au_intensities": np.zeros((len(rows), 17), np.float32),
    }
    pictures = faces.read_images(rows)[:, :, ::-1]
    mirrored = SimpleNamespace(
        labels=labels,
        masks={"global_mask": np.ones(len(rows), np.float32)},
        read_images=lambda indices: np.ascontiguousarray(pictures[indices]),
    )
    expected = au_models.targets(mirrored, np.arange(len(rows)))
    found = au_models.mirrored_targets(faces, rows)
    assert found.targets.dtype == found.local_params.dtype == np.float32
    large = slice(17, 60)  # 240 faces do not vary in all components
    assert np.abs(found.targets - expected)[:, large].mean() < 0.05
    least = -au_models.means[:17] / au_models.deviations[:17]  # nothing of a unit is seen
    np.testing.assert_allclose(np.minimum(found.targets[:, :17], least), expected[:, :17], atol=0.1)
    assert np.abs(found.targets - au_models.targets(faces, rows))[:, large].mean() > 0.3


def test_faces_that_are_not_asked_about_have_no_answers(
    faces: FaceDataset, au_models: OpenFaceAUModels
) -> None:
    rows = np.arange(0, 240, 9)
    statistics = TargetStatistics.of(faces.labels, faces.masks)
    found = auxiliary_targets(au_models, faces, rows, statistics, mirror=0.5, relabel=True).mirrored
    assert found is not None
    others = np.setdiff1d(np.arange(240), rows)
    assert np.isnan(found.features[others]).all()
    assert np.isnan(found.shape[others]).all()
    np.testing.assert_array_equal(found.intensities[others], faces.labels["au_intensities"][others])
    assert np.isfinite(found.features[rows]).all()


def test_the_models_intensities_are_cut_off_as_labels_are(
    faces: FaceDataset, au_models: OpenFaceAUModels
) -> None:
    rows = np.arange(240)
    found = au_models.intensities(au_models.targets(faces, rows))
    np.testing.assert_allclose(found, faces.labels["au_intensities"], atol=1e-4)


def test_a_face_without_pose_keeps_its_intensities_when_it_is_mirrored(
    path: Path, au_models: OpenFaceAUModels
) -> None:
    faces = FaceDataset(path)
    faces.masks["global_mask"][[4, 6]] = 0
    statistics = TargetStatistics.of(faces.labels, faces.masks)
    found = auxiliary_targets(
        au_models, faces, np.arange(8), statistics, 0.5, relabel=True
    ).mirrored
    assert found is not None
    assert np.isnan(found.features[[4, 6]]).all()
    own = faces.labels["au_intensities"]
    np.testing.assert_array_equal(found.intensities[[4, 6]], own[[4, 6]])
    assert np.abs(found.intensities[[3, 5]] - own[[3, 5]]).max() > 0.01


def test_a_training_shows_mirrored_faces_with_the_intensities_asked_for(
    path: Path, au_models: OpenFaceAUModels
) -> None:
    config = AUTrainConfig(
        data=str(path), batch_size=20, val_split=0.1, auxiliary_weight=4.0, horizontal_flip=0.5
    )
    relabelling = replace(config, relabel_flipped=True)
    kept, relabelled = (
        open_data(asked, au_models=au_models).batches.epoch(0) for asked in (config, relabelling)
    )
    for own, other in zip(kept, relabelled, strict=True):
        np.testing.assert_array_equal(own["images"], other["images"])
        turned = own["local_mask"] == 0
        assert turned.any()
        differs = np.abs(own["au_intensities"] - other["au_intensities"]).max(axis=1)
        assert (differs[turned] > 0).mean() > 0.7  # nothing to see in a face at rest
        assert (differs[~turned] == 0).all()
        assert np.isfinite(other["auxiliary"]).all()
        assert np.isnan(own["auxiliary"][turned]).any(axis=1).all()


def test_a_resumed_training_and_one_with_files_of_its_own_relabel_alike(
    path: Path, au_models: OpenFaceAUModels, tmp_path: Path
) -> None:
    """The second file's faces, to validate on, have rows after the first one's."""
    write_synthetic(tmp_path / "others.h5", 20, seed=9)
    config = AUTrainConfig(
        data=str(path),
        val_data=str(tmp_path / "others.h5"),
        batch_size=20,
        auxiliary_weight=4.0,
        horizontal_flip=0.5,
        relabel_flipped=True,
    )
    again = OpenFaceAUModels.from_arrays(
        {name: array.copy() for name, array in au_models.arrays().items()}
    )
    first, second = (next(open_data(config, au_models=t).batches.epoch(0)) for t in (None, again))
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)
    turned = first["local_mask"] == 0
    own = FaceDataset(path).labels["au_intensities"][first["index"]]
    np.testing.assert_array_equal(first["au_intensities"][~turned], own[~turned])
    assert np.abs(first["au_intensities"][turned] - own[turned]).max() > 0.01


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"horizontal_flip": 0.5}, "needs --horizontal-flip and --auxiliary-weight above 0"),
        ({"auxiliary_weight": 4.0}, "needs --horizontal-flip and --auxiliary-weight above 0"),
        (
            {"auxiliary_weight": 4.0, "horizontal_flip": 0.5, "augment": "none"},
            "--augment none mirror no",
        ),
        (
            {"auxiliary_weight": 4.0, "horizontal_flip": 0.5, "overfit": 4},
            "--overfit and .* mirror no face",
        ),
    ],
)
def test_relabelling_needs_mirrored_faces_and_linear_models(given: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        AUTrainConfig(data="faces.h5", relabel_flipped=True, **given)
