"""Appearance of faces and frames in a few numbers: to re-identify people, to find scene cuts."""

import cv2
import numpy as np

_PATCH_SIZE = 12  # px of the patch that stands for a face's appearance
_CUT_LEVEL = 20.0  # mean grey level difference of a scene cut
_CUT_RATIO = 4.0  # ... and how far it stands out of the differences before


def appearance_of(crop: np.ndarray) -> np.ndarray:
    """A face's appearance as a unit vector: similarity is the dot product, in [-1, 1].

    Half of it is a small picture of the (112, 112, 3) uint8 BGR standard crop without its mean and
    contrast, half a histogram of the colours of every second pixel each way. One person in one
    video comes out above 0.8, two strangers below 0.6.
    """
    small = cv2.resize(crop, (_PATCH_SIZE, _PATCH_SIZE), interpolation=cv2.INTER_AREA)
    patch = small.astype(np.float32).ravel()
    colours = cv2.calcHist(
        [cv2.cvtColor(crop[::2, ::2], cv2.COLOR_BGR2LAB)], [0, 1, 2], None, [6, 8, 8],
        [0, 256, 96, 160, 96, 160],
    ).ravel()  # fmt: skip
    halves = [unit(patch - patch.mean()), unit(np.sqrt(colours))]
    return np.asarray(np.concatenate(halves) / np.sqrt(2))


class SceneCuts:
    """Notices the first frame of a new shot: it differs far more than frames did before, or is of
    another size."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._size: tuple[int, ...] = ()
        self._usual = 0.0

    def is_cut(self, frame: np.ndarray) -> bool:
        """Whether an (H, W, 3) uint8 BGR frame begins a new shot; frames come in their order."""
        # A thumbnail that two frames of one shot have nearly in common.
        sampled = cv2.resize(frame, (64, 36), interpolation=cv2.INTER_NEAREST)
        grey = cv2.cvtColor(sampled, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        last, self._last = self._last, small
        size, self._size = self._size, frame.shape
        if last is None or size != frame.shape:
            return last is not None
        change = float(np.abs(small - last).mean())
        cut = change > _CUT_LEVEL and change > _CUT_RATIO * self._usual
        if not cut:
            self._usual = 0.9 * self._usual + 0.1 * change
        return cut


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector with length 1; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length) if length > 0 else vector
