"""A training file of made expressions: same bytes again, labels that add up, provenance."""

import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("h5py")

from conftest import REPOSITORY

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.pdm import OPEN_PDM, read_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.label_provenance import labellers
from mlx_faceau.data.labels.facs_reading import load_table, read_action_units
from mlx_faceau.data.labels.open_pdm import read_ict_facekit
from mlx_faceau.data.synthetic.expression_model import AU_SHAPES, expression_model, shape_names
from mlx_faceau.data.synthetic.expression_render import move_mesh
from mlx_faceau.data.synthetic.expression_synthesis import make_expressions
from mlx_faceau.data.synthetic.mesh_points import LOWER_LIP, UPPER_LIP
from mlx_faceau.errors import DatasetError

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import make_expressions as command


@pytest.fixture(scope="module")
def model(shared_folder):
    path = shared_folder / "open" / "ict_facekit.npz"
    if not path.exists():
        pytest.skip("ICT-FaceKit is not here")
    return expression_model(read_ict_facekit(path))


def neutral_face():
    """A smooth picture (200, 200, 3), the mesh of the mean neutral face, its scores."""
    table = load_table()
    mesh = table.mean * [1, -1, -1]
    mesh = mesh * (120 / np.ptp(mesh[:, 1])) + [100, 95, 0]
    coarse = np.random.default_rng(2).uniform(90, 200, (6, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (200, 200)).astype(np.uint8), mesh, table.neutral_scores


def test_every_unit_has_its_shapes_in_the_model(model):
    for shapes in AU_SHAPES.values():
        for shape in shapes:
            assert set(shape_names(shape, model.names)) <= set(model.names)


def test_no_triangle_joins_the_lips_and_all_are_the_same_way_round(model):
    joins = np.isin(model.triangles, UPPER_LIP).any(1) & np.isin(model.triangles, LOWER_LIP).any(1)
    assert not joins.any()
    corners = model.neutral[model.triangles][..., :2]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] > -1e-6).mean() > 0.97


def test_light_changes_where_a_shape_bends_the_skin_and_nowhere_without_one(model):
    np.testing.assert_allclose(model.light_ratio(np.zeros(len(model.names)), 1.0), 1, atol=1e-5)
    smile = np.array([float(name.startswith("mouthSmile")) for name in model.names])
    ratio = model.light_ratio(smile)
    assert ratio.min() < 0.85
    assert np.abs(ratio[:40] - 1).max() < 0.05  # the forehead


def test_units_of_a_made_face_are_the_photographs_and_what_was_added(model):
    picture, mesh, scores = neutral_face()
    reading = read_action_units(mesh, scores)[0]
    made = list(make_expressions(picture, mesh, scores, model, np.random.default_rng(0), 6))
    assert len(made) == 7
    parted = AU_NAMES.index("AU25_r")
    for each in made:
        expected = np.clip(reading + each.expression.mean_intensities, 0, 5)
        others = np.arange(17) != parted
        np.testing.assert_allclose(each.au_intensities[others], expected[others], atol=1e-5)
        assert each.au_intensities[parted] >= expected[parted] - 1e-5


def test_the_same_seed_makes_the_same_faces(model):
    picture, mesh, scores = neutral_face()
    first, second = (
        list(make_expressions(picture, mesh, scores, model, np.random.default_rng(5), 3))
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.face.image, other.face.image)
        np.testing.assert_array_equal(one.face.landmarks, other.face.landmarks)


def test_the_reading_sees_what_was_added_in_the_moved_mesh(model):
    _, mesh, scores = neutral_face()
    for name in ("AU09_r", "AU04_r", "AU15_r"):
        read = []
        for intensity in (0.0, 2.0, 4.0):
            units = np.array([intensity * (au == name) for au in AU_NAMES])
            moved = move_mesh(model, mesh, model.amounts(units)).mesh
            read.append(read_action_units(moved, scores)[0, AU_NAMES.index(name)])
        assert read[0] + 0.5 < read[1] < read[2]


def test_the_command_writes_a_training_file(shared_folder, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("skimage")
    from skimage.data import astronaut

    open_folder = shared_folder / "open"
    if not (open_folder / "ict_facekit.npz").exists():
        pytest.skip("ICT-FaceKit is not here")
    (tmp_path / "faces").mkdir()
    cv2.imwrite(str(tmp_path / "faces" / "one.png"), astronaut()[:300, 80:380, ::-1])
    arguments = [str(tmp_path / "faces"), str(open_folder / "ict_facekit.npz"), "--each", "1"]
    arguments += ["--label-model", str(open_folder / "face_landmarker.task"), "--output"]
    images = []
    for name in ("a.h5", "b.h5"):
        monkeypatch.setattr("sys.argv", ["make_expressions.py", *arguments, str(tmp_path / name)])
        command.main()
        dataset = FaceDataset(tmp_path / name)
        images.append(dataset.read_images(range(len(dataset.labels["landmarks"]))))
        assert dataset.outside == 0
        assert set(dataset.subjects) == {"one"}
    np.testing.assert_array_equal(*images)
    (used,) = labellers(tmp_path / "a.h5")
    assert used["labeller"] == "mediapipe"
    assert used["pdm"]["hash"] == read_pdm(OPEN_PDM).hash


def test_a_file_without_faces_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(DatasetError, match=r"other\.npz: no folder and no \.npz of faces"):
        list(command.photographs(tmp_path / "other.npz", None))
    with pytest.raises(DatasetError, match="no photograph there"):
        list(command.photographs(tmp_path, None))
