"""Videos as they come: empty, cut short, damaged, turned, of varying rate, grey, huge."""

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame
from labelled_videos import check_sample, film, label, moving_face, write_csv
from mp4 import set_durations, turn_quarter

from mlx_faceau.core import geometry
from mlx_faceau.data.labels import quality
from mlx_faceau.data.labels.generate import TrainingDataGenerator
from mlx_faceau.errors import DatasetError, VideoError

KEEP_ALIKE = quality.Limits(min_change=0)


@pytest.mark.parametrize(
    "content", [b"", b"no video at all", None], ids=["zero-length", "text", "missing"]
)
def test_files_that_are_no_videos_are_one_line(tmp_path, content):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    write_csv(tmp_path / "clip.csv", moving_face(2))
    with pytest.raises(VideoError) as caught:
        next(TrainingDataGenerator().process_video(path))
    assert "\n" not in str(caught.value)


def test_a_truncated_video_gives_what_is_left_and_says_what_is_not(tmp_path):
    faces = moving_face(30)
    whole = film(tmp_path / "whole.avi", faces)
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: int(len(data) * 0.6)])
    generator = TrainingDataGenerator(label, limits=KEEP_ALIKE)
    kept = list(generator.process_video(tmp_path / "cut.avi"))
    assert 5 < len(kept) < 30
    assert generator.report.damaged > 0


def test_a_phone_video_that_is_turned_is_labelled_upright(tmp_path):
    """The function sees the frame that the crop is cut from, whichever way it was filmed."""
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    turn_quarter(video)
    sample = next(TrainingDataGenerator(label, limits=KEEP_ALIKE).process_video(video))
    # Turned clockwise: (x, y) of the stored picture is at (239 - y, x).
    centre = geometry.to_frame(sample["warp_matrix"], sample["landmarks"])["landmarks"].mean(axis=0)
    np.testing.assert_allclose(centre, [239 - 110, 80], atol=1.5)


def test_a_variable_frame_rate_does_not_shift_the_labels(tmp_path):
    faces = moving_face(6)
    video = film(tmp_path / "clip.mp4", faces)
    set_durations(video, [(2, 256), (2, 1024), (2, 256)])
    write_csv(tmp_path / "clip.csv", faces)
    samples = list(TrainingDataGenerator(limits=KEEP_ALIKE).process_video(video))
    assert [sample["frame_idx"] for sample in samples] == list(range(6))
    for frame, sample in enumerate(samples):
        check_sample(sample, faces[frame][0], frame)


def test_a_4k_video_is_cropped_where_its_face_is(tmp_path):
    faces = [[Blob(3000, 1500, 500)]]
    video = film(tmp_path / "clip.avi", faces, size=(2160, 3840))
    write_csv(tmp_path / "clip.csv", faces)
    (sample,) = TrainingDataGenerator().process_video(video)
    check_sample(sample, faces[0][0], 0)
    assert sample["measures"]["face_size"] == pytest.approx(1400, abs=1)


def damage_frame(path, number):
    """Blank one picture of a Motion JPEG file; decoders pass it over."""
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 2) if data[i : i + 3] == b"\xff\xd8\xff"]
    begin, end = starts[number], starts[number + 1] - 16
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def film_jpeg(path, faces, grey=False):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240), not grey)
    for blobs in faces:
        frame = draw_frame(blobs)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if grey else frame)
    writer.release()
    return path


def test_labels_are_not_shifted_behind_a_damaged_picture(tmp_path):
    """The CSV was written before the file was damaged: what follows bears wrong numbers."""
    faces = moving_face(10)
    video = film_jpeg(tmp_path / "clip.avi", faces)
    write_csv(tmp_path / "clip.csv", faces)
    damage_frame(video, 4)
    generator = TrainingDataGenerator(limits=KEEP_ALIKE)
    with pytest.raises(DatasetError, match=r"frames are missing before 0\.20 s"):
        list(generator.process_video(video))
    assert generator.report.kept == 4
    # OpenFace's CSV of the damaged file counts as we do.
    write_csv(tmp_path / "clip.csv", [*faces[:4], *faces[5:]])
    kept = list(TrainingDataGenerator(limits=KEEP_ALIKE).process_video(video))
    check_sample(kept[5], faces[6][0], 5)


def test_a_grey_video_is_labelled_like_any_other(tmp_path):
    faces = moving_face(3)
    video = film_jpeg(tmp_path / "clip.avi", faces, grey=True)
    write_csv(tmp_path / "clip.csv", faces)
    limits = quality.Limits(min_change=0, min_sharpness=0)
    samples = list(TrainingDataGenerator(limits=limits).process_video(video))
    assert len(samples) == 3
    assert np.ptp(samples[0]["image"].astype(int), axis=2).max() <= 2
