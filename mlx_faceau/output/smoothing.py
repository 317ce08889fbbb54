"""One-Euro filter over landmarks, pose, shape and action units of each face.

It smooths strongly while a value changes slowly, and little while it changes fast.

Reference:
    Casiez, Roussel, Vogel, 1 Euro filter: a simple speed-based low-pass filter for noisy input in
    interactive systems, CHI 2012.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mlx_faceau.core.geometry import CROP_MARGIN
from mlx_faceau.video.appearance import SceneCuts
from mlx_faceau.video.results import FrameResult

_SPEED_CUTOFF = 1.0  # Hz, of the low-pass over the speed (the paper's d_cutoff)
_FORGET_AFTER = 0.5  # seconds without a face after which its filters are reset


# By quantity the filter's min_cutoff and beta. Units: landmarks in face sizes, angles in radians,
# action units in intensity steps.
SETTINGS = {
    "landmarks": (1.5, 8.0),
    "pose": (1.5, 6.0),
    "local_params": (1.0, 0.05),
    "au_intensities": (1.0, 0.7),
}


class OneEuroFilter:
    """The filter over arrays of one shape, for unequal time steps.

    The cutoff is ``min_cutoff`` Hz while the value does not change (lower means smoother and
    later), and ``beta`` Hz more for each unit a second of its speed.
    """

    def __init__(self, min_cutoff: float, beta: float) -> None:
        self._min_cutoff, self._beta = min_cutoff, beta
        self._value: np.ndarray | None = None

    def __call__(
        self, value: np.ndarray, time: float, unit: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """The smoothed value at ``time`` seconds; times increase, the shape stays.

        A speed of ``unit`` (in the value's own unit) counts as 1 a second.
        """
        value = np.asarray(value, np.float64)
        if self._value is None:
            self._value, self._speed, self._time = value, np.zeros_like(value), time
            return value
        step = max(time - self._time, 1e-6)
        self._time = time
        speed = (value - self._value) / step
        self._speed = self._speed + _share(_SPEED_CUTOFF, step) * (speed - self._speed)
        cutoff = self._min_cutoff + self._beta * np.abs(self._speed) / unit
        self._value = self._value + _share(cutoff, step) * (value - self._value)
        return self._value


def _share(cutoff: float | np.ndarray, step: float) -> np.ndarray:
    """Share of the new value in a first-order low-pass of ``cutoff`` Hz."""
    angle = 2 * np.pi * np.asarray(cutoff) * step
    return np.asarray(angle / (angle + 1))


def smoothed(results: Iterable[FrameResult]) -> Iterator[FrameResult]:
    """The same results with every face filtered over time, by its ``face_id``, within a shot."""
    known: dict[int, tuple[float, dict[str, OneEuroFilter]]] = {}  # last time, and filters
    cuts, before = SceneCuts(), 0.0
    for result in results:
        time, faces = result.frame.timestamp, []
        if cuts.is_cut(result.frame.image):
            known = {}
        since = min(before, time - _FORGET_AFTER)  # of the frame before, however long ago that was
        known = {i: face for i, face in known.items() if face[0] >= since}
        before = time
        for face in result.faces:
            if face.face_id in known:
                filters = known[face.face_id][1]
            else:
                filters = {name: OneEuroFilter(*settings) for name, settings in SETTINGS.items()}
            known[face.face_id] = time, filters
            size = CROP_MARGIN * float(np.ptp(face.landmarks, axis=0).max())
            pose_unit = np.array([face.global_params[0], 1, 1, 1, size, size])
            smooth = {
                "landmarks": filters["landmarks"](face.landmarks, time, size),
                "global_params": filters["pose"](face.global_params, time, pose_unit),
                "local_params": filters["local_params"](face.local_params, time),
            }
            if face.au_intensities is not None:
                smooth["au_intensities"] = filters["au_intensities"](face.au_intensities, time)
            faces.append(replace(face, **smooth))  # type: ignore[arg-type]
        yield replace(result, faces=tuple(faces))
