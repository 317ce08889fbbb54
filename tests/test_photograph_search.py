"""Photographs are searched thoroughly; what a detector doubts, the landmark net decides."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import Blob, BlobLandmarks, draw_frame

from mlx_faceau.video.box_calibration import CALIBRATIONS
from mlx_faceau.video.detectors import (
    CallableDetector,
    Detection,
    DlibDetector,
    PhotographDetector,
    VisionDetector,
    YuNetDetector,
)

SURE = Detection((40.0, 40.0, 60.0, 60.0), 0.9)
DOUBTED = Detection((140.0, 40.0, 60.0, 60.0), 0.0)


class Doubting:
    """A detector that is sure of one face and doubts another."""

    name = "doubting"
    calibration = CALIBRATIONS["square"]

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return [SURE]

    def search(self, frame: np.ndarray) -> list[Detection]:
        return [SURE, DOUBTED]


class Net(BlobLandmarks):
    """Finds the face in the frame, or its mean face in every crop; counts its calls."""

    asked = 0

    def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
        self.asked += 1
        return super().predict_batch(crops)


@pytest.mark.parametrize(("sees", "found"), [(True, [SURE, DOUBTED]), (False, [SURE])])
def test_a_doubted_face_counts_if_the_net_finds_it_through_displaced_crops(
    sees: bool, found: list[Detection]
) -> None:
    net = Net()
    detector = PhotographDetector(Doubting(), net)
    frame = draw_frame([Blob(169.5, 69.5, 15)] if sees else [], (120, 240))
    assert detector.detect(frame) == found
    assert net.asked == 2  # not about the one that is sure
    assert (detector.name, detector.calibration) == ("doubting", CALIBRATIONS["square"])


def test_a_detector_without_a_search_of_its_own_is_asked_as_in_videos() -> None:
    once = CallableDetector(lambda frame: [(1, 2, 30, 40)])
    assert len(PhotographDetector(once, Net()).detect(np.zeros((90, 90, 3), np.uint8))) == 1


class FakeDlib:
    """Margins by the size of the picture and by whether it is the original or a tilted one."""

    def __init__(self, margins: dict[int, float], tilted: float) -> None:
        self.margins, self.tilted = margins, tilted

    def run(self, grey: np.ndarray, _: int, threshold: float) -> tuple[list[Any], list[float], Any]:
        import dlib

        side = max(grey.shape)
        margin = (
            self.margins[side] if grey[0, 0] == 200 else self.tilted
        )  # a tilt's corner is black
        if margin < threshold:
            return [], [], None
        half, middle = side // 8, side // 2
        box = dlib.rectangle(middle - half, middle - half, middle + half, middle + half)
        return [box], [margin], None


@pytest.fixture(scope="module")
def dlib_detector() -> DlibDetector:
    pytest.importorskip("dlib")
    return DlibDetector()


@pytest.mark.parametrize(
    ("margins", "tilted", "scores"),
    [
        ({640: 0.5, 1280: -2.0}, -2.0, [0.8]),  # what videos find too
        ({640: -2.0, 1280: 0.5}, -2.0, [0.8]),  # small faces, found enlarged
        ({640: 0.5, 1280: 1.0}, 0.9, [1.0]),  # one face, however often it is found
        ({640: -0.7, 1280: 0.4}, -0.2, [0.0]),  # doubted, but seen by every pass
        ({640: -0.9, 1280: 0.4}, -0.2, []),  # not by every pass
        ({640: -0.7, 1280: 0.4}, -0.9, []),
    ],
)
def test_dlib_is_sure_of_its_upright_passes_and_doubts_what_all_passes_see(
    monkeypatch: pytest.MonkeyPatch,
    dlib_detector: DlibDetector,
    margins: dict[int, float],
    tilted: float,
    scores: list[float],
) -> None:
    monkeypatch.setattr(dlib_detector, "_find", FakeDlib(margins, tilted))
    found = dlib_detector.search(np.full((640, 640, 3), 200, np.uint8))
    assert [detection.score for detection in found] == pytest.approx(scores)
    for detection in found:
        assert np.allclose(detection.box, (239.5, 239.5, 161, 161), atol=2.5)


def test_a_tilted_hit_is_mapped_back_to_the_upright_picture(
    shared_folder: Path, dlib_detector: DlibDetector
) -> None:
    """A real face, turned: dlib's tilted pass puts its box where the turned face is."""
    image = cv2.imread(str(shared_folder / "data" / "images" / "single_face.jpg"))
    upright = dlib_detector.detect(image)[0].box
    (hit,) = [h for h in dlib_detector._pass(image, 640, 12.0, 2.0) if h.score > 0.6]
    middles = [np.array(box[:2]) + np.array(box[2:]) / 2 for box in (upright, hit.box)]
    assert np.linalg.norm(middles[0] - middles[1]) < 0.15 * upright[2]


def test_dlib_proposes_all_five_faces_of_a_group(
    shared_folder: Path, dlib_detector: DlibDetector
) -> None:
    image = cv2.imread(str(shared_folder / "data" / "images" / "multi_face.jpg"))
    found = dlib_detector.search(image)
    sure, doubted = [[d for d in found if (d.score > 0) == yes] for yes in (True, False)]
    assert len(sure) == 4
    ((x, y, width, height),) = [d.box for d in doubted]  # the man with sunglasses
    assert abs(x + width / 2 - 262) < 30
    assert abs(y + height / 2 - 130) < 40


def test_yunet_finds_small_faces_of_a_photograph_at_the_second_scale(shared_folder: Path) -> None:
    detector = YuNetDetector(shared_folder / "models" / "yunet_n_640_640.onnx")
    group = cv2.imread(str(shared_folder / "data" / "images" / "multi_face.jpg"))
    canvas = np.full((1400, 2400, 3), 128, np.uint8)
    canvas[500:700, 800:1100] = cv2.resize(group, (300, 200), interpolation=cv2.INTER_AREA)
    assert len(detector.search(canvas)) == 5 > len(detector.detect(canvas))


def test_vision_is_asked_at_two_scales_and_says_each_face_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = VisionDetector(vision=object())
    asked: list[int] = []

    def one_pass(frame: np.ndarray, small: np.ndarray) -> list[Detection]:
        asked.append(max(small.shape))
        return [SURE, DOUBTED][: len(asked)]

    monkeypatch.setattr(detector, "_pass", one_pass)
    assert detector.search(np.zeros((700, 500, 3), np.uint8)) == [SURE, DOUBTED]
    assert asked == [1280, 640]
