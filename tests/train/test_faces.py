"""What training and validation are shown."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from tiny_training import write_faces

from mlx_faceau.data.augment import LEVELS
from mlx_faceau.train.config import AUGMENTATIONS, LandmarkPoseTraining
from mlx_faceau.train.faces import Faces, open_faces


@pytest.fixture(scope="module")
def faces_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "faces.h5")


def opened(path: Path, level: str) -> Faces:
    return open_faces(
        LandmarkPoseTraining(data=str(path), batch_size=4, val_split=0.17, augment=level)
    )


def test_every_level_of_augmentation_can_be_asked_for() -> None:
    assert tuple(LEVELS) == AUGMENTATIONS


@pytest.mark.parametrize("level", AUGMENTATIONS)
def test_training_faces_are_augmented_as_asked(faces_file: Path, level: str) -> None:
    faces = opened(faces_file, level)
    for batch in faces.batches.epoch(0):
        changed = batch["images"] != faces.dataset.read_images(batch["index"])
        assert changed.any(axis=(1, 2, 3)).all() == (level != "none")


def test_validation_faces_are_never_augmented(faces_file: Path) -> None:
    faces = opened(faces_file, "strong")
    chosen = faces.split.validation
    shown = np.concatenate(list(faces.validation_images()))
    np.testing.assert_array_equal(shown, faces.dataset.read_images(chosen))
    landmarks = faces.validation_targets()["landmarks"]
    np.testing.assert_array_equal(landmarks, faces.dataset.labels["landmarks"][chosen])
