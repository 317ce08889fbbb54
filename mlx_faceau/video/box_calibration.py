"""How each detector's box maps to the standard crop, measured on openly labelled faces."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlx_faceau.core.atomic_io import write_json
from mlx_faceau.errors import UsageError


@dataclass(frozen=True)
class BoxCalibration:
    """The standard crop's square in fractions of a box of size s = sqrt(width * height)."""

    right: float  # shift of the square's centre from the box's centre
    down: float
    side: float  # of the square

    def square(self, box: Sequence[float]) -> tuple[np.ndarray, float]:
        """Centre (x, y) and side of the standard crop's square in frame pixels.

        ``box`` is x, y, width, height; ValueError if it is not finite or has no area.
        """
        try:
            x, y, width, height = (float(value) for value in box)
        except (TypeError, ValueError):
            raise UsageError(f"a face box is x, y, width, height, got {box!r}") from None
        size = float(np.sqrt(max(width, 0.0) * max(height, 0.0)))
        if not (np.isfinite([x, y, size]).all() and size > 0):
            raise UsageError(f"a face box is x, y, width, height with an area, got {tuple(box)}")
        centre = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
        return centre + size * np.array([self.right, self.down]), size * self.side


# Medians over 1,500 photographs with open labels: benchmarks/results/box-calibration.csv.
CALIBRATIONS: dict[str, BoxCalibration] = {
    "yunet": BoxCalibration(0.0005, 0.1418, 1.2334),
    "dlib": BoxCalibration(-0.0028, 0.0824, 1.2769),
    # Not measured yet; on a Mac benchmarks/box_calibration.py does it. A guess until then: the box
    # is a square from the brows to below the lip.
    "vision": BoxCalibration(0.0, 0.0, 1.3),
    # By definition: the bounding box of the 68 landmarks (OpenFace corrects MTCNN's to be that),
    # and the crop's own square.
    "landmarks": BoxCalibration(0.0, 0.0, 1.4),
    "mtcnn": BoxCalibration(0.0, 0.0, 1.4),
    "square": BoxCalibration(0.0, 0.0, 1.0),
}


def save_calibrations(path: Path) -> None:
    """Write every calibration as JSON, for programs without this package."""
    write_json(path, {name: asdict(calibration) for name, calibration in CALIBRATIONS.items()})
