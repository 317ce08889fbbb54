"""Faces of a photograph, which is searched more thoroughly than a frame of a video."""

import numpy as np

from mlx_faceau.core.geometry import invert, square_crop_matrix, transform_points

from .align import FrameCrops
from .detectors import Detection, Detector
from .fitting import Predictor

# The crops that confirm a doubtful face: moved right and down by these sides, and resized.
_DISPLACEMENTS = ((0.08, -0.06, 1.12), (-0.08, 0.06, 0.9), (-0.1, -0.1, 1.0))
_LARGEST_SHARE = 0.33  # of the displacements which a face's landmarks may follow, in the median


class PhotographDetector:
    """A detector's thorough search; the landmark net decides on the faces that it doubts.

    A net that sees a face finds it where it is through displaced crops; one that sees none moves
    its mean face along with the crop.

    Args:
        detector: searched with its ``search`` method where it has one, else as in videos.
        predictor: the landmark net.
    """

    def __init__(self, detector: Detector, predictor: Predictor) -> None:
        self._detector = detector
        self._predictor = predictor
        self.name = detector.name
        self.calibration = detector.calibration

    def detect(self, frame: np.ndarray) -> list[Detection]:
        """See :class:`~mlx_faceau.video.detectors.Detector`."""
        search = getattr(self._detector, "search", self._detector.detect)
        crops = FrameCrops(frame)
        return [found for found in search(frame) if found.score > 0 or self._sees(crops, found)]

    def _sees(self, crops: FrameCrops, found: Detection) -> bool:
        centre, side = self.calibration.square(found.box)
        squares = [(centre, side)]
        squares += [(centre + side * np.array(move[:2]), side * move[2]) for move in _DISPLACEMENTS]
        matrices = np.stack([square_crop_matrix(*square) for square in squares])
        read = self._predictor.predict_batch(np.stack([crops.crop(matrix) for matrix in matrices]))
        first, *others = transform_points(invert(matrices), read["landmarks"])
        shares = []
        for (other, size), points in zip(squares[1:], others, strict=True):
            along = (first - centre) * (size / side) + other
            moved, whole = (np.linalg.norm(p - first, axis=1).mean() for p in (points, along))
            shares.append(moved / whole)
        return bool(np.median(shares) <= _LARGEST_SHARE)
