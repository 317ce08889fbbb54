"""The face mesh pipeline against closed forms, and against the package whose nets it runs."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlx_faceau.core.geometry import transform_points
from mlx_faceau.data.labels import face_mesh
from mlx_faceau.data.labels.face_mesh import FaceMesh, Mesh, Pyramid, Region
from mlx_faceau.errors import BackendError, MissingDependency


def test_anchors_are_the_cells_of_both_grids_in_reading_order() -> None:
    anchors = face_mesh.anchors()
    assert anchors.shape == (16 * 16 * 2 + 8 * 8 * 6, 2)
    np.testing.assert_array_equal(anchors[:4], [[4, 4], [4, 4], [12, 4], [12, 4]])
    np.testing.assert_array_equal(anchors[32], [4, 12])
    np.testing.assert_array_equal(anchors[512:520], [[8, 8]] * 6 + [[24, 8]] * 2)
    np.testing.assert_array_equal(anchors[-1], [120, 120])


def test_overlapping_detections_are_averaged_by_score_and_weak_ones_left_out() -> None:
    """Two of one face, one of another, one below the threshold; box sizes need no anchor."""
    anchors = np.array([[20.0, 20], [28, 20], [90, 90], [60, 60]])
    outputs = np.zeros((4, 8, 2))
    outputs[:, 1] = [[24, 24], [24, 24], [10, 20], [30, 30]]
    outputs[:, 2] = 3
    scores = np.array([0.9, 0.6, 0.8, 0.49])
    (first, one), (second, other) = face_mesh.decode(outputs, scores, anchors)
    assert (first, second) == (0.9, 0.8)
    x = (0.9 * 20 + 0.6 * 28) / 1.5
    np.testing.assert_allclose(one[:3], [[x - 12, 8], [x + 12, 32], [x + 3, 23]])
    np.testing.assert_allclose(other[:3], [[85, 80], [95, 100], [93, 93]])


def test_overlap_is_intersection_over_union() -> None:
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 3]])
    np.testing.assert_allclose(face_mesh.overlap(box, others), [1, 1 / 3, 0, 0])
    assert face_mesh.overlap(np.zeros(4), np.zeros((1, 4))).tolist() == [0]


def test_a_regions_square_fills_the_nets_input_edge_on_edge() -> None:
    angle = 0.3
    across, down = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    region = Region(np.array([50.0, 70.0]), 40.0, angle)
    corners = [region.centre + 20 * (i * across + j * down) for i, j in ((-1, -1), (1, -1), (1, 1))]
    found = transform_points(region.matrix(256), np.array(corners))
    np.testing.assert_allclose(found, [[-0.5, -0.5], [255.5, -0.5], [255.5, 255.5]], atol=1e-9)


def test_without_litert_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("face_detector", "face_landmarks_detector", "face_blendshapes")
    model = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(model, "w") as task:
        for part in parts:
            task.writestr(f"{part}.tflite", b"")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    monkeypatch.setattr(face_mesh, "MODEL_SHA256", digest)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependency, match=r"mlx-faceau\[label\]"):
        FaceMesh(model)


@pytest.mark.parametrize("side", [100.0, 900.0, 4000.0], ids=["enlarged", "halved", "much reduced"])
def test_a_crop_shows_what_lies_there_at_any_scale(side: float) -> None:
    """A round spot's centre tells, to a fraction of a pixel, also through halved copies."""
    spot, spread = np.array([620.3, 480.6]), min(side / 16, 100)
    y, x = np.mgrid[:1101, :1300]
    height = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * spread**2))
    picture = np.zeros((1101, 1300, 3), np.uint8)
    picture[..., 2] = (250 * height).round()
    region = Region(np.array([650.0, 500.0]) if side > 500 else spot + 7, side, 0.2)
    crop = Pyramid(picture).warp(region.matrix(64), 64).astype(float)
    assert crop[..., 1:].max() == 0  # red comes first
    grid = np.mgrid[:64, :64][::-1].reshape(2, -1)
    centre = (grid * crop[..., 0].ravel()).sum(axis=1) / crop[..., 0].sum()
    expected = transform_points(region.matrix(64), spot[np.newaxis])[0]
    np.testing.assert_allclose(centre, expected, atol=0.02)


def test_the_next_region_moves_turns_and_grows_with_the_face() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-50, 50, (478, 3))
    points[[33, 263], :2] = [[-20, -10], [20, -10]]
    points[:2, :2] = [[-60, -70], [60, 70]]  # the box
    here = Mesh(points, 1.0).region
    assert (here.side, here.angle) == (pytest.approx(1.375 * 140), 0)
    np.testing.assert_allclose(here.centre, [0, 0.038 * here.side])
    moved = points * 2 + [30, 40, 0]
    there = Mesh(moved, 1.0).region
    assert there.side == pytest.approx(2 * here.side)
    np.testing.assert_allclose(there.centre, 2 * here.centre + [30, 40])
    quarter = Mesh(np.stack([-points[:, 1], points[:, 0], points[:, 2]], axis=1), 1.0).region
    assert quarter.angle == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(quarter.centre, [-here.centre[1], here.centre[0]], atol=1e-9)


def test_a_missing_model_and_another_one_name_the_place_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"No such file.*storage\.googleapis\.com"):
        FaceMesh(tmp_path / "face_landmarker.task")
    other = tmp_path / "other.task"
    other.write_bytes(b"PK")
    with pytest.raises(BackendError, match=r"SHA-256 is .* expected 64184e229b26.*googleapis"):
        FaceMesh(other)


def test_the_packages_points_and_scores_come_out(shared_folder: Path) -> None:
    """The same nets on a public-domain portrait, of which the mediapipe package kept its numbers.

    Its pictures are cut half a pixel of the net's input further to the right and down, and its
    points lie as far from the pixels that they mark (see the mirrored portrait below).
    """
    pytest.importorskip("ai_edge_litert")
    from mlx_faceau.data.labels.mediapipe import find_faces

    data = pytest.importorskip("skimage.data")
    truth = json.loads((Path(__file__).parent / "astronaut_landmarks.json").read_text())
    net = FaceMesh(shared_folder / "open" / "face_landmarker.task")
    portrait = np.ascontiguousarray(data.astronaut()[..., ::-1])
    (mesh,) = find_faces(net, Pyramid(portrait))
    expected = np.array(truth["points"]) - 0.5 * mesh.region.side / 256
    size = np.ptp(expected, axis=0).max()
    assert np.linalg.norm(mesh.points[:, :2] - expected, axis=1).mean() < 0.005 * size
    scores = net.scores(mesh)
    assert np.abs(scores - list(truth["scores"].values())).max() < 0.06
    assert scores[list(truth["scores"]).index("mouthSmileLeft")] > 0.5  # she smiles
    assert mesh.presence > 0.99


def test_points_of_mirrored_faces_are_the_mirrored_points_on_average(shared_folder: Path) -> None:
    """Which a shift of the coordinates by half a pixel of the net's input would not survive."""
    pytest.importorskip("ai_edge_litert")
    from mlx_faceau.core.landmarks import MIRROR
    from mlx_faceau.data.labels.mediapipe import IBUG, find_faces

    net = FaceMesh(shared_folder / "open" / "face_landmarker.task")
    faces = np.load(shared_folder / "open" / "posed_dev.npz")
    starts = faces["jpeg_offsets"]
    shifts = []
    for number in range(0, len(starts) - 1, 8):
        face = cv2.imdecode(faces["jpeg"][starts[number] : starts[number + 1]], cv2.IMREAD_COLOR)
        (one, *_) = find_faces(net, Pyramid(face))
        (other, *_) = find_faces(net, Pyramid(np.ascontiguousarray(face[:, ::-1])))
        back = other.points[IBUG, 0][MIRROR]
        back = face.shape[1] - 1 - back
        shifts.append((back - one.points[IBUG, 0]).mean() / (one.region.side / 256))
    assert abs(np.mean(shifts)) < 0.3  # twice the offset, in pixels of the net's input


def test_a_smiling_portrait_becomes_a_training_sample(shared_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from mlx_faceau.core.facs import AU_NAMES
    from mlx_faceau.core.pdm import OPEN_PDM, read_pdm
    from mlx_faceau.data.labels.generate import TrainingDataGenerator

    data = pytest.importorskip("skimage.data")
    cv2.imwrite(str(tmp_path / "portrait.png"), data.astronaut()[..., ::-1])
    model = shared_folder / "open" / "face_landmarker.task"
    generator = TrainingDataGenerator("mediapipe", label_model=model)
    (sample,) = generator.process_video(tmp_path / "portrait.png")
    units = dict(zip(AU_NAMES, sample["au_intensities"].tolist(), strict=True))
    assert max(units, key=units.__getitem__) == "AU12_r"
    assert units["AU12_r"] > 3
    assert np.abs(sample["global_params"][1:4]).max() < np.radians(15)  # she looks at the camera
    assert sample["measures"]["landmark_error"] < 0.8
    assert generator.report.pdm == {"name": "open", "hash": read_pdm(OPEN_PDM).hash}
