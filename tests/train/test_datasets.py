"""What training and validation are shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from tiny_training import write_faces

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.augment import LEVELS
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.errors import DatasetError
from mlx_faceau.train.config import AUGMENTATIONS, AUTrainConfig, LandmarkPoseTrainConfig
from mlx_faceau.train.datasets import TrainingData, open_data

LABELS = ("landmarks", "global_params", "local_params", "au_intensities")


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


def opened(path: Path, level: str) -> TrainingData:
    return open_data(
        LandmarkPoseTrainConfig(data=str(path), batch_size=4, val_split=0.17, augment=level)
    )


def test_every_level_of_augmentation_can_be_asked_for() -> None:
    assert tuple(LEVELS) == AUGMENTATIONS


@pytest.mark.parametrize("intensity", [-1.0, 999.0])
def test_intensities_that_no_net_can_reach_are_refused(tmp_path: Path, intensity: float) -> None:
    path = write_faces(tmp_path / "faces.h5")
    with h5py.File(path, "r+") as file:
        file["au_intensities"][3, 8] = intensity
        count = len(file["au_intensities"])
    with pytest.raises(DatasetError, match=rf"faces.h5: .* leave \[0, 5\] in 1 of {count} faces"):
        opened(path, "none")


@pytest.mark.parametrize("level", AUGMENTATIONS)
def test_training_faces_are_augmented_as_asked(faces_file: Path, level: str) -> None:
    faces = opened(faces_file, level)
    for batch in faces.batches.epoch(0):
        changed = batch["images"] != faces.dataset.read_images(batch["index"])
        assert changed.any(axis=(1, 2, 3)).all() == (level != "none")


@pytest.mark.parametrize(
    ("training", "given", "least", "most"),
    [
        (LandmarkPoseTrainConfig, {}, 0.3, 0.7),
        (AUTrainConfig, {}, 0.0, 0.0),  # OpenFace says something else of a mirror image
        (AUTrainConfig, {"horizontal_flip": 0.99}, 0.9, 1.0),
    ],
)
def test_faces_are_mirrored_as_often_as_suits_the_labels(
    faces_file: Path, training: type, given: dict[str, float], least: float, most: float
) -> None:
    faces = open_data(training(data=str(faces_file), batch_size=4, val_split=0.17, **given))
    masks = [batch["local_mask"] for epoch in range(4) for batch in faces.batches.epoch(epoch)]
    assert least <= np.mean(np.concatenate(masks) == 0) <= most


def test_faces_to_be_learned_by_heart_are_taught_by_linear_models_of_all(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "faces.h5", 224, seed=0)
    config = AUTrainConfig(
        data=str(tmp_path / "faces.h5"), batch_size=4, overfit=4, auxiliary_weight=4.0
    )
    batch = next(open_data(config).batches.epoch(0))
    assert np.isfinite(batch["auxiliary"]).all()


def test_faces_that_no_model_fits_are_refused_with_the_flag_s_name(faces_file: Path) -> None:
    config = AUTrainConfig(data=str(faces_file), batch_size=4, val_split=0.17, auxiliary_weight=4.0)
    with pytest.raises(DatasetError, match=r"h5: .* too few .* 210; leave --auxiliary-weight out$"):
        open_data(config)
    relabelling = replace(config, horizontal_flip=0.5, relabel_flipped=True)
    both = "leave --auxiliary-weight and --relabel-flipped out$"
    with pytest.raises(DatasetError, match=both):
        open_data(relabelling)


def test_validation_faces_are_never_augmented(faces_file: Path) -> None:
    faces = opened(faces_file, "strong")
    chosen = faces.split.validation
    shown = np.concatenate(list(faces.validation_images()))
    np.testing.assert_array_equal(shown, faces.dataset.read_images(chosen))
    landmarks = faces.validation_targets()["landmarks"]
    np.testing.assert_array_equal(landmarks, faces.dataset.labels["landmarks"][chosen])


def test_the_files_trained_on_are_recorded_without_those_validated_on(tmp_path: Path) -> None:
    counts = {"train": 5, "more": 4, "others": 3}
    paths = [
        str(write_faces(tmp_path / f"{name}.h5", people=n, seed=n)) for name, n in counts.items()
    ]
    rename_people(Path(paths[2]))
    faces = open_data(
        LandmarkPoseTrainConfig(data=tuple(paths[:2]), val_data=(paths[2],), batch_size=4)
    )
    described = faces.describe()
    assert described["files"] == [FaceDataset(path).hash for path in paths[:2]]
    assert described["people"] == 5 + 3  # the second file's four are the first's


def with_copies(tmp_path: Path) -> Path:
    """Four people, and four more who have the first ones' faces."""
    path = write_faces(tmp_path / "faces.h5", people=8)
    with h5py.File(path, "r+") as file:
        half = len(file["images"]) // 2
        for name in ("images", "landmarks", "global_params", "local_params", "au_intensities"):
            file[name][half:] = file[name][:half]
        for name in ("subjects", "video_names"):
            texts = file[f"metadata/{name}"].asstr()[:]
            file[f"metadata/{name}"][half:] = [f"other {text}" for text in texts[half:]]
    return path


def test_people_with_the_same_faces_stay_on_one_side_and_are_said(tmp_path, caplog) -> None:
    path = with_copies(tmp_path)
    for seed in range(4):
        config = AUTrainConfig(data=str(path), val_split=0.3, batch_size=4, seed=seed)
        split = open_data(config).split
        half = (len(split.train) + len(split.validation)) // 2
        assert not set((split.train % half).tolist()) & set((split.validation % half).tolist())
    assert "faces are there under several subject names: these are kept on one side" in caplog.text


@pytest.mark.parametrize("same", [("images",), LABELS, ("images", *LABELS)], ids=len)
def test_the_same_faces_under_other_names_are_not_validated_on(tmp_path, same) -> None:
    """Their pictures with other labels, their labels with other pictures, or both."""
    path = write_faces(tmp_path / "faces.h5", people=4)
    other = write_faces(tmp_path / "other.h5", people=3, name="stranger", seed=1)
    config = AUTrainConfig(data=str(path), val_data=str(other), batch_size=4)
    open_data(config)
    with h5py.File(path) as source, h5py.File(other, "r+") as target:
        for name in same:
            target[name][2:4] = source[name][5:7]
    with pytest.raises(
        DatasetError, match=r"share 2 faces under other names \(person\d = stranger"
    ):
        open_data(config)


@pytest.mark.parametrize("name", ["PERSON0", " person 0", "person_0", "person-0", "\uff50erson0"])
def test_a_name_in_another_spelling_is_not_validated_on(tmp_path, name: str) -> None:
    path = write_faces(tmp_path / "faces.h5", people=4)
    other = write_faces(tmp_path / "other.h5", people=3, name="stranger", seed=1)
    with h5py.File(other, "r+") as file:
        file["metadata/subjects"][0] = name
    with pytest.raises(DatasetError, match="share 1 subjects"):
        open_data(AUTrainConfig(data=str(path), val_data=str(other), batch_size=4))


def zero(path: Path, units: object, rows: object = slice(None)) -> Path:
    with h5py.File(path, "r+") as file:
        values = file["au_intensities"][:]
        values[rows, units] = 0
        file["au_intensities"][:] = values
    return path


def test_units_that_no_face_shows_are_named_before_an_action_unit_training(
    tmp_path, caplog
) -> None:
    path = zero(write_faces(tmp_path / "faces.h5", people=8), [3, 12])
    split = open_data(AUTrainConfig(data=str(path), batch_size=4)).split
    assert "no training face shows AU05_r, AU20_r: the net will learn to predict 0" in caplog.text
    assert "validate on" not in caplog.text
    caplog.clear()
    zero(path, 8, split.validation)
    open_data(AUTrainConfig(data=str(path), batch_size=4))
    assert "no face to validate on shows AU12_r" in caplog.text
    caplog.clear()
    open_data(LandmarkPoseTrainConfig(data=str(path), batch_size=4))
    assert "shows" not in caplog.text


def test_nothing_but_zeros_is_refused_by_an_action_unit_training_alone(tmp_path) -> None:
    path = str(zero(write_faces(tmp_path / "faces.h5", people=8), slice(None)))
    with pytest.raises(DatasetError, match="all action units are 0 in all"):
        open_data(AUTrainConfig(data=path, batch_size=4))
    assert len(open_data(LandmarkPoseTrainConfig(data=path, batch_size=4)).split.train)


def rename_people(path: Path) -> None:
    """Other people than the other files': all of them count from person 0."""
    with h5py.File(path, "r+") as file:
        for name in ("subjects", "video_names"):
            texts = file[f"metadata/{name}"]
            texts[:] = [f"other {text}" for text in texts.asstr()[:]]
