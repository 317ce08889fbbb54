"""Results as Python objects, dicts, tables and pictures."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import Blob, BlobAUs, BlobDetector, BlobLandmarks, draw_frame, write_video

from mlx_faceau import FacePipeline
from mlx_faceau.errors import UsageError, VideoError

BLOBS = [Blob(80, 100, 40, 1), Blob(230, 120, 30, 3)]
FRAME = draw_frame(BLOBS)


@pytest.fixture
def pipeline() -> FacePipeline:
    return FacePipeline(BlobLandmarks(), BlobAUs(), BlobDetector())


def test_a_face_has_a_box_a_pose_in_degrees_and_units_by_name(pipeline: FacePipeline) -> None:
    face = pipeline.image(FRAME).faces[0]
    np.testing.assert_allclose(face.bbox, (40, 60, 80, 80), atol=1.5)
    assert (face.aus["AU12"], len(face.aus)) == (1.5, 17)
    focal = 500 * (320 / 640 + 240 / 480) / 2
    assert face.pose.position[2] == pytest.approx(focal / face.global_params[0])
    right = np.degrees(np.arctan((80 - 160) / focal))  # a frontal face left of the camera's axis
    assert face.pose.yaw == pytest.approx(right, abs=1.0)
    assert face.pose.roll == pytest.approx(0, abs=1.5)
    assert repr(face.pose).startswith(f"HeadPose(pitch={face.pose.pitch:.1f}, yaw=")


def test_representations_are_short(pipeline: FacePipeline) -> None:
    found = pipeline.image(FRAME)
    assert repr(found) == "FrameResult(2 faces, frame=0, 320x240)"
    assert len(repr(found.faces[0])) < 120
    assert "AU01=1.5" in repr(found.faces[0])
    png = np.frombuffer(found._repr_png_(), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR), found.draw())


def test_results_compare_and_hash_as_objects(pipeline: FacePipeline) -> None:
    found, again = pipeline.image(FRAME), pipeline.image(FRAME)
    assert found != again
    assert len({found, found, again}) == 2
    assert found.faces.index(found.faces[1]) == 1
    assert len({found.frame, found.faces[0], found.faces[0].pose}) == 3


def test_numpy_scores_and_thresholds_leave_results_that_json_takes() -> None:
    """As from a detector of the user's own, and a quantile for ``min_confidence``."""
    detector, least = BlobDetector(np.float32(0.9)), np.float64(0.5)  # type: ignore[arg-type]
    own = FacePipeline(BlobLandmarks(), BlobAUs(), detector, min_confidence=least)
    faces = json.loads(json.dumps(own.image(FRAME).to_dict()))["faces"]
    assert [face["success"] for face in faces] == [True, True]


def test_deep_grey_gives_the_same_from_a_file_and_a_pil_image(
    tmp_path: Path, pipeline: FacePipeline
) -> None:
    """Pillow's own reduction to 8 bits leaves white: it keeps what lies under 256."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (100, 1)))
    with image.open(path) as deep:
        found = pipeline.image(deep).frame.image
    np.testing.assert_array_equal(found, pipeline.image(path).frame.image)
    assert found[0, ::85, 0].tolist() == [0, 85, 169, 254]


def test_files_arrays_and_pil_images_give_the_same(tmp_path: Path, pipeline: FacePipeline) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), FRAME)
    turned = image.fromarray(np.rot90(FRAME[..., ::-1], -1).copy())
    exif = image.Exif()
    exif[0x0112] = 8  # shown turned back by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    with image.open(tmp_path / "turned.png") as upright, image.open(path) as plain:
        stream = pipeline.images([path, str(path), FRAME, plain, upright])
        assert repr(stream).startswith("<ResultStream: loop over it, or call to_dict()")
        results = list(stream)
    assert [found.source for found in results] == [str(path), str(path), "", "", ""]
    assert [found.frame.index for found in results] == [0, 1, 2, 3, 4]
    for found in results:
        np.testing.assert_array_equal(found.frame.image, FRAME)
        assert len(found.faces) == 2


def test_a_folder_gives_its_images_in_order(tmp_path: Path, pipeline: FacePipeline) -> None:
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), FRAME)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "._a.png").write_bytes(b"attributes that macOS writes on foreign disks")
    table = pipeline.images(tmp_path).to_dict()
    assert [Path(row["source"]).name for row in table] == ["a.png", "b.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no folder with images"):
        pipeline.images(tmp_path / "none")
    with pytest.raises(VideoError, match="absent"):
        pipeline.image(tmp_path / "absent.png")


def test_dicts_are_plain_and_say_what_the_attributes_say(pipeline: FacePipeline) -> None:
    found = pipeline.image(FRAME)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["image_size"] == [320, 240]
    face, first = found.faces[0], plain["faces"][0]
    assert first["aus"]["AU45"] == face.aus["AU45"]
    assert first["pose"]["yaw"] == pytest.approx(face.pose.yaw)
    np.testing.assert_allclose(first["landmarks"], face.landmarks)
    np.testing.assert_allclose(first["bbox"], face.bbox)


def test_a_video_becomes_a_table_with_a_row_a_face(tmp_path: Path, pipeline: FacePipeline) -> None:
    pytest.importorskip("pandas")
    video = write_video(tmp_path / "a.mp4", [FRAME] * 3 + [draw_frame([])] * 20)
    table = pipeline.video(video).to_dataframe()
    assert (table[table.frame == 0].face_id == [0, 1]).all()
    last = table[table.frame == 22]
    assert (len(last), bool(last.success.iloc[0])) == (1, False)
    assert last.AU12.isna().all()
    assert table.source.iloc[0] == str(video)
    assert {"pitch", "position_z", "AU12", "x_0", "y_67", "bbox_width"} <= set(table.columns)
    pipeline.video(video).save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table.columns)
    assert len(rows) == len(table)
    assert float(rows[0]["AU12"]) == table.AU12.iloc[0]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.mp4"])
def test_a_consumed_stream_is_not_saved_as_an_empty_file(
    tmp_path: Path, pipeline: FacePipeline, name: str
) -> None:
    stream = pipeline.video(write_video(tmp_path / "clip.mp4", [FRAME] * 4))
    with pytest.raises(UsageError, match="saved as"):
        stream.save(tmp_path / "a.txt")
    assert len(list(stream)) == 4  # a wrong ending costs no frame
    with pytest.raises(UsageError, match=f"{name}: no frame is left to save"):
        stream.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_results_are_saved_by_their_ending(tmp_path: Path, pipeline: FacePipeline) -> None:
    found = pipeline.image(FRAME)
    found.save(tmp_path / "a.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png")), found.draw())
    found.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == [found.to_dict()]
    with pytest.raises(UsageError, match=r"a\.txt: results are saved as \.csv or \.json"):
        found.save(tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"a\.mp4: results are saved as \.csv or \.json"):
        found.save(tmp_path / "a.mp4")  # one frame is no video
    video = write_video(tmp_path / "clip.mp4", [FRAME] * 4)
    stream = pipeline.video(video)
    assert stream.rate == pytest.approx(25)
    stream.save(tmp_path / "drawn.mp4")
    assert len(list(pipeline.video(tmp_path / "drawn.mp4"))) == 4
    before = video.read_bytes()
    with pytest.raises(UsageError, match="is the video itself"):
        pipeline.video(video).save(video)
    assert video.read_bytes() == before
