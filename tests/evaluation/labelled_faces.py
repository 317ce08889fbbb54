"""A small file of labelled noise, and nets whose quality is known."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from mlx_faceau.core.landmarks import OUTER_EYE_CORNERS
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.writer import TrainingDataWriter

PEOPLE, EACH = 30, 4


def write_faces(path: Path, people: int = PEOPLE, each: int = EACH, boxes=None, warp=None) -> Path:
    """Random images and labels; the head turns from 0 to 40 degrees over each person's faces.

    Args:
        path: of the HDF5 file.
        people: how many.
        each: faces of each.
        boxes: (people * each, 4) in frame pixels; None for the crop itself.
        warp: (people * each, 2, 3); None for crops that are their own frame.
    """
    rng = np.random.default_rng(0)
    mean_face = rng.uniform(30, 80, (68, 2))
    mean_face[list(OUTER_EYE_CORNERS)] = (36, 50), (76, 50)
    with TrainingDataWriter(path) as writer:
        for row in range(people * each):
            person, frame = divmod(row, each)
            yaw = np.radians(40 * frame / max(each - 1, 1))
            writer.add_sample(
                image=rng.integers(0, 256, (112, 112, 3), np.uint8),
                landmarks=np.float32(mean_face + rng.normal(0, 4, (68, 2))),
                global_params=np.float32([3, 0.1 * rng.normal(), yaw, 0.1 * rng.normal(), 55, 55]),
                local_params=np.float32(rng.normal(0, 5, 34)),
                au_intensities=np.float32(rng.uniform(0, 4, 17)),
                bbox=np.float32([0, 0, 112, 112] if boxes is None else boxes[row]),
                video_name=f"video{person}",
                frame_index=frame,
                warp_matrix=np.float32([[1, 0, 0], [0, 1, 0]] if warp is None else warp[row]),
                subject=f"person{person}",
            )
    return path


def move_every_second_outside(path: Path) -> Path:
    """Put the chin of every second face of a file below its crop."""
    with h5py.File(path, "a") as file:
        landmarks = file["landmarks"][:]
        landmarks[::2, 8, 1] = 113.5
        file["landmarks"][:] = landmarks
    return path


class Oracle:
    """Knows the labels of the images it is shown; moved ones, which it cannot know, get row 0's.

    Args:
        dataset: whose labels it knows.
        landmark_error: pixels that it adds to every coordinate.
        au_error: intensity that it adds.
    """

    def __init__(self, dataset: FaceDataset, landmark_error: float = 0.0, au_error: float = 0.0):
        images = dataset.read_images(np.arange(len(dataset)))
        self.rows: dict[bytes, int] = {}
        self.learn(images)
        self.labels = {name: values.copy() for name, values in dataset.labels.items()}
        self.labels["landmarks"] += np.float32(landmark_error)
        self.labels["au_intensities"] += np.float32(au_error)

    def learn(self, images: np.ndarray) -> None:
        """Know these pictures of the faces, in the file's order, as well."""
        self.rows |= {image.tobytes(): row for row, image in enumerate(images)}

    def __call__(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [self.rows.get(image.tobytes(), 0) for image in images]
        return {name: values[rows] for name, values in self.labels.items()}
