"""Mirror images of labelled faces, with the labels that can be computed for them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_faceau.core.geometry import flip_global_params, flip_landmarks
from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.data.format.labelled_faces import LabelledFaces
from mlx_faceau.errors import DatasetError

# px. A mirrored face differs from OpenFace's PDM, whose mean is asymmetric, by some tenths of a
# pixel: with much less noise assumed, the fit would use weak modes for that difference.
_NOISE = 0.2


@dataclass(frozen=True)
class Mirrored:
    """Mirror images of some faces of a data set, without action unit labels."""

    faces: LabelledFaces  # the data set
    rows: np.ndarray  # (n,) samples with usable PDM parameters
    pdm: PDM  # the shape model of their labels

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """``landmarks`` (n, 68, 2), ``global_params`` (n, 6), ``local_params`` (n, 34); float32.

        A model that is not quite symmetric has no exact mirror of a shape: the parameters are those
        that its labeller would fit to the mirrored landmarks (see ``fit_pdm``).

        Raises:
            DatasetError: if the scale of a face is not positive.
        """
        given = self.faces.labels
        landmarks = flip_landmarks(given["landmarks"][self.rows])
        pose = flip_global_params(given["global_params"][self.rows])
        if wrong := int((pose[:, 0] <= 0).sum()):
            raise DatasetError(
                f"the scale of {wrong} faces is not positive, so they have no mirror image "
                "('mlx-faceau data check' says more)"
            )
        fit = fit_pdm(self.pdm, landmarks, _NOISE, start=pose)
        return {
            "landmarks": landmarks,
            "global_params": fit.global_params.astype(np.float32),
            "local_params": fit.local_params.astype(np.float32),
        }

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The data set's own, of these rows."""
        return {name: mask[self.rows] for name, mask in self.faces.masks.items()}

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        """(k, 112, 112, 3) uint8 RGB mirror images; ``indices`` (k,) count among the rows."""
        return np.ascontiguousarray(self.faces.read_images(self.rows[indices])[:, :, ::-1])
