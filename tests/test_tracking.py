"""The tracker on frames whose pixels tell their place, with nets and detectors of known errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from blobs import Blob, BlobDetector, BlobLandmarks, draw_frame, template

from mlx_faceau.video.appearance import SceneCuts, appearance_of
from mlx_faceau.video.box_calibration import CALIBRATIONS
from mlx_faceau.video.detectors import Detection
from mlx_faceau.video.fitting import Square
from mlx_faceau.video.results import FaceResult, Frame
from mlx_faceau.video.tracking import Tracker
from mlx_faceau.video.tracks import (
    FaceDetection,
    SquareFilter,
    Track,
    active_cost,
    associate,
    lost_cost,
)

SIZE = 250
Path = Callable[[int], tuple[float, float, float] | None]  # frame -> x, y, half size of the face


def frame_at(index: int) -> Frame:
    """Blue is x, green is y, red is the frame's number."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(SIZE), np.arange(SIZE)[:, None]
    image[..., 2] = index
    return Frame(index, index / 30, image)


def span(values: np.ndarray) -> tuple[float, float]:
    """First and last coordinate of a row of pixels, from its middle half: edges are replicated."""
    count = len(values)
    middle = np.arange(count // 4, count - count // 4)
    slope, start = np.polyfit(middle, values[middle], 1)
    return start, start + slope * (count - 1)


def place(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Top left and bottom right pixel of a crop in its frame, and the frame's number."""
    (left, right), (top, bottom) = span(image[..., 0].mean(0)), span(image[..., 1].mean(1))
    return np.array([left, top]), np.array([right, bottom]), round(float(image[..., 2].mean()))


class Net:
    """Finds the face but for a share of its crop's displacement, and errs by so many half sizes."""

    def __init__(self, path: Path, gain: float = 0.0, bias: float = 0.0) -> None:
        self.path, self.gain, self.bias = path, gain, bias

    def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
        landmarks = np.stack([self._landmarks(crop) for crop in crops]).astype(np.float32)
        pose = np.tile(np.float32([0.5, 0, 0, 0, 55.5, 55.5]), (len(crops), 1))
        shape = np.zeros((len(crops), 34), np.float32)
        return {"landmarks": landmarks, "global_params": pose, "local_params": shape}

    def _landmarks(self, crop: np.ndarray) -> np.ndarray:
        low, high, index = place(crop)
        pixel = (high[0] - low[0]) / 111
        own = (low + high) / 2, 40.0 * pixel  # what a blind net shows: a face that fits its crop
        face = self.path(index)
        gain = 1.0 if face is None else self.gain
        x, y, half = face or (*own[0], own[1])
        centre = (1 - gain) * np.array([x, y]) + gain * own[0] + self.bias * half
        size = half * (own[1] / half) ** gain
        return ((template() * size + centre) - low) / pixel


class PathDetector:
    """Sees the face, also in a reduced region of the frame, with noise of so many half sizes."""

    name = "path"
    calibration = CALIBRATIONS["landmarks"]

    def __init__(self, path: Path, noise: float = 0.0, region_side: int = 0) -> None:
        self.path, self.noise, self.region_side = path, noise, region_side
        self.calls: list[tuple[int, bool]] = []  # frame, and whether the whole of it was shown
        self.random = np.random.default_rng(0)

    def detect(self, frame: np.ndarray) -> list[Detection]:
        low, high, index = place(frame)
        self.calls.append((index, frame.shape[:2] == (SIZE, SIZE)))
        face = self.path(index)
        if face is None:
            return []
        x, y, half = face
        x, y = np.array([x, y]) + half * self.noise * self.random.normal(size=2)
        if not (low[0] < x < high[0] and low[1] < y < high[1]):
            return []
        pixel = (high - low) / (np.array(frame.shape[1::-1]) - 1)
        corner = (np.array([x, y]) - half - low) / pixel
        return [Detection((*corner, *(2 * half / pixel + 1)), 0.9)]


def still(index: int) -> tuple[float, float, float]:
    return 120.0, 110.0, 30.0


def run(net: Net, detector: PathDetector, frames: int, **options: Any) -> list[list[FaceResult]]:
    tracker = Tracker(net, detector, **options)
    return [list(tracker.update(frame_at(i)).result.faces) for i in range(frames)]


def centres(results: list[list[FaceResult]]) -> np.ndarray:
    return np.array([faces[0].landmarks.mean(axis=0) for faces in results])


def steps(results: list[list[FaceResult]]) -> np.ndarray:
    return np.linalg.norm(np.diff(centres(results), axis=0), axis=1)


def test_a_net_that_sees_is_followed_without_the_detector() -> None:
    def path(i: int) -> tuple[float, float, float]:
        return 70 + 2.0 * i, 100 + 15 * np.sin(i / 5), 25 + 0.3 * i

    detector = PathDetector(path)
    results = run(Net(path), detector, 40, detect_every=100)
    assert [index for index, _ in detector.calls] == [0]
    errors = centres(results) - [path(i)[:2] for i in range(40)]
    assert np.abs(errors).max() < 1.0
    assert all(faces[0].success for faces in results)


@pytest.mark.parametrize("region_side", [0, 64])
def test_a_net_that_follows_its_crop_does_not_walk_away(region_side: int) -> None:
    """Each pass moves a blind net's landmarks by its error: 100 passes would add up to 150 px."""
    detector = PathDetector(still, region_side=region_side)
    results = run(Net(still, gain=1.0, bias=0.05), detector, 100)
    assert np.linalg.norm(centres(results) - [120, 110], axis=1).max() < 4.0
    assert steps(results).max() < 1.0


def test_landmarks_of_a_blind_net_are_steadier_than_the_detector_in_every_frame() -> None:
    net, noisy = Net(still, gain=1.0), 0.04
    tracked = run(net, PathDetector(still, noisy, region_side=64), 120)
    detector = PathDetector(still, noisy)
    single = [run(net, detector, 1)[0] for _ in range(120)]
    assert steps(tracked)[1:].max() < 0.5 * steps(single).max()
    assert np.median(steps(tracked)) < 0.3 * np.median(steps(single))


def test_a_blind_net_follows_a_face_that_moves_by_detections_near_it() -> None:
    def path(i: int) -> tuple[float, float, float]:
        return 60 + 1.0 * i, 120.0, 30.0

    results = run(Net(path, gain=1.0), PathDetector(path, 0.02, region_side=64), 120)
    errors = np.linalg.norm(centres(results) - [path(i)[:2] for i in range(120)], axis=1)
    assert errors.max() < 8.0
    assert steps(results).max() < 4.0


def test_a_detection_that_disagrees_moderately_moves_a_track_slowly() -> None:
    def seen(i: int) -> tuple[float, float, float]:
        return (120.0, 110.0, 30.0) if i < 10 else (134.0, 110.0, 30.0)

    results = run(Net(still, gain=1.0), PathDetector(seen), 60, detect_every=5)
    assert 0.0 < steps(results).max() < 4.0
    assert centres(results)[-1][0] == pytest.approx(134, abs=2)


def test_a_detector_that_is_quick_near_a_track_is_asked_there_every_other_frame() -> None:
    detector = PathDetector(still, region_side=64)
    run(Net(still), detector, 9, detect_every=30)
    assert detector.calls == [(0, True), *((i, False) for i in (2, 4, 6, 8))]


def test_a_face_that_jumps_is_detected_again_in_the_same_frame() -> None:
    def path(i: int) -> tuple[float, float, float]:
        return (70.0, 110.0, 30.0) if i < 7 else (180.0, 130.0, 30.0)

    class Lost(Net):
        """Sees a face in its crop alone; elsewhere it shows one that fits the crop."""

        def _landmarks(self, crop: np.ndarray) -> np.ndarray:
            low, high, index = place(crop)
            inside = (low < path(index)[:2]).all() and (high > path(index)[:2]).all()
            return Net(path if inside else lambda _: None)._landmarks(crop)

    detector = PathDetector(path, region_side=64)
    results = run(Lost(path), detector, 12)
    wrong = [
        [f for f in faces if np.linalg.norm(f.landmarks.mean(0) - path(i)[:2]) > 5]
        for i, faces in enumerate(results)
    ]
    assert [i for i, faces in enumerate(wrong) if any(f.success for f in faces)] in ([], [7])
    assert any(index in (7, 8) and whole for index, whole in detector.calls)
    there = [[f for f in faces if f.success] for faces in results[9:]]
    assert all(np.allclose(f.landmarks.mean(0), (180, 130), atol=1) for [f] in there)


@pytest.mark.parametrize("region_side", [0, 64])
@pytest.mark.parametrize("leaves", [10, 11])
def test_a_fit_that_has_lost_its_face_says_so_within_one_frame(
    leaves: int, region_side: int
) -> None:
    frames = [draw_frame([Blob(120, 110, 30)]) if i < leaves else draw_frame([]) for i in range(25)]
    detector = BlobDetector()
    detector.region_side = region_side  # type: ignore[attr-defined]
    tracker = Tracker(BlobLandmarks(), detector)
    success = [
        [f.success for f in tracker.update(Frame(i, i / 30, image)).result.faces]
        for i, image in enumerate(frames)
    ]
    assert success[:leaves] == [[True]] * leaves
    assert not any(any(row) for row in success[leaves:])
    assert success[-1] == []


def test_a_result_names_its_source() -> None:
    tracker = Tracker(Net(still), PathDetector(still), source="clips/a.mp4")
    assert tracker.update(frame_at(0)).result.source == "clips/a.mp4"


# The temporal model


def test_a_detection_moves_the_square_by_the_share_of_its_certainty() -> None:
    """Standard deviations of the first square and of a detection are 0.01 and 0.02."""
    square = Square(np.array([100.0, 50.0]), 40.0)
    model = SquareFilter(square)
    model.add_detection(square.moved(np.array([0.03, -0.03, 0.03])))
    share = 0.01**2 / (0.01**2 + 0.02**2)
    np.testing.assert_allclose(
        square.displacement(model.square), share * np.array([3, -3, 3]) / 100
    )


def test_landmarks_that_follow_their_crop_tell_nothing() -> None:
    square = Square(np.array([100.0, 50.0]), 40.0)
    model = SquareFilter(square)
    model.add_landmarks(square.moved(np.array([0.1, 0.1, 0.1])), np.array([1.0, 1.2, 0.0]))
    shift = square.displacement(model.square)
    assert shift[:2].tolist() == [0, 0]
    assert shift[2] == pytest.approx(0.1, rel=0.1)


def test_a_face_that_was_moving_is_expected_further_on_but_not_for_ever() -> None:
    model = SquareFilter(Square(np.array([100.0, 50.0]), 40.0))
    for i in range(1, 30):
        model.predict(1)
        model.add_landmarks(Square(np.array([100.0 + i, 50.0]), 40.0), np.zeros(3))
    last = model.square.centre[0]
    model.predict(1)
    assert model.square.centre[0] - last == pytest.approx(1, abs=0.35)
    model.predict(100)
    assert model.square.centre[0] - last < 6


# Association

VECTORS = np.eye(5)


def detection(x: float, who: int = 0, side: float = 100.0, score: float = 0.9) -> FaceDetection:
    return FaceDetection(Square(np.array([x, 200.0]), side), score, VECTORS[who])


def track(x: float | None, who: int = 0, side: float = 100.0) -> Track:
    square = Square(np.array([x or 0.0, 200.0]), side)
    return Track(0, SquareFilter(square), VECTORS[who], 0, elsewhere=x is None)


def pairs(tracks: list[Track], found: list[FaceDetection], cost: Any) -> dict[int, int]:
    taken = associate(tracks, left := list(found), cost)
    assert len(left) == len(found) - len(taken)
    assert not any(detection is other for _, detection in taken for other in left)
    indices = [[id(item) for item in items] for items in (tracks, found)]
    return {indices[0].index(id(t)): indices[1].index(id(d)) for t, d in taken}


def test_each_detection_goes_to_the_nearest_track_of_its_appearance() -> None:
    tracks = [track(100), track(140, 1)]
    assert pairs(tracks, [detection(130, 0), detection(110, 1)], active_cost) == {0: 0, 1: 1}
    assert pairs(tracks, [detection(900)], active_cost) == {}
    assert pairs(tracks, [], active_cost) == {}


def test_a_track_whose_size_ran_away_is_still_on_its_face() -> None:
    assert pairs([track(105, side=40)], [detection(100)], active_cost) == {0: 0}


@pytest.mark.parametrize(
    ("last", "found", "known"),
    [
        (100, detection(900, 0), True),  # the same appearance, anywhere
        (None, detection(900, 0), True),  # after a cut
        (None, detection(900, 3), False),
        (100, detection(100, 3), False),  # a stranger at the same place
        (100, FaceDetection(Square(np.array([150.0, 200]), 100), 0.9, 0.7 * VECTORS[0]), True),
        (100, FaceDetection(Square(np.array([900.0, 200]), 100), 0.9, 0.7 * VECTORS[0]), False),
    ],
)
def test_a_lost_face_is_recognised_by_appearance_and_place(
    last: float | None, found: FaceDetection, known: bool
) -> None:
    assert bool(pairs([track(last)], [found], lost_cost)) is known


def test_a_displaced_square_is_larger_and_beside() -> None:
    square = Square(np.array([50.0, 60.0]), 100.0)
    other = square.moved()
    np.testing.assert_allclose(other.centre, (58, 54))
    assert other.side == pytest.approx(112)
    assert square.distance(other) == pytest.approx(other.distance(square))


# Appearance


def test_appearances_are_alike_under_other_light_and_unlike_for_other_faces() -> None:
    generator = np.random.default_rng(0)
    one, other = (
        np.kron(generator.integers(40, 200, (14, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for _ in range(2)
    )
    brighter = np.clip(one.astype(int) + 15, 0, 255).astype(np.uint8)
    assert appearance_of(one) @ appearance_of(one) == pytest.approx(1)
    assert appearance_of(one) @ appearance_of(brighter) > 0.7
    assert appearance_of(one) @ appearance_of(other) < 0.6


def test_a_cut_is_noticed_and_motion_and_noise_are_not() -> None:
    generator = np.random.default_rng(0)
    shots = [generator.integers(0, 255, (9, 16, 3)).repeat(20, 0).repeat(20, 1) for _ in range(2)]
    cuts = SceneCuts()
    noticed = []
    for index in range(20):
        shot = np.roll(shots[index >= 12], index, axis=1)
        noisy = shot + generator.normal(0, 8, shot.shape)
        noticed.append(cuts.is_cut(np.clip(noisy, 0, 255).astype(np.uint8)))
    assert [i for i, cut in enumerate(noticed) if cut] == [12]
