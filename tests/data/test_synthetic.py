"""Synthetic people: exact labels, reproducible bytes, action units that move and draw."""

import numpy as np
import pytest

from mlx_faceau.cli.main import main
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.synthetic.people import (
    _expression,
    paint_face,
    sample_appearance,
    synthesize,
    write_synthetic,
)
from mlx_faceau.data.synthetic.shape import interpolation, marks, shape_model


@pytest.fixture(scope="module")
def faces():
    return synthesize(40, seed=5)


def projected(params, local):
    """Weak perspective with three plain rotation matrices."""
    model = shape_model()
    scale, rx, ry, rz, tx, ty = (float(value) for value in params)
    about_x = [[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]]
    about_y = [[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]]
    about_z = [[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]]
    rotation = np.array(about_x) @ np.array(about_y) @ np.array(about_z)
    shape = model.mean + model.basis @ local.astype(np.float64)
    return scale * (shape @ rotation.T)[:, :2] + [tx, ty]


def test_landmarks_are_the_projection_of_the_parameters(faces):
    for landmarks, params, local in zip(
        *(faces[name] for name in ("landmarks", "global_params", "local_params")), strict=True
    ):
        np.testing.assert_allclose(landmarks, projected(params, local), atol=1e-3)


def test_faces_fill_the_standard_crop(faces):
    low, high = faces["landmarks"].min(axis=1), faces["landmarks"].max(axis=1)
    np.testing.assert_allclose((low + high) / 2, 55.5, atol=1e-3)
    np.testing.assert_allclose((high - low).max(axis=1), 112 / 1.4, atol=1e-3)


def test_boxes_and_matrices_lead_from_the_frame_to_the_crop(faces):
    corners = np.stack([faces["bboxes"][:, :2], faces["bboxes"][:, :2] + faces["bboxes"][:, 2:]], 1)
    matrix = faces["warp_matrices"]
    mapped = np.einsum("nij,npj->npi", matrix[:, :, :2], corners) + matrix[:, None, :, 2]
    landmarks = faces["landmarks"]
    np.testing.assert_allclose(mapped[:, 0], landmarks.min(axis=1), atol=1e-2)
    np.testing.assert_allclose(mapped[:, 1], landmarks.max(axis=1), atol=1e-2)


def test_intensities_are_sparse_and_in_range(faces):
    units = faces["au_intensities"]
    assert units.min() == 0
    assert units.max() <= 5
    assert 0.1 < (units > 0).mean() < 0.4


def test_opposed_units_are_never_active_together():
    units = np.stack([_expression(np.random.default_rng(seed)) for seed in range(300)])
    for pair in (("AU05_r", "AU45_r"), ("AU12_r", "AU15_r"), ("AU20_r", "AU23_r")):
        first, second = (units[:, AU_NAMES.index(name)] for name in pair)
        assert not ((first > 0) & (second > 0)).any()
        assert (first > 1).sum() >= 30
        assert (second > 1).sum() >= 30


def test_pose_stays_within_its_limits(faces):
    angles = np.degrees(np.abs(faces["global_params"][:, 1:4]))
    assert (angles <= [20.01, 30.01, 20.01]).all()


def test_the_same_seed_gives_the_same_bytes_and_more_pictures_leave_the_first_ones_alone():
    first, again = synthesize(6, 1, people=3), synthesize(6, 1, people=3)
    for name in first:
        assert first[name].tobytes() == again[name].tobytes()
    np.testing.assert_array_equal(
        synthesize(4, 1, people=2)["images"], synthesize(6, 1, people=3)["images"][:4]
    )
    assert (synthesize(6, 2)["images"] != first["images"]).mean() > 0.5


def test_pictures_of_a_person_share_its_shape_but_not_its_pose():
    faces = synthesize(8, 3, people=2)
    assert faces["person"].tolist() == [0] * 4 + [1] * 4
    model = shape_model()
    neutral = faces["local_params"] - faces["au_intensities"] @ model.expression
    np.testing.assert_allclose(neutral[:4], neutral[:1].repeat(4, axis=0), atol=1e-4)
    assert np.abs(neutral[0] - neutral[4]).max() > 1
    assert np.ptp(faces["global_params"][:4, 2]) > 0.01


@pytest.mark.parametrize("arguments", [(0, 1), (4, -1), (4, 1, 5), (4, 1, 0)])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        synthesize(*arguments)


@pytest.mark.parametrize("ending", [".csv", ".PNG", ".safetensors"])
def test_a_file_of_another_format_s_ending_is_not_written(tmp_path, capsys, ending):
    source, target = str(tmp_path / "a.h5"), str(tmp_path / f"faces{ending}")
    assert main(["data", "synth", "--count", "2", "--output", source]) == 0
    capsys.readouterr()
    for words in (["synth", "--count", "2"], ["merge", source], ["convert", source]):
        assert main(["data", *words, "--output", target]) == 2
        error = capsys.readouterr().err
        assert f"faces{ending}: a training file is HDF5; end its name with .h5" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_the_written_file_holds_the_same_faces(tmp_path, faces):
    write_synthetic(tmp_path / "faces.h5", 40, seed=5)
    dataset = FaceDataset(tmp_path / "faces.h5")
    np.testing.assert_array_equal(dataset.read_images(range(40)), faces["images"])
    for name, values in dataset.labels.items():
        np.testing.assert_array_equal(values, faces[name])
    assert len(set(dataset.subjects)) == 5
    assert dataset.outside == 0


def test_modes_are_orthonormal_and_leave_the_pose_alone():
    model = shape_model()
    modes = model.basis.reshape(204, 34)
    np.testing.assert_allclose(modes.T @ modes, np.eye(34), atol=1e-12)
    shifts = [np.tile(axis, (68, 1)) for axis in np.eye(3)]
    turns = [np.cross(axis, model.mean) for axis in np.eye(3)]
    for motion in (*shifts, *turns, model.mean):
        np.testing.assert_allclose(motion.reshape(-1) @ modes, 0, atol=1e-9)


def test_the_mean_face_is_symmetric():
    mirrored = shape_model().mean[MIRROR] * [-1, 1, 1]
    np.testing.assert_array_equal(mirrored, shape_model().mean)


def test_action_units_move_points_in_different_directions():
    moves = shape_model().expression
    assert np.linalg.matrix_rank(moves, tol=1e-3) == 17


def test_marks_follow_a_moved_and_turned_face_exactly():
    model = shape_model()
    points = np.array([[-60.0, -70.0, 10.0], [5.0, 60.0, -8.0]])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    displaced = model.mean @ turn.T + [3, 4, 5] - model.mean
    followed = points + interpolation(points) @ displaced
    np.testing.assert_allclose(followed, points @ turn.T + [3, 4, 5], atol=1e-8)


@pytest.mark.parametrize("unit", range(17), ids=AU_NAMES)
def test_every_action_unit_can_be_seen(unit):
    """Neutral against full intensity, same person, pose and light: many pixels change a lot."""
    model, scale = shape_model(), 0.55

    def picture(intensity):
        units = np.zeros(17, np.float32)
        units[unit] = intensity
        shape = model.basis @ (units @ model.expression)
        flat = scale * (model.mean + shape)[:, :2] + [55.5, 50]
        points = scale * (marks().points + marks().weights @ shape)[:, :2] + [55.5, 50]
        looks = sample_appearance(np.random.default_rng(3))
        return paint_face(flat, points, units, looks, scale, np.random.default_rng(4)).astype(int)

    change = np.abs(picture(5) - picture(0)).max(axis=2)
    assert (change > 20).sum() >= 60
