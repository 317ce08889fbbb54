"""What every data set of labelled faces has: a file, several files, or faces in memory."""

from typing import Protocol

import numpy as np


class LabelledFaces(Protocol):
    """Labels, masks, names and images.

    Attributes:
        labels, masks: (N, ...) float32 each, as
            :class:`~mlx_faceau.data.format.dataset.FaceDataset` has them.
        subjects, videos: (N,) str, or None where nobody is named.
        blocks: (N,) int64; images of samples with the same number are best read together.
    """

    @property
    def labels(self) -> dict[str, np.ndarray]: ...

    @property
    def masks(self) -> dict[str, np.ndarray]: ...

    @property
    def subjects(self) -> np.ndarray | None: ...

    @property
    def videos(self) -> np.ndarray | None: ...

    @property
    def blocks(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB images by index."""
        ...
