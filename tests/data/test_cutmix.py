"""Faces composed of two people's: pixels, landmarks, shapes, and what they are said to show."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import project, similarity_matrix, transform_points
from mlx_faceau.core.metrics import pearson
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.concat_dataset import ConcatDataset
from mlx_faceau.data.loading.cutmix import ComposedFaces, compose, composed_faces
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.errors import DatasetError
from mlx_faceau.train.config import AUTrainConfig
from mlx_faceau.train.datasets import open_data

COUNT, MADE = 240, 120
ROWS = np.arange(0, COUNT, 2)
UPPER_UNITS = [AU_NAMES.index(name) for name in ("AU01_r", "AU02_r", "AU04_r", "AU45_r")]
LOWER_UNITS = [AU_NAMES.index(name) for name in ("AU12_r", "AU15_r", "AU25_r", "AU26_r")]
EYES, MOUTH = np.r_[17:27, 36:48], np.r_[48:68]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.h5"
    write_synthetic(path, COUNT, seed=3)
    return path


@pytest.fixture(scope="module")
def faces(path: Path) -> FaceDataset:
    return FaceDataset(path)


@pytest.fixture(scope="module")
def au_models(faces: FaceDataset) -> OpenFaceAUModels:
    return OpenFaceAUModels.fit(faces, np.arange(COUNT))


@pytest.fixture(scope="module")
def composed(faces: FaceDataset, au_models: OpenFaceAUModels) -> ComposedFaces:
    return composed_faces(faces, faces.subjects, ROWS, au_models, MADE, seed=5)


def picture(faces: FaceDataset, row: int) -> tuple[np.ndarray, np.ndarray]:
    return faces.read_images([row])[0], faces.labels["landmarks"][row]


@pytest.mark.parametrize("row", [0, 37, 101])
def test_a_face_that_was_moved_and_lit_otherwise_completes_itself(
    faces: FaceDataset, row: int
) -> None:
    image, points = picture(faces, row)
    matrix = similarity_matrix(0.9, 0.15, (12.0, -4.0))
    moved = cv2.warpAffine(image, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    lower = (0.7 * moved + 40).astype(np.uint8)
    made, landmarks = compose(image, points, lower, transform_points(matrix, points))
    np.testing.assert_allclose(landmarks, points, atol=1e-3)
    inside = cv2.fillConvexPoly(
        np.zeros((112, 112), np.uint8), cv2.convexHull(points[:, None].astype(np.int32)), 1
    )
    difference = np.abs(made.astype(float) - image)[inside > 0]
    assert difference.mean() < 4  # moved there and back by bilinear interpolation, tones matched
    untouched = np.abs(made.astype(float) - image)[: int(points[27, 1])]
    assert untouched.max() <= 1


def test_the_mouth_is_the_second_face_s_where_the_first_has_its_nose(faces: FaceDataset) -> None:
    (upper, upper_points), (lower, lower_points) = (picture(faces, row) for row in (8, 120))
    _, points = compose(upper, upper_points, lower, lower_points)
    np.testing.assert_array_equal(points[EYES], upper_points[EYES])
    shape, wanted = (p[MOUTH] - p[MOUTH].mean(axis=0) for p in (points, lower_points))
    turn = (shape @ [1, 1j] * (wanted @ [1, -1j])).sum() / (np.abs(wanted @ [1, 1j]) ** 2).sum()
    np.testing.assert_allclose(shape @ [1, 1j], turn * (wanted @ [1, 1j]), atol=1e-3)
    assert abs(abs(turn) - 1) < 0.3
    assert np.abs(points[31:36].mean(axis=0) - upper_points[31:36].mean(axis=0)).max() < 4


def test_pairs_are_of_different_people_on_the_side_that_was_given(
    faces: FaceDataset, composed: ComposedFaces
) -> None:
    assert len(composed) == MADE
    assert {*composed.pairs.ravel().tolist()} <= {*ROWS.tolist()}
    names = faces.subjects[composed.pairs]
    assert (names[:, 0] != names[:, 1]).all()
    yaw = faces.labels["global_params"][:, 2][composed.pairs]
    chance = np.abs(np.subtract.outer(yaw[:, 0], yaw[:, 0])).mean()
    assert np.abs(yaw[:, 0] - yaw[:, 1]).mean() < 0.4 * chance


def test_landmarks_are_the_parameters_projection_near_both_faces_landmarks(
    faces: FaceDataset, au_models: OpenFaceAUModels, composed: ComposedFaces
) -> None:
    pdm, labels = au_models.pdm, composed.labels
    for row in range(0, MADE, 10):
        pose, shape = labels["global_params"][row], labels["local_params"][row]
        drawn = project(pdm.mean, pdm.basis, pose, shape)
        np.testing.assert_allclose(labels["landmarks"][row], drawn, atol=1e-3)
        first, second = (picture(faces, int(which)) for which in composed.pairs[row])
        wanted = compose(*first, *second)[1]
        assert np.abs(labels["landmarks"][row] - wanted).mean() < 1.5
    assert labels["landmarks"].min() >= 2
    assert labels["landmarks"].max() <= 110


def test_each_part_shows_the_units_of_the_person_that_it_is_from(
    faces: FaceDataset, composed: ComposedFaces
) -> None:
    said = composed.labels["au_intensities"]
    assert said.dtype == np.float32
    assert said.min() >= 0
    assert said.max() <= 5
    upper, lower = (faces.labels["au_intensities"][composed.pairs[:, part]] for part in (0, 1))
    for units, own, other in ((UPPER_UNITS, upper, lower), (LOWER_UNITS, lower, upper)):
        its, the_other_s = (
            np.nanmean(pearson(said[:, units], person[:, units])) for person in (own, other)
        )
        # Units of an expression come together in synthetic people: the models see all of it.
        assert its > 0.7
        assert the_other_s < its - 0.3


def test_the_same_seed_composes_the_same_faces(
    faces: FaceDataset, au_models: OpenFaceAUModels, composed: ComposedFaces
) -> None:
    again = composed_faces(faces, faces.subjects, ROWS, au_models, MADE, seed=5)
    np.testing.assert_array_equal(again.images, composed.images)
    for name, values in composed.labels.items():
        np.testing.assert_array_equal(again.labels[name], values)
    other = composed_faces(faces, faces.subjects, ROWS, au_models, 10, seed=6)
    assert (other.pairs != composed.pairs[:10]).any(axis=1).all()


def test_composed_faces_come_after_those_of_the_files(
    faces: FaceDataset, composed: ComposedFaces
) -> None:
    both = ConcatDataset([faces, composed])
    wanted = np.array([COUNT + 7, 3, COUNT, 9])
    expected = [composed.images[7], *faces.read_images([3]), composed.images[0]]
    expected += [*faces.read_images([9])]
    np.testing.assert_array_equal(both.read_images(wanted), np.stack(expected))
    assert len(both.blocks) == len(both.labels["landmarks"]) == COUNT + MADE
    assert not {*both.blocks[:COUNT].tolist()} & {*both.blocks[COUNT:].tolist()}
    np.testing.assert_array_equal(
        both.labels["au_intensities"][COUNT:], composed.labels["au_intensities"]
    )


def test_faces_that_leave_the_crop_are_replaced_however_few_are_wanted(
    path: Path, au_models: OpenFaceAUModels
) -> None:
    faces = FaceDataset(path)
    gone = np.arange(0, COUNT, 6)
    faces.labels["landmarks"][gone, :, 0] += 60
    faces.labels["global_params"][gone, 4] += 60
    for seed in range(3):
        made = composed_faces(faces, faces.subjects, np.arange(COUNT), au_models, 4, seed)
        assert not {*made.pairs.ravel().tolist()} & {*gone.tolist()}
    everyone = np.arange(0, COUNT, 6)
    with pytest.raises(DatasetError, match="only 0 of 4 faces could be composed"):
        composed_faces(faces, faces.subjects, everyone, au_models, 4, seed=0)


def test_one_of_many_faces_that_is_another_person_s_is_found(
    faces: FaceDataset, au_models: OpenFaceAUModels
) -> None:
    names = np.full(COUNT, "s:anna")
    names[6] = "s:bert"
    made = composed_faces(faces, names, ROWS, au_models, 10, seed=0)
    assert ((made.pairs == 6).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("people", "params", "message"),
    [
        ("s:anna", {}, "the 120 with pose and shape name 1$"),
        ("", {}, "the 120 with pose and shape name 0$"),
        (None, {"mask": 0}, "the 0 with pose and shape name 0$"),
        (None, {"scale": -1}, "the scale of 120 faces is not positive"),
    ],
)
def test_what_cannot_be_composed_is_told(
    path: Path, au_models: OpenFaceAUModels, people: str | None, params: dict, message: str
) -> None:
    faces = FaceDataset(path)
    faces.masks["global_mask"][:] = params.get("mask", 1)
    faces.labels["global_params"][:, 0] *= params.get("scale", 1)
    names = faces.subjects if people is None else np.full(COUNT, people)
    with pytest.raises(DatasetError, match=message):
        composed_faces(faces, names, ROWS, au_models, 3, seed=0)


@pytest.mark.parametrize(
    "more",
    [
        {"balance_aus": True, "horizontal_flip": 0.5, "relabel_flipped": True},
        {"val_data": "others"},
    ],
)
def test_a_training_shows_composed_faces_of_its_own_side(
    path: Path, more: dict, tmp_path: Path
) -> None:
    if "val_data" in more:
        write_synthetic(tmp_path / "others.h5", 24, seed=9)
        more = {"val_data": str(tmp_path / "others.h5")}
    config = AUTrainConfig(
        data=str(path), batch_size=20, val_split=0.1, auxiliary_weight=4.0, cutmix_faces=60, **more
    )
    first = open_data(config)
    resumed = open_data(config, au_models=first.au_models)
    side, count = len(first.split.train), len(first.dataset)
    assert len(first.batches) == (side + 60) // 20
    assert first.describe() == resumed.describe()
    shown = [(own, other) for own, other in zip(first.batches.epoch(0), resumed.batches.epoch(0),
                                                strict=True)]  # fmt: skip
    for own, other in shown:
        for name, values in own.items():
            np.testing.assert_array_equal(other[name], values)
        assert np.isfinite(own["auxiliary"]).all()
    index = np.concatenate([own["index"] for own, _ in shown])
    assert (index >= count).sum() > 40
    assert not {*index.tolist()} & {*first.split.validation.tolist()}
    composed = first.batches.dataset.parts[-1]
    assert {*composed.pairs.ravel().tolist()} <= {*first.split.train.tolist()}
    said = np.concatenate([own["au_intensities"] for own, _ in shown])
    plain = (index >= count) & (np.concatenate([own["local_mask"] for own, _ in shown]) > 0)
    expected = composed.labels["au_intensities"][index[plain] - count]
    np.testing.assert_allclose(said[plain], expected, atol=1e-6)


@pytest.mark.parametrize("given", [{}, {"auxiliary_weight": 4.0, "overfit": 8}])
def test_composing_needs_linear_models(given: dict) -> None:
    with pytest.raises(ValueError, match="--cutmix-faces needs --auxiliary-weight above 0, and no"):
        AUTrainConfig(data="faces.h5", cutmix_faces=10, **given)
