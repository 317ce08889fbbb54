"""The pipeline on drawn people: where faces are, who they are, when the detector is asked."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import (
    COLOURS,
    Blob,
    BlobAUs,
    BlobDetector,
    BlobLandmarks,
    draw_frame,
    template,
    write_video,
)

from mlx_faceau import AU_NAMES, FacePipeline, load_au_predictor, load_predictor
from mlx_faceau.core.geometry import standard_crop_matrix, to_frame
from mlx_faceau.core.landmarks import FIVE_POINTS
from mlx_faceau.errors import UsageError, VideoError
from mlx_faceau.video import reader
from mlx_faceau.video.detectors import Detection
from mlx_faceau.video.reader import Span, Webcam
from mlx_faceau.video.results import Frame, FrameResult


def pipeline(**options: Any) -> FacePipeline:
    options.setdefault("detector", BlobDetector())
    return FacePipeline(BlobLandmarks(), BlobAUs(), **options)


def follow(tmp_path: Path, frames: list[np.ndarray], **options: Any) -> list[FrameResult]:
    video = write_video(tmp_path / "clip.mp4", frames)
    return list(pipeline(**options).video(video))


def ids(results: list[FrameResult]) -> list[list[int]]:
    return [[face.face_id for face in found.faces if face.success] for found in results]


def people(results: list[FrameResult]) -> list[dict[int, int]]:
    """Which drawn person each face_id showed, frame by frame (BlobAUs reads that)."""
    return [
        {face.face_id: int(face.au_intensities[0]) for face in found.faces if face.success}
        for found in results
    ]


def test_a_stream_can_be_closed_from_another_thread(tmp_path: Path) -> None:
    """As by the stop button of a window, while a frame is being computed."""
    video = write_video(tmp_path / "clip.mp4", [draw_frame([Blob(90, 90, 40)])] * 30)
    computing, go_on = threading.Event(), threading.Event()

    def find(image: np.ndarray) -> list[Any]:
        computing.set()
        go_on.wait(10)
        return []

    stream = pipeline(detector=find, detect_every=1).video(video)
    with ThreadPoolExecutor(2) as threads:
        read = threads.submit(list, stream)
        assert computing.wait(10)
        closed = threads.submit(stream.close)
        while not stream._closed:
            time.sleep(0.001)
        go_on.set()
        closed.result(10)
        assert len(read.result(10)) < 30


def test_faces_of_a_picture_come_in_its_own_pixels_with_their_action_units() -> None:
    blobs = [Blob(80.5, 90.25, 40, 1), Blob(230, 120, 30, 3)]
    found = pipeline().image(draw_frame(blobs))
    assert len(found.faces) == 2
    for face in found.faces:
        blob = blobs[0] if face.landmarks[:, 0].mean() < 160 else blobs[1]
        np.testing.assert_allclose(face.landmarks, blob.landmarks, atol=1.0)
        np.testing.assert_allclose(face.global_params[4:], (blob.x, blob.y), atol=1.0)
        assert face.au_intensities.tolist() == [blob.person + 0.5] * 17
        assert face.success
        assert face.confidence > 0.9


def test_action_units_are_read_from_the_standard_crop_of_the_landmarks() -> None:
    face = pipeline().image(draw_frame([Blob(100, 100, 40)])).faces[0]
    np.testing.assert_allclose(face.warp_matrix, standard_crop_matrix(face.landmarks), atol=1e-9)
    back = to_frame(face.warp_matrix, np.full((68, 2), 55.5))["landmarks"][0]
    np.testing.assert_allclose(back, (100, 100), atol=1.0)


def test_a_box_that_is_off_by_a_fifth_is_mended_by_the_second_pass() -> None:
    frame = draw_frame([Blob(150, 120, 40)])
    found = pipeline(detector=lambda _: [(125, 95, 80, 80)]).image(frame)
    np.testing.assert_allclose(found.faces[0].landmarks, Blob(150, 120, 40).landmarks, atol=1.0)


def test_the_detector_runs_at_the_start_and_every_so_many_frames(tmp_path: Path) -> None:
    detector = BlobDetector()
    frames = [draw_frame([Blob(100 + i, 100, 40)]) for i in range(25)]
    results = follow(tmp_path, frames, detector=detector, detect_every=10)
    assert detector.calls == 3
    assert ids(results) == [[0]] * 25
    assert [found.frame.index for found in results] == list(range(25))


def test_landmarks_follow_a_moving_and_growing_face(tmp_path: Path) -> None:
    blobs = [Blob(80 + 4 * i, 100 + i, 30 + i) for i in range(30)]
    results = follow(tmp_path, [draw_frame([blob]) for blob in blobs], detect_every=100)
    for blob, found in zip(blobs, results, strict=True):
        np.testing.assert_allclose(found.faces[0].landmarks, blob.landmarks, atol=2.0)


def test_a_face_that_enters_gets_a_new_id_and_one_that_leaves_is_gone(tmp_path: Path) -> None:
    frames = [draw_frame([Blob(80, 100, 30, 0)]) for _ in range(10)]
    frames += [draw_frame([Blob(80, 100, 30, 0), Blob(230, 120, 35, 2)]) for _ in range(15)]
    frames += [draw_frame([Blob(230, 120, 35, 2)]) for _ in range(15)]
    results = ids(follow(tmp_path, frames, detect_every=5))
    assert results[5] == [0]
    assert results[20] == [0, 1]
    assert results[-5:] == [[1]] * 5


def test_a_person_keeps_the_id_through_a_short_disappearance(tmp_path: Path) -> None:
    frames = [draw_frame([Blob(80 + 2 * i, 100, 30)]) for i in range(15)]
    frames += [draw_frame([])] * 20
    frames += [draw_frame([Blob(150 + 2 * i, 100, 30)]) for i in range(15)]
    results = follow(tmp_path, frames)
    assert ids(results)[10] == ids(results)[-1] == [0]
    assert ids(results)[28] == []


def test_two_people_keep_their_ids_when_one_passes_in_front_of_the_other(tmp_path: Path) -> None:
    frames = [
        draw_frame([Blob(60 + 5 * i, 110, 34, 0), Blob(260 - 5 * i, 112, 36, 1)]) for i in range(40)
    ]
    seen = people(follow(tmp_path, frames, detect_every=10))
    assert seen[2] == seen[-2] == {0: 0, 1: 1} or seen[2] == seen[-2] == {0: 1, 1: 0}
    assert all(set(frame.items()) <= set(seen[2].items()) for frame in seen)


def test_after_a_scene_cut_new_people_are_new_and_old_ones_are_recognised(tmp_path: Path) -> None:
    first = draw_frame([Blob(90, 100, 40, 0)], background=40)
    second = draw_frame([Blob(200, 120, 50, 2)], background=230)
    results = people(follow(tmp_path, [first] * 12 + [second] * 12 + [first] * 12))
    assert results[5] == {0: 0}
    assert results[15] == {1: 2}
    assert results[30] == {0: 0}


def test_a_face_that_is_no_more_loses_its_success(tmp_path: Path) -> None:
    frames = [draw_frame([Blob(100, 100, 40)])] * 12 + [draw_frame([])] * 25
    results = follow(tmp_path, frames, detect_every=10)
    assert ids(results)[5] == [0]
    assert ids(results)[-5:] == [[]] * 5
    assert results[-1].faces == ()


def test_frames_without_faces_are_results_without_faces(tmp_path: Path) -> None:
    results = follow(tmp_path, [draw_frame([])] * 5)
    assert [found.faces for found in results] == [()] * 5


def test_at_most_so_many_faces_are_followed_the_surest_first(tmp_path: Path) -> None:
    frame = draw_frame([Blob(60, 100, 30, 0), Blob(160, 100, 30, 1), Blob(260, 100, 30, 2)])
    boxes = {person: (30 + 100 * person, 70, 60, 60) for person in range(3)}
    scores = {0: 0.6, 1: 0.95, 2: 0.8}
    found = [(*boxes[person], scores[person]) for person in boxes]
    for most, people in ((None, {0, 1, 2}), (2, {1, 2}), (1, {1})):
        run = pipeline(detector=lambda _: found, max_faces=most)
        assert {int(face.au_intensities[0]) for face in run.image(frame).faces} == people


def test_a_face_there_was_no_room_for_does_not_take_the_id_of_a_lost_one(tmp_path: Path) -> None:
    """The two are alike."""
    first, second = Blob(80, 100, 30), Blob(180, 100, 30)
    frames = [draw_frame([first, second])] * 12 + [draw_frame([second])] * 12
    results = follow(tmp_path, frames, max_faces=1)
    seen = {face.face_id: round(face.bbox[0]) for found in results for face in found.faces}
    assert ids(results)[5] == [0]
    assert ids(results)[-1] == [1]
    assert seen[0] == pytest.approx(50, abs=3)
    assert seen[1] == pytest.approx(150, abs=3)


@pytest.mark.parametrize("every", [16, 200])
def test_a_face_keeps_its_id_however_many_frames_are_left_out(every: int) -> None:
    """Frames are numbered as in the file."""

    class Sparse:
        rate = 30.0

        def frames(self, span: Span) -> Iterator[Frame]:
            for index in range(0, 5 * span.every, span.every):
                yield Frame(index, index / 30, draw_frame([Blob(100, 100, 40)]))

    results = list(pipeline()._stream(Sparse(), Span(every=every)))
    assert ids(results) == [[0]] * 5


def test_a_face_keeps_its_id_where_the_size_of_the_frames_changes() -> None:
    """As in recordings of calls."""

    class Call:
        rate = 30.0

        def frames(self, span: Span) -> Iterator[Frame]:
            large = draw_frame([Blob(200, 160, 60)])
            for index in range(20):
                image = large if index < 10 else cv2.resize(large, (160, 120))
                yield Frame(index, index / 30, image)

    results = list(pipeline()._stream(Call(), Span()))
    assert ids(results) == [[0]] * 20
    for result, width in ((results[9], 120), (results[10], 60)):
        assert np.ptp(result.faces[0].landmarks[:, 0]) == pytest.approx(width, abs=3)
        assert result.faces[0].success


def test_what_a_slow_net_reads_of_a_camera_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera's pictures do not pile up between the two nets."""

    class Endless(FakeCapture):
        taken = 0

        def read(self) -> tuple[bool, np.ndarray | None]:
            time.sleep(0.005)
            self.taken += 1
            return super().read()

    class SlowAUs(BlobAUs):
        def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
            time.sleep(0.2)
            return super().predict_batch(crops)

    capture = Endless(10**9)
    stream = FacePipeline(BlobLandmarks(), SlowAUs(), BlobDetector()).live(capture)
    steps = []
    for found, _ in zip(stream, range(8), strict=False):
        steps.append(capture.taken - found.frame.index)
    stream.close()
    taken_meanwhile = capture.taken / 8  # pictures that come while one result is made
    assert np.median(steps[3:]) < 4 * taken_meanwhile


@pytest.mark.parametrize(
    ("blob", "size"),
    [
        (Blob(3, 120, 40), (240, 320)),  # half outside
        (Blob(60, 50, 8), (100, 120)),  # tiny
        (Blob(1000, 700, 500), (1500, 2000)),  # large
    ],
)
def test_faces_at_the_edge_tiny_and_huge_ones_are_read(blob: Blob, size: tuple[int, int]) -> None:
    faces = pipeline().image(draw_frame([blob], size)).faces
    assert len(faces) == 1
    assert np.isfinite(faces[0].landmarks).all()
    assert 0 <= faces[0].confidence <= 1


def test_a_face_in_profile_is_narrow_and_cut_out_by_its_height() -> None:
    frame = draw_frame([])
    cv2.ellipse(frame, (150, 120), (16, 40), 0, 0, 360, COLOURS[1], -1, cv2.LINE_AA)
    [face] = pipeline().image(frame).faces
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    np.testing.assert_allclose([*low, *high], [134, 80, 166, 160], atol=1.5)
    assert face.success
    side = 112 / face.warp_matrix[0, 0]
    assert side == pytest.approx(1.4 * 80, abs=3)


def test_a_dark_picture_and_noise_give_no_confident_face() -> None:
    def imagines(frame: np.ndarray) -> list[tuple[float, ...]]:
        return [(100, 80, 60, 60, 0.2)]

    noise = np.random.default_rng(0).integers(0, 20, (240, 320, 1)).repeat(3, axis=2)
    found = pipeline(detector=imagines).image(noise.astype(np.uint8))
    assert [face.success for face in found.faces] == [False]


class MeanFace(BlobLandmarks):
    """A net that sees nothing: the same face in every crop."""

    def _landmarks(self, crop: np.ndarray) -> np.ndarray:
        return template() * 40 + 55.5


class MarkingDetector(BlobDetector):
    """Marks what it finds, turned by so many degrees."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        angle = np.radians(degrees)
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def detect(self, frame: np.ndarray) -> list[Detection]:
        found = []
        for detection in super().detect(frame):
            x, y, width, height = detection.box
            points = template() @ self.turn.T * (width / 2) + (x + width / 2, y + height / 2)
            marks = np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINTS])
            found.append(replace(detection, marks=marks))
        return found


@pytest.mark.parametrize(("degrees", "success"), [(0, True), (90, False), (180, False)])
def test_a_face_that_lies_where_the_net_sees_an_upright_one_has_no_success(
    degrees: float, success: bool
) -> None:
    frame = draw_frame([Blob(150, 120, 40)])
    faces = FacePipeline(MeanFace(), None, MarkingDetector(degrees)).image(frame).faces
    assert [face.success for face in faces] == [success]


def test_without_an_action_unit_net_there_are_no_action_units() -> None:
    found = FacePipeline(BlobLandmarks(), detector=BlobDetector()).image(
        draw_frame([Blob(99, 99, 40)])
    )
    assert found.faces[0].au_intensities is None


class FakeCapture:
    """A camera with so many pictures, which then disappears."""

    def __init__(self, pictures: int, opened: bool = True) -> None:
        self.left = pictures
        self.opened = opened
        self.released = threading.Event()

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.left == 0:
            return False, None
        self.left -= 1
        return True, draw_frame([Blob(100, 100, 40)])

    def release(self) -> None:
        self.released.set()


def test_a_camera_that_disappears_ends_the_stream_after_its_last_picture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    capture = FakeCapture(8)
    results = list(pipeline().live(capture))
    assert results[-1].frame.index == 7
    assert "disappeared after 8 frames" in caplog.text
    assert capture.released.is_set()


def test_a_camera_may_take_a_moment_for_its_first_picture() -> None:
    class Slow(FakeCapture):
        refusals = 3

        def read(self) -> tuple[bool, np.ndarray | None]:
            self.refusals -= 1
            return (False, None) if self.refusals >= 0 else super().read()

    frames = list(Webcam(capture=Slow(2)).frames())
    assert [(frame.index, frame.timestamp > 0) for frame in frames] == [(0, False), (1, True)]


def test_a_camera_that_is_not_there_or_gives_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_WARM_UP", 0.2)
    with pytest.raises(VideoError, match="not there"):
        pipeline().live(FakeCapture(0, opened=False))
    with pytest.raises(VideoError, match="gives no frames"):
        list(pipeline().live(FakeCapture(0)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (-1, "numbered from 0"),
        (1 << 40, "numbered from 0"),
        ("clip.mp4", "FacePipeline.video"),
        (SimpleNamespace(read=0), "an opened cv2.VideoCapture"),
    ],
)
def test_what_is_no_camera_is_refused_before_opencv_sees_it(source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline().live(source)


def test_a_capture_that_writes_all_frames_into_one_array_gives_frames_of_their_own() -> None:
    class Reused(FakeCapture):
        image = np.zeros((240, 320, 3), np.uint8)

        def read(self) -> tuple[bool, np.ndarray | None]:
            more, image = super().read()
            self.image[:] += 1
            return more, self.image if image is not None else None

    values = [frame.image[0, 0, 0] for frame in list(Webcam(capture=Reused(5)).frames())]
    assert values == [1, 2, 3, 4, 5]


def test_a_cameras_time_begins_with_its_first_frame() -> None:
    times = [frame.timestamp for frame in Webcam(capture=FakeCapture(3)).frames()]
    assert times[0] == 0.0
    assert times == sorted(times)


def test_leaving_a_live_stream_releases_the_camera() -> None:
    capture = FakeCapture(10**9)
    stream = pipeline().live(capture)
    next(stream)
    stream.close()
    assert capture.released.wait(5)


def test_an_error_of_a_net_reaches_the_caller_and_ends_the_threads(tmp_path: Path) -> None:
    class Failing(BlobLandmarks):
        def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
            raise RuntimeError("the net broke")

    video = write_video(tmp_path / "clip.mp4", [draw_frame([Blob(99, 99, 40)])] * 5)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="the net broke"):
        list(FacePipeline(Failing(), detector=BlobDetector()).video(video))
    assert threading.active_count() == before


class CountingAUs(BlobAUs):
    """Remembers how many faces came at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
        self.batches.append(len(crops))
        return super().predict_batch(crops)


def test_action_units_of_a_few_frames_are_read_at_once_and_go_to_their_faces(
    tmp_path: Path,
) -> None:
    both = [Blob(70, 100, 30, 0), Blob(230, 120, 35, 2)]
    shown = [[], both[:1], both, both, both, both[:1], both[:1]]
    frames = [draw_frame(blobs, background=90) for blobs in shown for _ in range(2)]
    video, net = write_video(tmp_path / "clip.mp4", frames), CountingAUs()
    run = FacePipeline(BlobLandmarks(), net, BlobDetector(), detect_every=1).video(video)
    results = list(run)
    assert [found.frame.index for found in results] == list(range(14))
    assert max(net.batches) > 2
    assert len(net.batches) <= 4
    for found in results:
        for face in found.faces:
            if face.success:
                person = 0 if face.landmarks[:, 0].mean() < 150 else 2
                assert face.au_intensities.tolist() == [person + 0.5] * 17
    assert sum(net.batches) == sum(len(found.faces) for found in results)


def test_frames_before_an_error_are_given_first(tmp_path: Path) -> None:
    class Failing(BlobLandmarks):
        calls = 0

        def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
            self.calls += 1
            if self.calls == 9:
                raise RuntimeError("the net broke")
            return super().predict_batch(crops)

    video = write_video(tmp_path / "clip.mp4", [draw_frame([Blob(99, 99, 40)])] * 20)
    stream, found = FacePipeline(Failing(), BlobAUs(), BlobDetector()).video(video), []
    with pytest.raises(RuntimeError, match="the net broke"):
        found.extend(stream)
    # Calls of the net: two in the first frame, which the detector placed, then one a frame.
    assert [f.frame.index for f in found] == list(range(7))


def test_a_span_takes_its_frames_alone(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", [draw_frame([Blob(99, 99, 40)])] * 50)
    results = list(pipeline().video(video, Span(start=0.4, end=1.2, every=4)))
    assert [found.frame.index for found in results] == [12, 16, 20, 24, 28]


class OneAtATime(BlobDetector):
    """Breaks when two threads are inside, as OpenCV's nets and dlib's do."""

    region_side = 64

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0

    def detect(self, frame: np.ndarray) -> list[Detection]:
        self.inside += 1
        time.sleep(0.002)
        alone, found = self.inside == 1, super().detect(frame)
        self.inside -= 1
        if not alone:
            raise RuntimeError("two threads in one detector")
        return found


def test_one_pipeline_in_two_threads_gives_the_rows_of_one_after_the_other(tmp_path: Path) -> None:
    paths = [
        write_video(
            tmp_path / f"{person}.mp4",
            [draw_frame([Blob(100 + person * i, 100, 40 - person, person)]) for i in range(30)],
        )
        for person in (1, 3)
    ]
    shared = pipeline(detector=OneAtATime(), detect_every=3)
    expected = [list(shared.video(path)) for path in paths]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda path: list(shared.video(path)), paths))
    for path, alone, beside in zip(paths, expected, together, strict=True):
        assert {found.source for found in beside} == {str(path)}
        assert ids(alone) == ids(beside) == [[0]] * 30
        for one, other in zip(alone, beside, strict=True):
            assert one.frame.timestamp == other.frame.timestamp
            np.testing.assert_array_equal(one.faces[0].landmarks, other.faces[0].landmarks)
            np.testing.assert_array_equal(
                one.faces[0].au_intensities, other.faces[0].au_intensities
            )
            assert one.faces[0].confidence == other.faces[0].confidence


def test_a_result_names_its_file_or_camera_and_its_action_units(tmp_path: Path) -> None:
    frames = [draw_frame([Blob(100, 100, 40, 2)])] * 2
    video = write_video(tmp_path / "clip.mp4", frames)
    assert [found.source for found in pipeline().video(str(video))] == [str(video)] * 2
    assert next(pipeline().live(FakeCapture(3))).source == "webcam 0"
    found = pipeline().image(frames[0])
    assert found.source == ""
    assert found.faces[0].aus == {name[:4]: 2.5 for name in AU_NAMES}
    assert "array" not in repr(found)


@pytest.mark.parametrize(
    "options",
    [
        {"detect_every": 0},
        {"detect_every": "3"},
        {"detect_every": float("nan")},
        {"max_faces": 0},
        {"max_faces": "1"},
        {"min_confidence": 2},
        {"min_confidence": "0.5"},
        {"camera": (500, 500, 320, 240)},
        {"pdm": "open_pdm.txt"},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pipeline(**options)


def test_a_result_keeps_its_image_when_the_next_frame_is_read_into_the_same_array() -> None:
    image = draw_frame([Blob(100, 100, 40)])
    result = pipeline().image(image)
    drawn, (crop,) = result.draw(), result.aligned_faces()
    image[:] = 0
    np.testing.assert_array_equal(result.draw(), drawn)
    np.testing.assert_array_equal(result.aligned_faces()[0], crop)


def test_a_predictor_of_the_other_kind_is_refused() -> None:
    nets = load_predictor(), load_au_predictor()
    for options in ({"landmark_model": nets[1]}, {"landmark_model": nets[0], "au_model": nets[0]}):
        with pytest.raises(UsageError, match="net's path or predictor, got"):
            FacePipeline(**options, detector=_silent)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="net's path or predictor, got 5"):
        FacePipeline(5, detector=_silent)  # type: ignore[arg-type]


def _silent(frame: np.ndarray) -> Iterator[Any]:
    return iter(())


def test_a_function_is_a_detector() -> None:
    assert pipeline(detector=_silent).image(draw_frame([Blob(99, 99, 40)])).faces == ()
