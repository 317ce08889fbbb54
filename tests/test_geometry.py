"""Geometry against independent arithmetic: explicit axis rotations, moved points, drawn pixels."""

import cv2
import numpy as np
import pytest

from mlx_faceau.core import geometry
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.video.align import FaceAligner, crop_frame

RNG = np.random.default_rng(7)


def axis_rotation(axis: int, angle: float) -> np.ndarray:
    """Textbook right-handed rotation about one axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def random_pdm() -> tuple[np.ndarray, np.ndarray]:
    return RNG.normal(0, 30, (68, 3)), RNG.normal(0, 1, (68, 3, 34))


def random_params(count: int) -> tuple[np.ndarray, np.ndarray]:
    angles = RNG.uniform(-1.4, 1.4, (count, 3))
    scale = RNG.uniform(0.3, 4, (count, 1))
    shift = RNG.uniform(-50, 150, (count, 2))
    return np.concatenate([scale, angles, shift], axis=1), RNG.normal(0, 5, (count, 34))


def test_rotation_is_the_product_of_three_axis_rotations() -> None:
    for angles in RNG.uniform(-3, 3, (20, 3)):
        expected = axis_rotation(0, angles[0]) @ axis_rotation(1, angles[1])
        expected = expected @ axis_rotation(2, angles[2])
        np.testing.assert_allclose(geometry.euler_to_matrix(angles), expected, atol=1e-14)


def test_euler_angles_survive_a_round_trip() -> None:
    angles = RNG.uniform(-1.5, 1.5, (200, 3))
    back = geometry.matrix_to_euler(geometry.euler_to_matrix(angles))
    np.testing.assert_allclose(back, angles, atol=1e-12)


def test_gimbal_lock_returns_angles_of_the_same_rotation() -> None:
    rotation = geometry.euler_to_matrix(np.array([0.4, np.pi / 2, -0.3]))
    angles = geometry.matrix_to_euler(rotation)
    np.testing.assert_allclose(geometry.euler_to_matrix(angles), rotation, atol=1e-7)


def test_projection_equals_the_formula_point_by_point() -> None:
    mean, basis = random_pdm()
    (params,), (local,) = random_params(1)
    rotation = geometry.euler_to_matrix(params[1:4])
    points = geometry.project(mean, basis, params, local)
    for index in (0, 33, 67):
        shape = mean[index] + basis[index] @ local
        expected = params[0] * (rotation @ shape)[:2] + params[4:]
        np.testing.assert_allclose(points[index], expected, atol=1e-10)


@pytest.mark.parametrize("angle", [0.0, 0.2, -1.3, 3.0])
def test_projecting_transformed_parameters_equals_transforming_the_points(angle: float) -> None:
    mean, basis = random_pdm()
    params, local = random_params(50)
    matrix = geometry.similarity_matrix(0.7, angle, (12.0, -5.0))
    moved = geometry.project(mean, basis, geometry.transform_global_params(matrix, params), local)
    expected = geometry.transform_points(matrix, geometry.project(mean, basis, params, local))
    assert np.abs(moved - expected).max() < 1e-4


def test_projecting_flipped_parameters_of_a_symmetric_pdm_flips_the_points() -> None:
    mean, basis = random_pdm()
    mirror = np.array([-1.0, 1.0, 1.0])
    mean = (mean + mean[MIRROR] * mirror) / 2
    params, _ = random_params(50)
    still = np.zeros((50, 34))
    flipped = geometry.project(mean, basis, geometry.flip_global_params(params), still)
    expected = geometry.flip_landmarks(geometry.project(mean, basis, params, still))
    assert np.abs(flipped - expected).max() < 1e-4


def test_flipping_landmarks_agrees_with_flipping_the_image() -> None:
    image = np.zeros((112, 112), np.uint8)
    image[40, 30] = 255
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36] = (30, 40)
    y, x = np.argwhere(image[:, ::-1])[0]
    np.testing.assert_array_equal(geometry.flip_landmarks(landmarks)[45], (x, y))


def test_a_transform_with_theta_zero_leaves_the_angles() -> None:
    params, _ = random_params(5)
    matrix = geometry.similarity_matrix(2.0, 0.0, (3.0, 4.0))
    moved = geometry.transform_global_params(matrix, params)
    np.testing.assert_allclose(moved[:, 1:4], params[:, 1:4], atol=1e-12)
    np.testing.assert_allclose(moved[:, 0], 2 * params[:, 0])


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1.0, 0.2, 0], [0, 1, 0]]),  # shears
        np.array([[-1.0, 0, 0], [0, 1, 0]]),  # mirrors
        np.zeros((2, 3)),
        np.full((2, 3), np.nan),
    ],
)
def test_matrices_that_are_no_similarity_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="similarity"):
        geometry.transform_global_params(matrix, np.ones(6))


def test_inverting_a_collapsed_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="inverted"):
        geometry.invert(np.zeros((2, 3)))


def test_crop_space_results_return_to_the_frame() -> None:
    mean, basis = random_pdm()
    params, local = random_params(3)
    landmarks = geometry.project(mean, basis, params, local)
    warp = np.stack([geometry.standard_crop_matrix(points) for points in landmarks])
    in_crop = geometry.transform_points(warp, landmarks)
    crop_params = geometry.transform_global_params(warp, params)
    back = geometry.to_frame(warp, landmarks=in_crop, global_params=crop_params)
    np.testing.assert_allclose(back["landmarks"], landmarks, atol=1e-8)
    np.testing.assert_allclose(back["global_params"], params, atol=1e-8)


def test_standard_crop_holds_all_landmarks_around_its_centre() -> None:
    landmarks = RNG.uniform(100, 400, (68, 2))
    inside = geometry.transform_points(geometry.standard_crop_matrix(landmarks), landmarks)
    low, high = inside.min(axis=0), inside.max(axis=0)
    np.testing.assert_allclose((low + high) / 2, 55.5, atol=1e-9)
    assert (high - low).max() == pytest.approx(112 / 1.4)


def test_standard_crop_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="not possible"):
        geometry.standard_crop_matrix(np.full((68, 2), 5.0))


@pytest.mark.parametrize("side", [60.0, 112.0, 300.0])
def test_a_drawn_blob_lands_where_the_crop_matrix_says(side: float) -> None:
    y, x = np.mgrid[:480, :640]
    frame = 255 * np.exp(-((x - 330.3) ** 2 + (y - 210.7) ** 2) / (2 * 6.0**2))
    frame = np.repeat(frame.astype(np.uint8)[..., None], 3, axis=2)
    matrix = geometry.square_crop_matrix(np.array([320.0, 215.0]), side)
    crop = crop_frame(frame, matrix)[..., 0].astype(np.float64)
    y, x = np.mgrid[:112, :112]
    found = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    expected = geometry.transform_points(matrix, np.array([[330.3, 210.7]]))[0]
    assert np.abs(found - expected).max() < 0.1


def test_strong_shrinking_does_not_alias() -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = FaceAligner().align(stripes, (0, 0, 790, 790))
    assert crop[10:-10, 10:-10].std() < 3


def test_crops_beyond_the_edge_replicate_it() -> None:
    frame = np.full((50, 50, 3), 200, np.uint8)
    assert (FaceAligner().align(frame, (-100, -100, 300, 300)) == 200).all()


@pytest.mark.parametrize(
    "frame", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8), None]
)
def test_frames_that_are_no_bgr_image_are_refused(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frame"):
        FaceAligner().align(frame, (0, 0, 5, 5))


def test_a_box_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="width, height with an area"):
        FaceAligner().align(np.zeros((5, 5, 3), np.uint8), (0, 0, 0, 0))


def test_one_pixel_grid_maps_onto_itself() -> None:
    frame = RNG.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(FaceAligner().align(frame, (0, 0, 112, 112)), frame)
    assert cv2.warpAffine is not None
