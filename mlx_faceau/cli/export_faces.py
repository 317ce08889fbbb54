"""The labelled faces for calibrating and measuring ``mlx-faceau export --precision int8``."""

from collections.abc import Iterable

import numpy as np

from mlx_faceau.convert.int8_accuracy import CalibrationFaces
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.validation_split import split_dataset

CALIBRATION_FACES = 256
MEASURED_FACES = 512


def read_faces(
    calibration: str, validation: str | None, outputs: Iterable[str]
) -> CalibrationFaces:
    """Evenly spaced faces of one file, or two.

    Args:
        calibration: a training file.
        validation: another one, of other subjects; None holds a tenth of the first one's subjects
            out, by the split that training makes by default.
        outputs: names of the labels.

    Raises:
        DatasetError: if a file cannot be read, or its subjects cannot be told apart for a split.
    """
    training = FaceDataset(calibration)
    if validation is None:
        split = split_dataset(training)
        rows, others, other_rows = split.train, training, split.validation
    else:
        others = FaceDataset(validation)
        rows, other_rows = np.arange(len(training)), np.arange(len(others))
    measured = _spaced(other_rows, MEASURED_FACES)
    return CalibrationFaces(
        calibration=_crops(training, _spaced(rows, CALIBRATION_FACES)),
        crops=_crops(others, measured),
        labels={name: others.labels[name][measured] for name in outputs},
        hash=training.hash,
    )


def _spaced(rows: np.ndarray, count: int) -> np.ndarray:
    return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))])


def _crops(dataset: FaceDataset, rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(dataset.read_images(rows)[..., ::-1])
