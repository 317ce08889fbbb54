"""What the confidence is made of."""

import numpy as np
import pytest
from blobs import Blob

from mlx_faceau.confidence import CHECK_SHIFT, agreement_of, confidence_of

FACE = Blob(100, 100, 40).landmarks
SIZE = (240, 320)


def test_landmarks_that_stay_agree_and_those_that_follow_the_crop_do_not() -> None:
    assert agreement_of(FACE, FACE, 112.0) == 1
    assert agreement_of(FACE, FACE + CHECK_SHIFT * 112, 112.0) == pytest.approx(np.exp(-1 / 0.36))
    assert agreement_of(FACE * 3, (FACE + 2) * 3, 336.0) == pytest.approx(
        agreement_of(FACE, FACE + 2, 112.0)
    )


def test_either_sign_vouches_and_both_must_fail() -> None:
    assert confidence_of(1.0, 0.0, FACE, SIZE) == 1
    assert confidence_of(0.0, 0.9, FACE, SIZE) == pytest.approx(0.9)
    assert confidence_of(0.1, 0.0, FACE, SIZE) == pytest.approx(0.1)


def test_points_outside_the_picture_lower_it() -> None:
    half = Blob(0, 100, 40).landmarks
    assert confidence_of(1.0, 0.9, half, SIZE) == pytest.approx(0.5, abs=0.03)
