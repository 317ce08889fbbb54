"""What a labeller is, and the labelled faces that it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mlx_faceau.core.pdm import PDM
from mlx_faceau.video.images import IMAGE_SUFFIXES
from mlx_faceau.video.results import Frame

Labels = Sequence["FaceLabels"]


@dataclass(frozen=True)
class FaceLabels:
    """One face, in frame pixels and radians."""

    landmarks: np.ndarray  # (68, 2)
    global_params: np.ndarray  # (6,) scale, rx, ry, rz, tx, ty of the PDM in the frame
    local_params: np.ndarray  # (34,)
    au_intensities: np.ndarray  # (17,) in AU_NAMES order
    bbox: np.ndarray | None = None  # (4,) x, y, width, height; None: that of the landmarks
    confidence: float = 1.0  # of the labeller, in [0, 1]
    face_id: int = 0  # the face's number, the same in all frames of a video
    hog: np.ndarray | None = None  # (4464,) FHOG of the aligned face, or None

    @property
    def box(self) -> np.ndarray:
        """(4,) x, y, width, height in frame pixels."""
        if self.bbox is not None:
            return np.asarray(self.bbox, np.float64)
        low, high = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return np.concatenate([low, high - low])


class Labeller(Protocol):
    """Labels the faces of videos and photographs."""

    name: str
    licence: str  # the terms of its labels; may be empty
    pdm_name: str  # the name of its parameters' shape model; may be empty

    @property
    def pdm(self) -> PDM | None:
        """The shape model, or None where its file is not available."""

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """A function that labels frames of a video or photograph, in order, perhaps not all.

        It raises FaceauError if this video cannot be labelled. Its ``check_length``, where it has
        one, is called at the end of a video, see :class:`OpenFaceLabeller`.
        """
        ...


def is_photograph(path: Path) -> bool:
    """Whether a file counts as a photograph, by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES
