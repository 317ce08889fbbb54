"""Crops moved as an imperfect face finder would cut them: pixels and labels agree."""

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.evaluation.crops import (
    box_error_matrices,
    jitter_matrices,
    warp_images,
    warp_labels,
)


def parts(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, roll in degrees, and shift of the crop's centre in pixels."""
    scale = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    roll = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    centre = np.full(2, 55.5)
    return scale, roll, matrices[:, :, :2] @ centre + matrices[:, :, 2] - centre


def test_jitter_stays_within_its_limits_and_reaches_near_them() -> None:
    scale, roll, shift = parts(jitter_matrices(500, seed=0))
    for values, limit in ((scale - 1, 0.10), (roll, 10.0), (shift, 5.6)):
        assert 0.95 * limit < np.abs(values).max() <= limit * (1 + 1e-9)


def test_box_errors_have_the_spread_that_was_asked_for() -> None:
    scale, roll, shift = parts(box_error_matrices(4000, shift=0.03, scale=0.05, seed=0))
    np.testing.assert_allclose(shift.std(0) / 112, 0.03, rtol=0.05)
    assert np.log(scale).std() == pytest.approx(0.05, rel=0.05)
    assert np.abs(roll).max() < 1e-9


def test_a_dot_moves_to_where_its_landmark_moves() -> None:
    matrices = jitter_matrices(20, seed=1)
    images = np.zeros((20, 112, 112, 3), np.uint8)
    yy, xx = np.mgrid[:112, :112]
    images[:] = np.uint8(255 * np.exp(-((xx - 40) ** 2 + (yy - 60) ** 2) / 18))[..., None]
    moved = warp_images(matrices, images)[..., 0].astype(np.float64)
    mass = moved.sum((1, 2))
    found = np.stack([(moved * xx).sum((1, 2)) / mass, (moved * yy).sum((1, 2)) / mass], axis=1)
    labels = {
        "landmarks": np.broadcast_to(np.array([40.0, 60.0]), (20, 1, 2)),
        "global_params": np.tile([1.0, 0, 0, 0, 40, 60], (20, 1)),
    }
    expected = warp_labels(matrices, labels)
    np.testing.assert_allclose(found, expected["landmarks"][:, 0], atol=0.1)
    np.testing.assert_allclose(expected["global_params"][:, 4:], expected["landmarks"][:, 0])


def test_the_same_seed_moves_crops_the_same_way() -> None:
    np.testing.assert_array_equal(jitter_matrices(3, seed=5), jitter_matrices(3, seed=5))
