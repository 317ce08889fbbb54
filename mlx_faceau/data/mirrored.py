"""The mirror images of a data set's faces, with what can be said of them without a labeller."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_faceau.geometry import flip_global_params, flip_landmarks
from mlx_faceau.pdm import PDM, mirror_local_params

from .labelled import Faces


@dataclass(frozen=True)
class Mirrored:
    """Mirror images of labelled faces; their action units are nobody's labels.

    Attributes:
        faces: the data set.
        pdm: the shape model of its labels.
    """

    faces: Faces
    pdm: PDM

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Landmarks, global and local parameters of the images."""
        given = self.faces.labels
        return {
            "landmarks": flip_landmarks(given["landmarks"]),
            "global_params": flip_global_params(given["global_params"]),
            "local_params": mirror_local_params(self.pdm, given["local_params"]),
        }

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The data set's own."""
        return self.faces.masks

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB mirror images."""
        return np.ascontiguousarray(self.faces.read_images(indices)[:, :, ::-1])
