"""Faces of a photograph, which is searched more thoroughly than a frame of a video."""

import numpy as np

from .align import FrameCrops
from .detectors import Detection, Detector
from .fitting import Predictor, Square, agreement_of, fit_landmarks

# The crops that confirm a doubtful face: right, down (in sides) and growth of the log side.
_DISPLACEMENTS = np.array([(0.08, -0.06, 0.11), (-0.08, 0.06, -0.11), (-0.1, -0.1, 0.0)])
# Of the displacements, which a face's landmarks may follow, in the median. The built-in net follows
# them by .08 to .31 on faces that dlib doubts, by .28 on an emblem, by .41 and more on patterns.
_LARGEST_SHARE = 0.25


class PhotographDetector:
    """A detector's thorough search, or its ``detect``; the net decides on faces that it doubts."""

    def __init__(self, detector: Detector, predictor: Predictor) -> None:
        self._detector = detector
        self._predictor = predictor
        self.name = detector.name
        self.calibration = detector.calibration

    def detect(self, frame: np.ndarray) -> list[Detection]:
        """See :class:`~mlx_faceau.video.detectors.Detector`."""
        search = getattr(self._detector, "search", self._detector.detect)
        crops = FrameCrops(frame)
        return [
            found for found in search(frame) if found.score > 0 or self._is_confirmed(crops, found)
        ]

    def _is_confirmed(self, crops: FrameCrops, found: Detection) -> bool:
        """Whether the landmarks hardly move while their crop is displaced."""
        [placed] = fit_landmarks(
            self._predictor, crops, [Square(*self.calibration.square(found.box))]
        )
        if not placed.usable:
            return False
        square = placed.square
        first, *others = fit_landmarks(
            self._predictor, crops, [square, *(square.moved(by) for by in _DISPLACEMENTS)]
        )
        shares = [
            agreement_of(first.landmarks, other.landmarks, square, by).share
            for other, by in zip(others, _DISPLACEMENTS, strict=True)
        ]
        return bool(np.median(shares) <= _LARGEST_SHARE)
