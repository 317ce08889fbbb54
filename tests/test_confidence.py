"""What the confidence is made of."""

import numpy as np
import pytest
from blobs import Blob

from mlx_faceau.confidence import agreement_of, confidence_of, displaced

FACE = Blob(100, 100, 40).landmarks
SIZE = (240, 320)


SQUARE = (np.array([102.0, 97.0]), 112.0)


def followed(points: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Points of a net that follows these shares of the crop's shift and growth."""
    (centre, side), (other, larger) = SQUARE, displaced(SQUARE)
    growth = (larger / side) ** scale
    return (points - centre) * growth + centre + shift * (other - centre)


def test_landmarks_that_stay_agree_and_those_that_follow_the_crop_do_not() -> None:
    assert agreement_of(FACE, FACE, SQUARE).value == 1
    along = agreement_of(FACE, followed(FACE, 1.0, 1.0), SQUARE)
    assert along.share == pytest.approx(1)
    assert along.value == pytest.approx(np.exp(-1 / 0.36))


def test_shares_of_shift_and_scale_are_told_apart() -> None:
    found = agreement_of(FACE, followed(FACE, 0.3, 0.0), SQUARE)
    assert (found.shift, found.scale) == pytest.approx((0.3, 0.0), abs=0.03)
    found = agreement_of(FACE, followed(FACE, 0.0, 0.7), SQUARE)
    assert (found.shift, found.scale) == pytest.approx((0.0, 0.7), abs=0.03)


def test_agreement_does_not_depend_on_the_size_of_the_face() -> None:
    large = (SQUARE[0] * 3, SQUARE[1] * 3)
    one = agreement_of(FACE, FACE + 2, SQUARE)
    assert agreement_of(FACE * 3, (FACE + 2) * 3, large).share == pytest.approx(one.share)


def test_either_sign_vouches_and_both_must_fail() -> None:
    assert confidence_of(1.0, 0.0, FACE, SIZE) == 1
    assert confidence_of(0.0, 0.9, FACE, SIZE) == pytest.approx(0.9)
    assert confidence_of(0.1, 0.0, FACE, SIZE) == pytest.approx(0.1)


def test_points_outside_the_picture_lower_it() -> None:
    half = Blob(0, 100, 40).landmarks
    assert confidence_of(1.0, 0.9, half, SIZE) == pytest.approx(0.5, abs=0.03)
