"""What the confidence is made of."""

import numpy as np
import pytest
from blobs import Blob

from mlx_faceau.video.confidence import agreement_of, confidence_of, displaced, resemblance

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


def marks_of(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and corners of the mouth as a detector would mark them."""
    right, left = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([right, left, landmarks[30], landmarks[48], landmarks[54]])


def test_landmarks_that_meet_the_detectors_marks_resemble_them() -> None:
    marks = marks_of(FACE)
    assert resemblance(FACE, marks) == 1
    spread = np.sqrt(np.square(marks - marks.mean(axis=0)).sum(axis=1).mean())
    moved = FACE + np.array([0.4 * spread, 0])
    assert resemblance(moved, marks) == pytest.approx(np.exp(-1))
    assert resemblance(3 * moved, 3 * marks) == pytest.approx(np.exp(-1))


@pytest.mark.parametrize(("degrees", "most"), [(90, 0.01), (180, 0.01)])
def test_an_upright_mean_face_on_a_face_that_lies_resembles_nothing(
    degrees: float, most: float
) -> None:
    angle, centre = np.radians(degrees), FACE.mean(axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lying = (FACE - centre) @ turn.T + centre
    assert resemblance(FACE, marks_of(lying)) < most


def test_points_outside_the_picture_lower_it() -> None:
    half = Blob(0, 100, 40).landmarks
    assert confidence_of(1.0, 0.9, half, SIZE) == pytest.approx(0.5, abs=0.03)
