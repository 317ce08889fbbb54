"""Detectors: calibrations, choosing, and each kind on what it needs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame

from mlx_faceau.errors import BackendError, FunctionError, MissingDependency, UsageError
from mlx_faceau.video import detectors as detect
from mlx_faceau.video.box_calibration import CALIBRATIONS, BoxCalibration
from mlx_faceau.video.detectors import (
    CallableDetector,
    VisionDetector,
    YuNetDetector,
    open_detector,
)
from mlx_faceau.weights.builtin import onnx_file


def test_a_calibration_shifts_and_scales_in_sizes_of_the_box() -> None:
    centre, side = BoxCalibration(0.1, -0.2, 1.5).square((10, 20, 40, 90))
    assert side == pytest.approx(1.5 * 60)
    np.testing.assert_allclose(centre, (10 + 19.5 + 6, 20 + 44.5 - 12))


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, -3, -3), (np.nan, 0, 5, 5), (0, 0, np.inf, 1)]
)
def test_a_box_without_area_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="with an area"):
        CALIBRATIONS["yunet"].square(box)


def test_the_box_of_the_landmarks_maps_to_the_standard_crop_by_definition() -> None:
    blob = Blob(100, 80, 30)
    centre, side = CALIBRATIONS["landmarks"].square((70, 50, 61, 61))
    np.testing.assert_allclose(centre, (blob.x, blob.y))
    assert side == pytest.approx(1.4 * 61)


def test_a_function_gives_boxes_with_or_without_scores() -> None:
    found = CallableDetector(lambda frame: [(1, 2, 3, 4), (5, 6, 7, 8, 0.5)]).detect(np.zeros(0))
    assert [d.score for d in found] == [1.0, 0.5]
    assert found[1].box == (5, 6, 7, 8)


@pytest.mark.parametrize(
    "boxes",
    [
        None,
        7,
        [(1, 2, 3)],
        [(1, 2, 3, 4), (1, 2, 3)],
        [("a", 2, 3, 4)],
        [(1, 2, 0, 4)],
        [(1, 2, np.nan, 4)],
        np.zeros((2, 4, 1)),
    ],
    ids=str,
)
def test_what_is_no_list_of_boxes_is_refused_with_the_function_s_name(boxes: Any) -> None:
    def find(frame: np.ndarray) -> Any:
        return boxes

    with pytest.raises(UsageError, match=r"test_detect:.*find: returned .*x, y, width, height"):
        CallableDetector(find).detect(np.zeros(0))


def test_a_function_s_own_error_is_its_cause_and_names_its_line() -> None:
    def find(frame: np.ndarray) -> Any:
        return np.zeros((2, 3)) @ np.zeros((2, 3))

    with pytest.raises(
        FunctionError, match=r"find: ValueError: .*\(.*test_detect\.py, line \d+\)"
    ) as e:
        CallableDetector(find).detect(np.zeros(0))
    assert type(e.value.__cause__) is ValueError


def test_a_function_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(find=lambda frame: [(0, 0, 9, 9)], number=3)
    monkeypatch.setitem(sys.modules, "my_faces", module)
    assert len(open_detector("my_faces:find").detect(np.zeros(0))) == 1
    with pytest.raises(ValueError, match="not a function"):
        open_detector("my_faces:number")
    with pytest.raises(ValueError, match="my_faces:nothing"):
        open_detector("my_faces:nothing")


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="none of auto, dlib, vision"):
        open_detector("retina")
    with pytest.raises(ValueError, match="a name, a file or a function"):
        open_detector(3)  # type: ignore[arg-type]


def test_without_any_detector_the_message_names_three_ways(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "dlib", "Vision")
    with pytest.raises(BackendError) as caught:
        open_detector("auto", [tmp_path])
    for way in ("face_detection_yunet", "mlx-faceau[detect]", "package.module:function"):
        assert way in str(caught.value)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(detect.platform, "system", lambda: "Linux")


def test_auto_takes_a_yunet_file_beside_the_models_first(
    shared_folder: Path, tmp_path: Path
) -> None:
    model = shared_folder / "models" / "yunet_n_640_640.onnx"
    assert open_detector("auto", [tmp_path, model.parent]).name == "yunet"
    pytest.importorskip("dlib")
    assert open_detector("auto", [tmp_path]).name == "dlib"


@pytest.fixture
def damaged_yunet(tmp_path: Path) -> Path:
    """A folder of files that are called YuNet and are none."""
    for name, data in (
        ("._face_detection_yunet.onnx", b"\0\5\x16\7"),  # what macOS leaves on other file systems
        ("yunet_empty.onnx", b""),
        ("yunet_pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("yunet_net.onnx", onnx_file("landmark_pose").read_bytes()),  # of another net
    ):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "yunet_folder.onnx").mkdir()
    return tmp_path


def test_auto_passes_over_damaged_yunet_files_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, damaged_yunet: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detect.platform, "system", lambda: "Linux")
    monkeypatch.setattr(detect, "DlibDetector", type("Other", (), {"name": "other"}))
    assert open_detector("auto", [damaged_yunet, damaged_yunet]).name == "other"
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 5
    for path in damaged_yunet.iterdir():
        assert sum(line.startswith(f"{path}: ") for line in warned) == 1
    assert all(line.endswith("; passed over") and "\n" not in line for line in warned)


def test_without_another_detector_the_damaged_file_is_named(
    monkeypatch: pytest.MonkeyPatch, damaged_yunet: Path
) -> None:
    hide(monkeypatch, "dlib", "Vision")
    with pytest.raises(BackendError, match=r"no face detector.*yunet_pointer\.onnx: OpenCV cannot"):
        open_detector("auto", [damaged_yunet])


def test_auto_passes_over_a_dlib_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dlib.py").write_text("raise ImportError('libX11.so.6: cannot open shared object')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dlib", raising=False)
    monkeypatch.setattr(detect.platform, "system", lambda: "Linux")
    with pytest.raises(BackendError, match=r"dlib is installed but does not load \(libX11"):
        open_detector("auto", [])
    assert "pip install --force-reinstall dlib" in caplog.text


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "dlib")
    with pytest.raises(MissingDependency, match=r"mlx-faceau\[detect\]"):
        open_detector("dlib")


def test_a_file_that_is_no_yunet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such file"):
        YuNetDetector(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(BackendError, match="cannot run it as YuNet"):
        YuNetDetector(tmp_path / "bad.onnx")


def test_a_yunet_file_with_damaged_weights_is_named(shared_folder: Path, tmp_path: Path) -> None:
    content = bytearray((shared_folder / "models" / "yunet_n_640_640.onnx").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(each ^ 0x55 for each in content[middle : middle + 4000])
    (tmp_path / "yunet.onnx").write_bytes(content)
    photograph = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)
    with pytest.raises(BackendError, match=r"yunet\.onnx: finds boxes without an area"):
        YuNetDetector(tmp_path / "yunet.onnx").detect(photograph)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_a_yunet_file_whose_name_is_no_text_is_refused_before_opencv_crashes_at_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / os.fsdecode(b"\xff.onnx")
    path.touch()
    with pytest.raises(BackendError, match="rename it"):
        YuNetDetector(path)


def test_vision_runs_on_macos_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.platform, "system", lambda: "Linux")
    with pytest.raises(BackendError, match="macOS only"):
        open_detector("vision")


class FakeVision:
    """Apple's classes as far as they are used; coordinates from the lower left corner."""

    def __init__(self, done: bool = True) -> None:
        self.seen: np.ndarray | None = None
        box = SimpleNamespace(
            origin=SimpleNamespace(x=0.25, y=0.5), size=SimpleNamespace(width=0.5, height=0.25)
        )
        face = SimpleNamespace(boundingBox=lambda: box, confidence=lambda: 0.75)
        request = SimpleNamespace(results=lambda: [face])
        self.VNDetectFaceRectanglesRequest = SimpleNamespace(
            alloc=lambda: SimpleNamespace(init=lambda: request)
        )
        handler = SimpleNamespace(performRequests_error_=lambda requests, error: (done, "reason"))

        def open_image(data: bytes, options: dict[str, Any]) -> Any:
            self.seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            return handler

        self.VNImageRequestHandler = SimpleNamespace(
            alloc=lambda: SimpleNamespace(initWithData_options_=open_image)
        )


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pyobjc's autorelease pools, as they are opened and closed."""
    events: list[str] = []

    @contextmanager
    def autorelease_pool() -> Iterator[None]:
        events.append("opened")
        yield
        events.append("closed")

    fake = SimpleNamespace(autorelease_pool=autorelease_pool)
    monkeypatch.setitem(sys.modules, "objc", fake)  # type: ignore[arg-type]
    return events


def test_vision_s_memory_is_freed_after_every_frame(pools: list[str]) -> None:
    detector = VisionDetector(FakeVision())
    for _ in range(2):
        detector.detect(draw_frame([]))
    assert pools == ["opened", "closed"] * 2


def test_dlib_on_a_mac_is_not_in_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.platform, "system", lambda: "Darwin")
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingDependency, match="pip install dlib-bin"):
        open_detector("dlib")


@pytest.mark.usefixtures("pools")
def test_vision_boxes_are_turned_into_pixels_from_the_upper_left() -> None:
    vision = FakeVision()
    frame = draw_frame([Blob(99, 99, 40)], (200, 400))
    found = VisionDetector(vision).detect(frame)
    assert found[0].box == (0.25 * 400 - 0.5, 0.25 * 200 - 0.5, 200, 50)
    assert found[0].score == 0.75
    np.testing.assert_array_equal(vision.seen, frame)


@pytest.mark.usefixtures("pools")
def test_a_failure_of_vision_is_an_error() -> None:
    with pytest.raises(BackendError, match="reason"):
        VisionDetector(FakeVision(done=False)).detect(draw_frame([]))


@pytest.mark.parametrize("name", ["yunet", "dlib"])
def test_a_real_face_is_found_where_it_is_at_any_frame_size(shared_folder: Path, name: str) -> None:
    if name == "dlib":
        pytest.importorskip("dlib")
    model = shared_folder / "models" / "yunet_n_640_640.onnx"
    detector = open_detector(model if name == "yunet" else "dlib")
    image = cv2.imread(str(shared_folder / "data" / "images" / "single_face.jpg"))
    squares = []
    for scale in (1.0, 3.0):
        found = detector.detect(cv2.resize(image, None, fx=scale, fy=scale))
        assert len(found) == 1
        assert 0.5 < found[0].score <= 1
        centre, side = detector.calibration.square(found[0].box)
        squares.append(np.r_[(centre + 0.5) / scale - 0.5, side / scale])
        if name == "yunet":
            right_eye, left_eye, nose, right_corner, left_corner = found[0].marks / scale
            assert right_eye[0] < nose[0] < left_eye[0]
            assert right_corner[0] < nose[0] < left_corner[0]
            # The tip of this nose, read off by eye.
            assert np.linalg.norm(nose - (270, 293)) < 12
    assert np.abs(squares[0] - squares[1]).max() < 0.12 * squares[0][2]
    # Eyes to chin of this picture, read off by eye: x 190 to 365, y 215 to 390 or so.
    assert np.linalg.norm(squares[0][:2] - (278, 305)) < 0.15 * squares[0][2]


@pytest.mark.skipif(sys.platform != "darwin", reason="Apple Vision is on macOS alone")
def test_the_real_vision_looks_at_a_frame() -> None:
    pytest.importorskip("Vision")
    assert VisionDetector().detect(draw_frame([])) == []
