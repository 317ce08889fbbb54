"""OpenFace's alignment, on faces whose pose is known because it was drawn."""

import cv2
import numpy as np
import pytest

from mlx_faceau.core import geometry
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.synthetic.shape import shape_model
from mlx_faceau.video.mean_shape import align_to_mean_shape, mean_shape_matrix

MOBILE = [*range(17, 27), *range(48, 68)]  # brows and mouth


@pytest.fixture(scope="module")
def pdm() -> PDM:
    model = shape_model()
    return PDM(model.mean, model.basis, np.full(model.basis.shape[2], 9.0))


@pytest.mark.parametrize("roll", [0.0, 0.6, -2.5])
@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_a_frontal_face_lands_on_the_mean_shape(pdm: PDM, roll: float, scale: float) -> None:
    params = np.array([scale, 0, 0, roll, 400.0, 300.0])
    points = geometry.project(pdm.mean, pdm.basis, params, np.zeros(34))
    matrix = mean_shape_matrix(pdm, points, params)
    aligned = geometry.transform_points(matrix, points)
    np.testing.assert_allclose(aligned, 0.7 * pdm.mean[:, :2] + 56, atol=1e-9)


def test_the_origin_of_the_shape_model_goes_to_the_middle(pdm: PDM) -> None:
    rng = np.random.default_rng(0)
    params = np.array([1.7, 0.15, -0.25, 0.3, 250.0, 180.0])
    points = geometry.project(pdm.mean, pdm.basis, params, rng.normal(0, 1, 34))
    matrix = mean_shape_matrix(pdm, points, params)
    np.testing.assert_allclose(matrix @ [250, 180, 1], [56, 56], atol=1e-9)


def test_brows_and_mouth_do_not_move_the_face(pdm: PDM) -> None:
    params = np.array([2.0, 0, 0, 0.2, 300.0, 200.0])
    points = geometry.project(pdm.mean, pdm.basis, params, np.zeros(34))
    moved = points.copy()
    moved[MOBILE] += np.random.default_rng(1).normal(0, 10, (len(MOBILE), 2))
    np.testing.assert_allclose(
        mean_shape_matrix(pdm, moved, params), mean_shape_matrix(pdm, points, params)
    )


def test_the_picture_shows_the_face_in_its_place_and_nothing_else(pdm: PDM) -> None:
    params = np.array([2.5, 0, 0, 0.4, 320.0, 240.0])
    points = geometry.project(pdm.mean, pdm.basis, params, np.zeros(34))
    frame = np.full((480, 640, 3), 90, np.uint8)
    for x, y in points[[30, 36, 45]]:
        cv2.circle(frame, (round(x), round(y)), 7, (0, 0, 255), -1)
    matrix = mean_shape_matrix(pdm, points, params)
    whole = cv2.warpAffine(frame, matrix, (112, 112))
    masked = align_to_mean_shape(frame, points, matrix)
    expected = 0.7 * pdm.mean[[30, 36, 45], :2] + 56
    red = whole[..., 2].astype(int) - whole[..., 0] > 120
    count, _, _, centres = cv2.connectedComponentsWithStats(red.astype(np.uint8))
    assert count == 4
    for point in expected:
        assert np.linalg.norm(centres[1:] - point, axis=1).min() < 0.7
    outline = 0.7 * pdm.mean[:, :2] + 56
    inside = masked.any(axis=2)
    np.testing.assert_array_equal(masked[inside], whole[inside])
    rows, columns = np.nonzero(inside)
    assert columns.min() >= outline[:, 0].min() - 1
    assert columns.max() <= outline[:, 0].max() + 1
    assert rows.max() <= outline[:, 1].max() + 1
    # The forehead stays: 30 px above the brows.
    assert rows.min() == pytest.approx(max(0, outline[17:27, 1].min() - 30), abs=1.5)
    assert not masked[0, 0].any()
    assert not masked[-1, -1].any()


def test_what_cannot_be_aligned_is_refused(pdm: PDM) -> None:
    with pytest.raises(ValueError, match="all in one place"):
        mean_shape_matrix(pdm, np.ones((68, 2)), np.ones(6))
    with pytest.raises(ValueError, match="68 finite points"):
        mean_shape_matrix(pdm, np.full((68, 2), np.nan), np.ones(6))
