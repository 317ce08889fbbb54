"""What labelled faces are to code that only looks at them."""

from typing import Protocol

import numpy as np


class Faces(Protocol):
    """The part of a data set that a teacher looks at."""

    @property
    def labels(self) -> dict[str, np.ndarray]: ...

    @property
    def masks(self) -> dict[str, np.ndarray]: ...

    def read_images(self, indices: np.ndarray) -> np.ndarray: ...
