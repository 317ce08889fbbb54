"""Properties that hold for all input: geometry's identities and the predictors' contract.

Hypothesis searches for the input that breaks one, and shrinks what it finds.
"""

import math
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from random_nets import AU, BOTH, LANDMARK, random_crops

from mlx_faceau.core.geometry import (
    euler_to_matrix,
    flip_global_params,
    flip_landmarks,
    invert,
    matrix_to_euler,
    project,
    similarity_matrix,
    standard_crop_matrix,
    to_frame,
    transform_global_params,
    transform_points,
)
from mlx_faceau.core.preprocess import check_crops, to_network_input

settings.register_profile("patient", deadline=None, max_examples=50)  # a busy machine is no defect
settings.load_profile("patient")

angles = arrays.arrays(np.float64, 3, elements=st.floats(-1.5, 1.5))
similarities = st.builds(
    similarity_matrix,
    st.floats(0.05, 20),
    st.floats(-math.pi, math.pi),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
point_sets = arrays.arrays(np.float64, (68, 2), elements=st.floats(-300, 300, width=32))
face_params = st.builds(
    lambda scale, turned, shift: np.array([scale, *turned, *shift]),
    st.floats(0.05, 10),
    angles,
    st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
)


@pytest.fixture(scope="module")
def shape_model() -> tuple[np.ndarray, np.ndarray]:
    """Mean (68, 3) and basis (68, 3, 34) of a made-up PDM."""
    rng = np.random.default_rng(3)
    return rng.normal(0, 20, (68, 3)), rng.normal(0, 1, (68, 3, 34))


# --- geometry


@given(angles)
def test_angles_come_back_from_their_rotation(turned):
    rotation = euler_to_matrix(turned)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix_to_euler(rotation), turned, atol=1e-9)


@given(similarities, point_sets)
def test_a_similarity_and_its_inverse_leave_the_points(matrix, points):
    there = transform_points(matrix, points)
    scale = np.abs(there).max() + 1
    np.testing.assert_allclose(transform_points(invert(matrix), there), points, atol=1e-9 * scale)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(similarities, face_params, arrays.arrays(np.float64, 34, elements=st.floats(-5, 5)))
def test_projected_parameters_move_as_the_points_do(shape_model, matrix, params, local):
    mean, basis = shape_model
    points = transform_points(matrix, project(mean, basis, params, local))
    moved = project(mean, basis, transform_global_params(matrix, params), local)
    np.testing.assert_allclose(moved, points, atol=1e-9 * (np.abs(points).max() + 1))


@given(point_sets, face_params)
def test_flipping_twice_changes_nothing(points, params):
    np.testing.assert_allclose(flip_landmarks(flip_landmarks(points)), points, atol=1e-9)
    np.testing.assert_allclose(flip_global_params(flip_global_params(params)), params, atol=1e-9)


@given(point_sets.filter(lambda points: np.ptp(points, axis=0).max() > 1))
def test_every_face_lies_inside_its_standard_crop_and_returns_to_its_frame(points):
    matrix = standard_crop_matrix(points)
    inside = transform_points(matrix, points)
    margin = 56 * (1 - 1 / 1.4)
    assert inside.min() >= 55.5 - 56 + margin - 1e-6
    assert inside.max() <= 55.5 + 56 - margin + 1e-6
    box = inside.min(axis=0) + inside.max(axis=0)
    np.testing.assert_allclose(box / 2, (55.5, 55.5), atol=1e-6)
    back = to_frame(matrix, landmarks=inside)["landmarks"]
    np.testing.assert_allclose(back, points, atol=1e-6 * (np.abs(points).max() + 1))


# --- what a predictor takes


crop_sizes = st.sampled_from(
    [(112, 112, 3), (112, 112, 4), (3, 112, 112), (111, 112, 3), (112, 112)]
)
counts = st.lists(st.sampled_from([0, 1, 2]), max_size=2).map(tuple)
shapes = st.builds(lambda count, size: (*count, *size), counts, crop_sizes | counts)
kinds = st.sampled_from(["u1", "i8", "f4", "f8", "?", "O"])


@given(st.builds(np.zeros, shapes, kinds))
def test_crops_are_taken_exactly_when_they_are_bytes_of_the_right_shape(crops):
    right = crops.dtype == np.uint8 and crops.shape[-3:] == (112, 112, 3) and crops.ndim in (3, 4)
    if right:
        assert check_crops(crops).shape[1:] == (112, 112, 3)
    else:
        with pytest.raises(ValueError, match="crops") as caught:
            check_crops(crops)
        assert "\n" not in str(caught.value)


@given(st.integers(0, 5), st.booleans(), st.booleans())
def test_views_of_an_array_are_the_pixels_they_show(count, reverse, transpose):
    crops = random_crops(count)
    view = crops[::-1] if reverse else crops
    if transpose:
        view = np.asfortranarray(view)
    again = view.copy()
    np.testing.assert_array_equal(to_network_input(view), to_network_input(again))
    expected = again[..., ::-1].astype(np.float64) / 255
    np.testing.assert_allclose(to_network_input(view), expected, atol=1e-7)


# --- what a predictor gives


def _open(config, backend, model_folders):
    from mlx_faceau import load_au_predictor, load_predictor

    if backend == "mlx":
        pytest.importorskip("mlx_faceau.models", exc_type=ImportError)
    load = load_predictor if config.kind == "landmark_pose" else load_au_predictor
    return load(model_folders[config.kind], backend=backend)


def _answers(prediction) -> np.ndarray:
    values = [v for v in prediction.values() if isinstance(v, np.ndarray)]
    return np.concatenate([v.reshape(len(v), -1) for v in values], axis=1)


@pytest.fixture(scope="module", params=["mlx", "onnx", "torch"])
def predictors(request, model_folders):
    """Both nets' predictors in one backend, with the answers to twelve crops one by one."""
    opened = {}
    for config in BOTH:
        predictor = _open(config, request.param, model_folders)
        alone = [_answers(predictor.predict_batch(crop[None])) for crop in random_crops(12)]
        opened[config.kind] = predictor, np.concatenate(alone)
    return opened


@pytest.mark.parametrize("config", [LANDMARK, AU], ids=lambda config: config.kind)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 11), min_size=1, max_size=40))
def test_a_face_gives_the_same_numbers_alone_in_any_batch_and_order(predictors, config, rows):
    predictor, alone = predictors[config.kind]
    together = _answers(predictor.predict_batch(random_crops(12)[rows]))
    tolerance = 1e-3 if config is LANDMARK else 1e-4
    np.testing.assert_allclose(together, alone[rows], rtol=0, atol=tolerance)


@pytest.mark.parametrize("config", [LANDMARK, AU], ids=lambda config: config.kind)
def test_threads_that_share_a_predictor_get_their_own_faces(predictors, config):
    predictor, alone = predictors[config.kind]
    crops, tolerance = random_crops(12), 1e-3 if config is LANDMARK else 1e-4
    wrong: list[int] = []

    def work(row: int) -> None:
        for turn in range(4):
            rows = [(row + turn) % 12] * (1 + turn)
            answer = _answers(predictor.predict_batch(crops[rows]))
            if not np.allclose(answer, alone[rows], rtol=0, atol=tolerance):
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
