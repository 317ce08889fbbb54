"""Training samples from videos: what is cut out, where labels land, what is dropped and why."""

import json
import struct
from fractions import Fraction

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame, write_video
from labelled_videos import check_sample, film, label, labels_of, moving_face, write_csv
from videos import write

import mlx_faceau
from mlx_faceau.core import geometry
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.data.labels import quality
from mlx_faceau.data.labels.generate import TrainingDataGenerator, writer_arguments
from mlx_faceau.errors import DatasetError

# The crop follows the disc, so that pictures of a clip hardly differ.
KEEP_ALIKE = quality.Limits(min_change=0)


@pytest.mark.parametrize(
    ("separator", "face_id"), [(",  ", True), (", ", True), (",", False)], ids=["2.2", "2", "1"]
)
def test_openface_csv_files_of_all_versions_label_their_video(tmp_path, separator, face_id):
    faces = moving_face(6)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces, separator, face_id=face_id)
    generator = mlx_faceau.TrainingDataGenerator("openface-csv", limits=KEEP_ALIKE)
    samples = list(generator.process_video(video))
    assert len(samples) == 6
    for frame, sample in enumerate(samples):
        check_sample(sample, faces[frame][0], frame)
    report = generator.report
    assert (report.frames, report.kept, report.faceless) == (6, 6, 0)
    assert "non-commercial" in report.licence


def test_results_of_predict_are_no_labels(tmp_path, caplog):
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces)
    record = tmp_path / "clip.run.json"
    for table in ("clip.csv", "clip.parquet"):  # the latter is made of the former
        record.write_text(json.dumps({"table": table}))
        with pytest.raises(DatasetError, match=r"no clip\.csv beside it"):
            next(TrainingDataGenerator("openface-csv").process_video(video))
        assert "clip.csv: results of 'mlx-faceau predict', not taken as labels" in caplog.text
    record.write_text(json.dumps({"table": "clip.jsonl"}))  # of a table beside OpenFace's
    assert next(TrainingDataGenerator().process_video(video))["frame_idx"] == 0


def test_several_faces_a_frame_without_and_every_second_frame(tmp_path):
    faces = [[Blob(70, 110, 40, 0), Blob(220 + 3 * i, 120, 40, 1)] for i in range(7)]
    faces[4] = []
    video = film(tmp_path / "clip.mp4", faces)
    (tmp_path / "processed").mkdir()
    write_csv(tmp_path / "processed" / "clip.csv", faces)
    generator = TrainingDataGenerator(frame_step=2, limits=KEEP_ALIKE)
    samples = list(generator.process_video(video))
    found = [(sample["frame_idx"], sample["face_id"]) for sample in samples]
    assert found == [(0, 0), (0, 1), (2, 0), (2, 1), (6, 0), (6, 1)]
    check_sample(samples[4], faces[6][0], 6)
    check_sample(samples[5], faces[6][1], 6)
    report = generator.report
    assert (report.frames, report.faceless, report.kept) == (4, 1, 6)
    assert report.labeller == "openface-csv"
    generator = TrainingDataGenerator(frame_step=2)  # pictures that bring nothing new are dropped
    assert [sample["frame_idx"] for sample in generator.process_video(video)] == [0, 0]
    assert generator.report.dropped == {"min_change": 4}


def test_the_real_video_and_its_csv_agree(shared_folder):
    """Every label leads back to the CSV's own numbers, read here by hand."""
    video = shared_folder / "data" / "video" / "subj01_timepoint01.mp4"
    samples = list(TrainingDataGenerator(frame_step=40).process_video(video))
    assert [sample["frame_idx"] for sample in samples] == [0, 40, 80, 120]
    lines = video.with_suffix(".openface.csv").read_text().splitlines()
    names = lines[0].split(", ")
    for sample in samples:
        row = dict(zip(names, map(float, lines[1 + sample["frame_idx"]].split(",")), strict=True))
        back = geometry.to_frame(
            sample["warp_matrix"], sample["landmarks"], sample["global_params"]
        )
        np.testing.assert_allclose(back["landmarks"][30], [row["x_30"], row["y_30"]], atol=0.01)
        np.testing.assert_allclose(back["global_params"][2], row["p_ry"], atol=1e-5)
        assert sample["au_intensities"][8] == pytest.approx(row["AU12_r"])
        assert sample["quality"] > 0.9


def test_the_old_real_csv_is_read_whole(shared_folder, tmp_path):
    """No face_id, other columns; its video is not here, a grey one of its size stands in."""
    text = (shared_folder / "data" / "csv" / "openface_v1_style.csv").read_text()
    (tmp_path / "old.csv").write_text(text)
    video = write_video(tmp_path / "old.mp4", [np.full((360, 640, 3), 127, np.uint8)] * 5)
    limits = quality.Limits(min_confidence=0, min_sharpness=0, min_change=0)
    samples = list(TrainingDataGenerator(limits=limits).process_video(video))
    names, first = (line.split(",") for line in text.splitlines()[:2])
    row = dict(zip([name.strip() for name in names], map(float, first), strict=True))
    back = geometry.to_frame(samples[0]["warp_matrix"], samples[0]["landmarks"])["landmarks"]
    np.testing.assert_allclose(back[67], [row["x_67"], row["y_67"]], atol=0.01)
    assert samples[0]["au_intensities"][0] == pytest.approx(row["AU01_r"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [("params aus", "-2Dfp"), ("2d params", "-aus"), ("2d aus", "-pdmparams")],
    ids=["no landmarks", "no units", "no parameters"],
)
def test_a_csv_without_a_needed_group_names_openfaces_flag(tmp_path, groups, message):
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces, groups=groups)
    with pytest.raises(DatasetError, match=message):
        next(TrainingDataGenerator().process_video(video))


@pytest.mark.parametrize("wrong", ["nan", "1e300"])
@pytest.mark.parametrize("column", ["frame", "face_id"])
def test_a_csv_whose_numbers_of_frames_or_faces_are_none_is_refused(tmp_path, column, wrong):
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    table = write_csv(tmp_path / "clip.csv", faces, face_id=True)
    head, first, *rest = table.read_text().splitlines()
    cells = first.split(",")
    cells[[name.strip() for name in head.split(",")].index(column)] = wrong
    table.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")
    with pytest.raises(DatasetError, match=f"{column} is no whole number in every row"):
        next(TrainingDataGenerator().process_video(video))


def ring_pdm():
    """A shape model of the drawn faces: a ring of 68 points that can be made wider."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    mean = np.stack([70 * np.cos(turn), 70 * np.sin(turn), 20 * np.cos(2 * turn)], axis=1)
    basis = np.zeros((68, 3, 34))
    rng = np.random.default_rng(0)
    basis[:] = np.linalg.qr(rng.standard_normal((204, 34)))[0].reshape(68, 3, 34)
    return PDM(mean, basis, np.full(34, 4.0))


def test_missing_parameters_are_fitted_with_a_pdm(tmp_path):
    faces = moving_face(2)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces, groups="2d aus")
    pdm = ring_pdm()
    sample = next(TrainingDataGenerator(pdm=pdm).process_video(video))
    drawn = geometry.project(pdm.mean, pdm.basis, sample["global_params"], sample["local_params"])
    assert np.linalg.norm(drawn - sample["landmarks"], axis=1).mean() < 0.5
    assert sample["measures"]["landmark_error"] < 0.5


def test_landmarks_far_from_their_parameters_are_dropped(tmp_path):
    faces = moving_face(2)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces)  # its parameters are made up
    limits = quality.Limits(max_landmark_error=0.5, min_change=0)
    generator = TrainingDataGenerator(limits=limits, pdm=ring_pdm())
    assert list(generator.process_video(video)) == []
    assert generator.report.dropped == {"max_landmark_error": 2}


def test_a_csv_of_a_video_of_another_size_is_refused(tmp_path):
    faces = [[Blob(900 + i, 700, 200)] for i in range(3)]
    video = film(tmp_path / "clip.mp4", moving_face(3))
    write_csv(tmp_path / "clip.csv", faces)
    with pytest.raises(DatasetError, match="outside the 320 x 240 image"):
        next(TrainingDataGenerator().process_video(video))


@pytest.mark.parametrize("size", [(480, 640), (300, 320)])
def test_a_csv_of_a_smaller_video_is_refused_by_its_3d_points(tmp_path, size):
    """Its landmarks lie in the image all the same."""
    faces = moving_face(3)
    write_csv(tmp_path / "clip.csv", faces, groups="2d 3d params aus")
    video = film(tmp_path / "clip.mp4", faces)
    for frame, sample in enumerate(TrainingDataGenerator().process_video(video)):
        check_sample(sample, faces[frame][0], frame)
    film(video, faces, size)
    with pytest.raises(DatasetError, match=f"an image of 320 x 240 pixels, not {size[1]} x"):
        next(TrainingDataGenerator().process_video(video))


def test_a_csv_of_pixels_that_are_not_square_is_refused(tmp_path):
    """OpenFace reads pixels as they are stored, and the video shows them twice as wide."""
    faces = moving_face(3)

    def widen(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    video = write(
        tmp_path / "clip.mp4", [draw_frame(blobs, (240, 320)) for blobs in faces], setup=widen
    )
    write_csv(tmp_path / "clip.csv", faces)
    with pytest.raises(DatasetError, match="pixels are 2 times as wide as high"):
        next(TrainingDataGenerator().process_video(video))


def test_openfaces_hog_file_is_taken_along(tmp_path):
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces)
    hog = np.random.default_rng(0).random((3, 4464)).astype("f4")
    head = struct.pack("<iiif", 12, 12, 31, 1.0)
    (tmp_path / "clip.hog").write_bytes(b"".join(head + row.tobytes() for row in hog))
    samples = list(TrainingDataGenerator(limits=KEEP_ALIKE).process_video(video))
    np.testing.assert_array_equal([sample["hog"] for sample in samples], hog)
    (tmp_path / "clip.hog").write_bytes(head + hog[0].tobytes())
    with pytest.raises(DatasetError, match="expected 3 records"):
        next(TrainingDataGenerator().process_video(video))


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({"min_size": 120}, "min_size"),
        ({"min_sharpness": 1e6}, "min_sharpness"),
        ({"max_brightness": 10}, "max_brightness"),
        ({"min_confidence": 1.1}, "min_confidence"),
        ({"max_turn": 1}, "max_turn"),
        ({"min_quality": 1.1}, "min_quality"),
    ],
)
def test_each_limit_drops_and_is_counted(tmp_path, limits, broken):
    faces = moving_face(3)
    video = film(tmp_path / "clip.mp4", faces)
    write_csv(tmp_path / "clip.csv", faces)
    generator = TrainingDataGenerator(limits=quality.Limits(**limits))
    assert list(generator.process_video(video)) == []
    assert generator.report.dropped == {broken: 3}


def test_blur_darkness_and_repetition_are_measured():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (112, 112, 3), np.uint8)
    face, matrix = quality.FaceLabels(**labels_of(Blob(55, 55, 40), 0)), np.eye(2, 3)
    sharp = quality.measure(image, face, matrix, None)
    blurred = quality.measure(cv2.GaussianBlur(image, (0, 0), 3), face, matrix, None)
    dark = quality.measure(image // 64, face, matrix, None)
    assert blurred["sharpness"] < 0.01 * sharp["sharpness"]
    assert dark["brightness"] < 3
    assert dark["clipped"] == 1
    assert quality.score(dark) == 0
    small = quality.reduced(image)
    assert quality.change(small, small) == 0
    assert quality.change(small, quality.reduced(255 - image)) > 5
    # rx 0.1, ry -0.2: the face's direction leaves the camera's by acos(cos rx cos ry).
    assert sharp["turn"] == pytest.approx(np.degrees(np.arccos(np.cos(0.1) * np.cos(0.2))))


def test_a_function_may_label_and_what_it_gives_is_checked(tmp_path):
    faces = moving_face(4)
    video = film(tmp_path / "clip.mp4", faces)
    samples = list(TrainingDataGenerator(label, limits=KEEP_ALIKE).process_video(video))
    assert len(samples) == 4
    assert samples[2]["au_intensities"].tolist() == [2.0] * 17
    short = label(draw_frame(faces[0]))
    del short[0]["local_params"]
    generator = TrainingDataGenerator(lambda _: short)
    with pytest.raises(ValueError, match=r"missing \['local_params'\]"):
        next(generator.process_video(video))


def test_samples_go_into_a_file_as_they_are(tmp_path):
    faces = moving_face(4)
    video = film(tmp_path / "clip.mp4", faces)
    samples = list(TrainingDataGenerator(label, limits=KEEP_ALIKE).process_video(video))
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        for sample in samples:
            writer.add_sample(**writer_arguments(sample, video.name, "Zoë"))
    dataset = FaceDataset(tmp_path / "out.h5")
    np.testing.assert_array_equal(dataset.read_images([2])[0], samples[2]["image"])
    np.testing.assert_array_equal(dataset.labels["landmarks"][2], samples[2]["landmarks"])
    assert dataset.quality[2] == pytest.approx(samples[2]["quality"])
    assert dataset.subjects.tolist() == ["Zoë"] * 4


def test_no_labels_at_all_name_the_three_ways(tmp_path):
    video = film(tmp_path / "clip.mp4", moving_face(2))
    with pytest.raises(DatasetError, match=r"clip\.csv.*install pyfaceau.*callable:") as caught:
        next(TrainingDataGenerator().process_video(video))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["openface", "callable:os", "callable:no.such:thing", ""])
def test_unknown_labellers_are_refused(name):
    with pytest.raises(ValueError, match="labeller"):
        TrainingDataGenerator(name)
