"""Temporal model of a face's square: a Kalman filter with damped velocity.

Position and log side of the square are independent; displacements are (x, y, log side) in sides.
Detections measure where the face is. The landmarks measure it as far as they follow the face and
not their crop: of a face displaced by d from the crop, a net that follows the displacement of its
crop by a gain g shows (1 - g) d.

Reference:
    Kalman, A new approach to linear filtering and prediction problems, J. Basic Eng. 82, 1960.
"""

import numpy as np

from .fitting import Square

_DAMPING = 0.8  # of the velocity from frame to frame
_ACCELERATION = np.array([0.002, 0.002, 0.001])  # a frame, standard deviation
_DETECTION_NOISE = 0.02  # of a detector's calibrated square, standard deviation
_FIRST_NOISE = 0.01  # of the whole frame's detection that starts a track
_DETECTION_REACH = 0.04  # a disagreement counts for no more than this: crops never snap
_LANDMARK_NOISE, _GAIN_NOISE = 0.002, 0.01  # of the landmarks' square; what a gain of 1 adds


class SquareFilter:
    """Where a face is, and where it will be in the next frame; first where a detector placed it."""

    def __init__(self, square: Square) -> None:
        self.square = square
        self._velocity = np.zeros(3)
        self._covariance = np.tile(np.diag([_FIRST_NOISE**2, 0.005**2]), (3, 1, 1))

    def predict(self, frames: int) -> None:
        """Move on by so many frames."""
        for _ in range(min(frames, 30)):
            self.square = self.square.moved(self._velocity)
            self._velocity = _DAMPING * self._velocity
            step = np.array([[1.0, 1.0], [0.0, _DAMPING]])
            self._covariance = step @ self._covariance @ step.T
            self._covariance[:, 1, 1] += _ACCELERATION**2

    def add_detection(self, square: Square) -> None:
        """Update by a detected face."""
        innovation = self.square.displacement(square)
        self._update(
            innovation.clip(-_DETECTION_REACH, _DETECTION_REACH), np.ones(3), _DETECTION_NOISE
        )

    def add_landmarks(self, square: Square, gain: np.ndarray) -> None:
        """Update by the square of landmarks that were predicted from ``self.square``.

        ``gain`` (3,) is the share of the crop's displacement that they follow.
        """
        seen = (1 - gain).clip(0.0, 1.0)
        self._update(
            self.square.displacement(square), seen, _LANDMARK_NOISE + _GAIN_NOISE * (1 - seen)
        )

    def _update(self, innovation: np.ndarray, seen: np.ndarray, noise: float | np.ndarray) -> None:
        covariance = self._covariance
        expected = seen**2 * covariance[:, 0, 0] + noise**2
        kalman_gain = covariance[:, :, 0] * (seen / expected)[:, None]  # (3, 2)
        self._covariance = covariance - (
            kalman_gain[:, :, None] * (seen[:, None] * covariance[:, 0])[:, None, :]
        )
        correction = kalman_gain * innovation[:, None]
        self._velocity = self._velocity + correction[:, 1]
        self.square = self.square.moved(correction[:, 0])
