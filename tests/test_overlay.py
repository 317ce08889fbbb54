"""Drawn results: what can be read where, and videos that survive a kill."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from blobs import Blob
from test_openface_csv import face

from mlx_faceau.errors import UsageError
from mlx_faceau.video import overlay
from mlx_faceau.video.overlay import LiveWindow, OverlayVideo, draw
from mlx_faceau.video.results import Frame, FrameResult

PEOPLE = [Blob(150, 150, 60), Blob(400, 180, 60), Blob(280, 330, 50)]


def frame_of(level: int, index: int = 0, size: tuple[int, int] = (480, 640)) -> Frame:
    return Frame(index, index / 25, np.full((*size, 3), level, np.uint8))


def faces(people: list[Blob] = PEOPLE) -> tuple:
    return tuple(
        face(i, landmarks=blob.landmarks, global_params=np.array([1, 0, 0, 0, blob.x, blob.y]))
        for i, blob in enumerate(people)
    )


@pytest.mark.parametrize("level", [0, 255])
def test_lines_stand_out_on_black_and_on_white(level: int) -> None:
    shown = draw(FrameResult(frame_of(level), faces()))
    for blob in PEOPLE:
        for x, y in blob.landmarks.round().astype(int)[::8]:
            near = shown[y - 6 : y + 7, x - 6 : x + 7].astype(int)
            assert near.max() - near.min() > 150


def test_panels_hide_no_other_face() -> None:
    both = [draw(FrameResult(frame_of(90), found)) for found in (
        faces(), tuple(replace(one, au_intensities=None) for one in faces())
    )]  # fmt: skip
    changed = (both[0] != both[1]).any(axis=2)
    assert changed.sum() > 3 * 17 * 13 * 50
    for blob in PEOPLE:
        x, y, half = round(blob.x), round(blob.y), round(blob.half)
        assert not changed[y - half : y + half, x - half : x + half].any()


def test_panels_of_a_group_leave_room_around_faces_and_their_labels() -> None:
    # Five people side by side, two of them close.
    group = [Blob(150, 250, 60), Blob(310, 200, 60), Blob(450, 220, 60), Blob(700, 300, 70),
             Blob(880, 180, 60)]  # fmt: skip
    found = faces(group)
    both = [draw(FrameResult(frame_of(90, size=(667, 1000)), some)) for some in (
        found, tuple(replace(one, au_intensities=None) for one in found)
    )]  # fmt: skip
    changed = (both[0] != both[1]).any(axis=2)
    assert changed.sum() > 5 * 17 * 13 * 50
    for one in found:
        x, y, width, height = (round(value) for value in one.bbox)
        label = 0.35 * height  # above the face; a line may join its edge to a panel
        assert not changed[round(y - label) + 2 : y + height - 2, x + 2 : x + width - 2].any()


def test_the_panel_of_a_face_that_fills_the_frame_shrinks_into_the_room_beside_it() -> None:
    found = faces([Blob(254, 360, 128)])
    both = [draw(FrameResult(frame_of(90, size=(512, 512)), some)) for some in (
        found, tuple(replace(one, au_intensities=None) for one in found)
    )]  # fmt: skip
    changed = (both[0] != both[1]).any(axis=2)
    assert changed.sum() > 17 * 13 * 50
    assert not changed[232:488, 126:382].any()


@pytest.mark.parametrize("size", [(60, 80), (240, 3000), (1081, 1921)])
def test_any_frame_can_be_drawn(size: tuple[int, int]) -> None:
    found = FrameResult(frame_of(200, size=size), faces([Blob(30, 30, 25), Blob(-40, 900, 300)]))
    before = found.frame.image.copy()
    assert draw(found, "25 frames/s").shape == (*size, 3)
    np.testing.assert_array_equal(found.frame.image, before)


def panel_alone(size: tuple[int, int], found: tuple) -> np.ndarray:
    """Where the panels of action units change the picture."""
    without = tuple(replace(one, au_intensities=None) for one in found)
    both = [draw(FrameResult(frame_of(90, size=size), some)) for some in (found, without)]
    return (both[0] != both[1]).any(axis=2)


@pytest.mark.parametrize("size", [(200, 200), (240, 320)])
def test_panels_leave_the_legend_of_a_small_frame_readable(size: tuple[int, int]) -> None:
    found = faces([Blob(size[1] / 2, size[0] / 2, size[0] / 3)])
    assert not panel_alone(size, found)[-9:].any()


def test_a_panel_becomes_smaller_before_it_hides_its_own_face() -> None:
    found = faces([Blob(250, 300, 125)])
    changed = panel_alone((512, 512), found)
    x, y, width, height = (round(value) for value in found[0].bbox)
    assert changed.sum() > 17 * 13 * 50
    assert not changed[y : y + height, x : x + width].any()


def test_what_is_written_grows_with_images_larger_than_full_hd() -> None:
    heights = []
    for grown in (1, 3):
        found = faces([Blob(700 * grown, 500 * grown, 300 * grown)])
        rows = panel_alone((1080 * grown, 1600 * grown), found).any(axis=1)
        heights.append(np.flatnonzero(rows).max() - np.flatnonzero(rows).min())
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.05)


WRITE = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_overlay import FrameResult, OverlayVideo, frame_of
with OverlayVideo(sys.argv[1], 25) as video:
    for index in range(100):
        video.add(FrameResult(frame_of(index, index)))
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_killed_overlay_plays_up_to_its_last_second_or_two(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    command = [sys.executable, "-c", WRITE, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    assert len(shown) >= 100 - 2 * 25
    levels = [frame.to_ndarray(format="gray").mean() for frame in shown]
    np.testing.assert_allclose(levels, np.arange(len(shown)), atol=3)


def test_an_overlay_is_h264_with_the_times_of_its_frames(tmp_path: Path) -> None:
    path, times = tmp_path / "a.mp4", [0.0, 0.1, 0.5, 0.54, 2.0]
    with OverlayVideo(path, 25) as video:
        for index, seconds in enumerate(times):
            frame = replace(frame_of(90, index, (121, 161)), timestamp=seconds)
            video.add(FrameResult(frame))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (162, 122)
        assert [frame.time for frame in container.decode(stream)] == pytest.approx(times, abs=0.002)
    assert b"moof" in path.read_bytes()  # fragments


def test_images_follow_at_the_rate_because_they_have_no_times(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with OverlayVideo(path, 25) as video:
        for index in range(4):
            video.add(FrameResult(replace(frame_of(90, index), timestamp=0.0)))
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12], abs=0.002)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with \.mp4 or \.mkv"):
        OverlayVideo(tmp_path / "a.avi", 25)


def test_the_live_window_shows_frames_a_second_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, shown, sizes, notes = [255, 255, ord("q")], [], [], []
    cv2 = overlay.cv2
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda _, *size: sizes.append(size))
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: keys.pop(0))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(overlay, "draw", lambda found, note: notes.append(note) or draw(found))
    window = LiveWindow("webcam 0")
    for index in range(5):
        window.show(FrameResult(frame_of(90, index)))
    assert not window.is_open
    assert shown == [(480, 640, 3)] * 3
    assert sizes == [(640, 480)]
    assert notes[-1].endswith(" frames/s")

    def refuses(*_: object) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuses)
    monkeypatch.setattr(overlay, "installed_opencv", lambda: {"opencv-python-headless": "4.8"})
    remedy = "run: pip uninstall -y opencv-python-headless; pip install opencv-python$"
    with pytest.raises(UsageError, match=remedy):
        LiveWindow("webcam 0")


def test_a_window_without_a_display_is_refused_before_the_library_ends_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delattr(overlay.cv2, "currentUIFramework", raising=False)  # OpenCV 4.10's
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no display"):
        LiveWindow("webcam 0")


def test_drawing_marks_the_landmarks_on_a_copy() -> None:
    result = FrameResult(frame_of(90), faces())
    before = result.frame.image.copy()
    drawn = draw(result)
    np.testing.assert_array_equal(result.frame.image, before)
    at = np.rint(result.faces[0].landmarks).astype(int)
    assert (drawn[at[:, 1], at[:, 0]].min(axis=1) > 150).mean() > 0.7


@pytest.mark.parametrize("shift", [-500.0, 60.0, 1e9])
def test_faces_partly_or_far_outside_can_be_drawn(shift: float) -> None:
    far = face(landmarks=PEOPLE[0].landmarks + shift, success=False)
    assert draw(FrameResult(frame_of(90), (far,))).shape == (480, 640, 3)
