"""The open labeller on nets that know where the drawn faces are: mapping, fitting, following."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import Blob, boxes_of, draw_frame
from labelled_videos import film, moving_face, write_csv
from test_generate import ring_pdm

from mlx_faceau.core import geometry
from mlx_faceau.core.pdm import write_pdm
from mlx_faceau.data.labels import mediapipe
from mlx_faceau.data.labels.face_mesh import Mesh, Pyramid, Region
from mlx_faceau.data.labels.generate import TrainingDataGenerator
from mlx_faceau.data.labels.mediapipe import IBUG, FaceTracks, MediaPipeLabeller, search_regions
from mlx_faceau.data.labels.quality import Limits
from mlx_faceau.errors import BackendError, DatasetError
from mlx_faceau.video.results import Frame

PDM_POSE, SHAPE = np.array([0.6, 0.15, -0.2, 0.1]), np.linspace(-1.5, 1.5, 34)


class DrawnFaces:
    """In place of the nets: finds the coloured discs of a picture.

    A disc's 68 points are a projection of the ring model in a known pose and shape. What a region
    shows is the disc nearest to its centre, if that lies in it; else nothing is present.
    """

    searches = 0

    def __init__(self, model: object) -> None:
        pass

    def detect(self, picture: Pyramid, region: Region) -> list[tuple[float, Region]]:
        type(self).searches += 1
        found = []
        for x, y, width, height in boxes_of(picture._levels[0]):
            middle = np.array([x + width / 2, y + height / 2])
            if (np.abs(middle - region.centre) < region.side / 2).all():
                found.append((0.9, Region(middle, 1.5 * width, 0.0)))
        return found

    def fit(self, picture: Pyramid, region: Region) -> Mesh:
        boxes = np.array(boxes_of(picture._levels[0])).reshape(-1, 4)
        middles = boxes[:, :2] + boxes[:, 2:] / 2
        apart = np.linalg.norm(middles - region.centre, axis=1)
        if len(apart) == 0 or apart.min() > region.side / 2:
            return Mesh(mesh_points(np.array([1e3, 1e3])), 0.1)
        return Mesh(mesh_points(middles[apart.argmin()]), 0.97)

    def verified(self, picture: Pyramid, mesh: Mesh) -> Mesh:
        return mesh

    def scores(self, mesh: Mesh) -> np.ndarray:
        return np.linspace(0, 1, 52).astype(np.float32)


def pose_at(middle: np.ndarray) -> np.ndarray:
    return np.r_[PDM_POSE, middle]


def mesh_points(middle: np.ndarray) -> np.ndarray:
    pdm = ring_pdm()
    points = np.zeros((478, 3))
    points[:, :2] = middle
    points[IBUG, :2] = geometry.project(pdm.mean, pdm.basis, pose_at(middle), SHAPE)
    return points


def units_of(mesh: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Tells faces apart by where they are."""
    assert mesh.dtype == np.float32
    assert mesh.shape[1:] == (478, 3)
    assert scores.shape == (len(mesh), 52)
    return (np.arange(17) / 17 + mesh[:, 1, :1] / 320).astype(np.float32)


@pytest.fixture(autouse=True)
def _drawn_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediapipe, "FaceMesh", DrawnFaces)
    monkeypatch.setattr(DrawnFaces, "searches", 0)
    monkeypatch.setattr(mediapipe, "read_action_units", units_of)


def test_points_become_landmarks_parameters_and_units(tmp_path: Path) -> None:
    picture = tmp_path / "two.png"
    cv2.imwrite(str(picture), draw_frame([Blob(80, 120, 40, 0), Blob(230, 110, 40, 1)]))
    generator = TrainingDataGenerator(
        "mediapipe", label_model="any.task", pdm=ring_pdm(), limits=Limits(min_sharpness=0)
    )
    samples = list(generator.process_video(picture))
    assert [sample["face_id"] for sample in samples] == [0, 1]
    for sample, x in zip(samples, (80.5, 230.5), strict=True):
        back = geometry.to_frame(
            sample["warp_matrix"], sample["landmarks"], sample["global_params"]
        )
        middle = np.array([x, {80.5: 120.5, 230.5: 110.5}[x]])
        np.testing.assert_allclose(back["landmarks"], mesh_points(middle)[IBUG, :2], atol=1.01)
        np.testing.assert_allclose(back["global_params"][:4], PDM_POSE, atol=0.02)
        np.testing.assert_allclose(back["global_params"][4:], middle, atol=1.5)
        assert np.corrcoef(sample["local_params"], SHAPE)[0, 1] > 0.97
        np.testing.assert_allclose(
            sample["au_intensities"], np.arange(17) / 17 + middle[0] / 320, atol=0.01
        )
        assert sample["measures"]["confidence"] == pytest.approx(0.97)
        assert sample["measures"]["landmark_error"] < 0.5
    report = generator.report
    assert (report.frames, report.kept, report.labeller) == (1, 2, "mediapipe")
    assert report.pdm == {"name": "given", "hash": ring_pdm().hash}


def test_the_68_points_are_each_another_and_mirror_each_other() -> None:
    assert len(set(IBUG.tolist())) == len(IBUG) == 68


def track(videos: list[list[Blob]], rate: float = 25.0) -> list[dict[int, float]]:
    """For each frame the numbers of the faces and where they are across."""
    tracks = FaceTracks(DrawnFaces(None))
    frames = (Frame(i, i / rate, draw_frame(blobs)) for i, blobs in enumerate(videos))
    return [{n: round(mesh.points[1, 0]) for n, mesh in tracks(frame).items()} for frame in frames]


def test_faces_keep_their_numbers_and_a_video_is_not_searched_in_every_frame() -> None:
    videos = [[Blob(80 + 2 * i, 110, 40, 0), Blob(240 - i, 120, 40, 1)] for i in range(20)]
    found = track(videos)
    assert all(set(faces) == {0, 1} for faces in found)
    assert [faces[0] for faces in found] == pytest.approx([80 + 2 * i for i in range(20)], abs=1.5)
    assert DrawnFaces.searches == len(search_regions(320, 240, (2,)))  # once


def test_a_face_that_leaves_is_dropped_and_one_that_comes_is_found() -> None:
    here, there = Blob(80, 110, 40, 0), Blob(240, 120, 40, 1)
    found = track([[here], [here], [], [], [there], [there, here], *[[there, here]] * 30])
    assert [list(faces) for faces in found[:5]] == [[0], [0], [], [], [1]]
    assert found[5] == {1: pytest.approx(240, abs=1.5)}  # until the next search, a second later
    assert set(found[-1]) == {1, 2}


def test_a_face_that_jumps_is_found_at_once() -> None:
    found = track([[Blob(80, 110, 40, 0)], [Blob(240, 110, 40, 0)]])
    assert [list(faces.values()) for faces in found] == [
        [pytest.approx(80, abs=1.5)],
        [pytest.approx(240, abs=1.5)],
    ]


@pytest.mark.parametrize(
    ("width", "height"), [(640, 360), (500, 500), (200, 1000), (7, 3), (1200, 800)]
)
def test_every_place_of_a_picture_lies_well_inside_a_tile(width: int, height: int) -> None:
    """A face of a quarter of the longer side fits whole into one tile, wherever it lies."""
    whole, _, *tiles = search_regions(width, height, (2, 4))
    assert whole.side == max(width, height)
    half = whole.side / 8
    for x in np.linspace(half, width - half, 23) if width > 2 * half else [width / 2]:
        for y in np.linspace(half, height - half, 23) if height > 2 * half else [height / 2]:
            edge = np.array([x - 0.5, y - 0.5])
            assert any(
                (np.abs(edge - tile.centre) + half <= tile.side / 2 + 1e-6).all() for tile in tiles
            )


def test_smaller_tiles_are_for_large_pictures() -> None:
    sides = [{region.side for region in search_regions(w, 300, (2, 4))} for w in (500, 1020, 1030)]
    assert sides == [{500, 1000, 250}, {1020, 2040, 510}, {1030, 2060, 515, 257.5}]


def test_auto_takes_the_csv_then_the_given_model_and_says_the_four_ways(tmp_path: Path) -> None:
    faces = moving_face(3)
    with_csv, without = film(tmp_path / "a.mp4", faces), film(tmp_path / "b.mp4", faces)
    write_csv(tmp_path / "a.csv", faces)
    write_pdm(tmp_path / "pdm.txt", ring_pdm())
    generator = TrainingDataGenerator(
        label_model="any.task", pdm=tmp_path / "pdm.txt", limits=Limits(min_change=0)
    )
    for video, name in (
        (with_csv, "openface-csv"),
        (without, "mediapipe"),
        (with_csv, "openface-csv"),
    ):
        list(generator.process_video(video))
        assert generator.report.labeller == name
        assert generator.report.pdm["hash"] == ring_pdm().hash
    with pytest.raises(DatasetError, match=r"b\.csv.*--label-model.*pyfaceau.*callable:"):
        next(TrainingDataGenerator().process_video(without))


def test_without_a_model_file_the_labeller_says_where_to_get_it() -> None:
    with pytest.raises(BackendError, match=r"--label-model.*googleapis"):
        MediaPipeLabeller(None)
