"""Reading videos and pictures as they come: turned, of varying rate, cut short, grey, empty."""

import struct
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame, write_video
from mp4 import set_durations, turn_quarter
from videos import numbered, write

from mlx_faceau.errors import VideoError
from mlx_faceau.video.images import read_image
from mlx_faceau.video.reader import Span, Video, Webcam


def clip(tmp_path: Path, frames: int = 20, rate: float = 25.0) -> Path:
    drawn = [draw_frame([Blob(40 + 4 * i, 60, 30)], (120, 200)) for i in range(frames)]
    return write_video(tmp_path / "clip.mp4", drawn, rate)


def test_frames_come_in_order_with_index_and_seconds(tmp_path: Path) -> None:
    video = Video(clip(tmp_path))
    assert (video.rate, video.count) == (25.0, 20)
    frames = list(video.frames())
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([f.timestamp for f in frames], np.arange(20) / 25, atol=1e-3)
    assert frames[0].image.shape == (120, 200, 3)
    assert video.damaged == 0


def test_timestamps_of_a_varying_rate_are_the_files_own(tmp_path: Path) -> None:
    path = clip(tmp_path, 10)
    set_durations(path, [(4, 512), (6, 2048)])  # cv2 writes 12,800 ticks a second at 25 frames
    moments = [frame.timestamp for frame in Video(path).frames()]
    steps = np.diff(moments)
    np.testing.assert_allclose(steps[4:] / steps[0], 4.0, rtol=0.02)
    np.testing.assert_allclose(steps[:4] / steps[0], 1.0, rtol=0.02)


def test_times_never_run_backwards_where_a_file_repeats_one(tmp_path: Path) -> None:
    video = Video(clip(tmp_path, 7))
    ticks = [round(25 * time) for time in (0.0, 0.16, 0.32, 0.48, 0.48, 0.48, 0.64)]
    pictures = (
        replace(video._first, index=index, pts=round(tick / 25 / video._decoder.time_base))
        for index, tick in enumerate(ticks)
    )
    times = [seconds for _, seconds in video._timed(pictures)]
    assert times == pytest.approx([0, 0.16, 0.32, 0.48, 0.481, 0.482, 0.64])


@pytest.mark.parametrize("wrong", [-2.0, 2.0])
def test_one_wrong_time_shifts_no_later_ones(tmp_path: Path, wrong: float) -> None:
    """Unlike the times of recordings that were joined, which all begin anew."""
    video = Video(clip(tmp_path, 7))
    right = np.arange(300) / 25
    told = right + wrong * (np.arange(300) == 100)
    pictures = (
        replace(video._first, index=index, pts=round(time / video._decoder.time_base))
        for index, time in enumerate(told)
    )
    times = np.array([seconds for _, seconds in video._timed(pictures)])
    assert (np.diff(times) > 0).all()
    kept = np.r_[:100, 160:300]  # what is read after a time too late goes on when it is reached
    np.testing.assert_allclose(times[kept], right[kept], atol=1e-3)
    if wrong < 0:
        np.testing.assert_allclose(times, right, atol=1e-3)


def test_a_phone_video_filmed_sideways_is_turned_upright(tmp_path: Path) -> None:
    path = clip(tmp_path, 3)
    turn_quarter(path)
    image = next(Video(path).frames()).image
    assert image.shape == (200, 120, 3)
    blob = np.argwhere(image.max(axis=2).astype(int) - image.min(axis=2) > 60).mean(axis=0)
    # (40, 60) of 200 x 120, a quarter clockwise: x = 119 - 60, y = 40.
    np.testing.assert_allclose(blob, (40, 59), atol=3)


def test_a_span_leaves_frames_out_without_changing_numbers(tmp_path: Path) -> None:
    frames = list(Video(clip(tmp_path)).frames(Span(start=0.2, end=0.6, every=3)))
    assert [frame.index for frame in frames] == [6, 9, 12]
    assert frames[0].timestamp == pytest.approx(0.24, abs=1e-3)


def test_a_time_that_comes_twice_shifts_no_later_ones(tmp_path: Path) -> None:
    """Of a file whose frames come faster at first than its rate says."""
    av = pytest.importorskip("av")
    times = [10 * i for i in range(20)] + [190] + [200 + 10 * i for i in range(19)]
    write(tmp_path / "a.mp4", numbered(len(times)), "mpeg4", g="1")
    with av.open(str(tmp_path / "a.mp4")) as given, av.open(str(tmp_path / "a.mkv"), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for time, packet in zip(times, given.demux(video=0), strict=False):
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = time
            made.mux(packet)
    found = np.array([frame.timestamp for frame in Video(tmp_path / "a.mkv").frames()])
    own = np.array(times) / 1000
    assert (np.diff(found) > 0).all()
    assert np.abs(found - own).max() < 0.041  # a frame at 25 a second
    np.testing.assert_allclose(np.delete(found - own, range(20, 25)), 0, atol=1e-9)


def test_a_span_begins_and_ends_at_the_exact_time_of_a_frame(tmp_path: Path) -> None:
    # 4800 ticks of 1/24000 s are 0.2 s, but 4800 times the nearest number to 1/24000 is less.
    path = write(tmp_path / "a.mp4", numbered(10), mux_video_track_timescale="24000")
    video = Video(path)
    assert [frame.index for frame in video.frames(Span(start=0.2))] == [5, 6, 7, 8, 9]
    assert [frame.index for frame in video.frames(Span(end=0.2))] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "span",
    [
        {"start": -1},
        {"every": 0},
        {"start": 2, "end": 2},
        {"every": 2.5},
        {"every": "2"},
        {"start": "1"},
        {"end": "9"},
    ],
)
def test_an_impossible_span_is_refused(span: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        Span(**span)  # type: ignore[arg-type]


def test_a_video_that_breaks_off_gives_its_frames_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (200, 120))
    for i in range(40):
        writer.write(draw_frame([Blob(40 + i, 60, 30)], (120, 200)))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = Video(path)
    read = len(list(video.frames()))
    assert 5 < read < 40
    assert video.damaged >= 1
    assert "damaged" in caplog.text


def test_a_damaged_stretch_in_the_middle_does_not_end_the_video(tmp_path: Path) -> None:
    path = clip(tmp_path, 60)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat"), data.index(b"moov")
    middle = (start + end) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    frames = list(Video(path).frames())
    assert len(frames) > 40
    assert frames[-1].index >= 55


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "empty"), (b"words" * 99, "cannot be read")],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=message):
        Video(path)
    with pytest.raises(VideoError, match="a folder"):
        Video(tmp_path)


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = clip(tmp_path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(VideoError, match="cut short"):
        Video(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' libraries say what they like")
def test_a_camera_that_is_not_there_is_one_error_and_no_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(VideoError, match="webcam 63: not there"):
        Webcam(63)
    assert capfd.readouterr() == ("", "")


def test_grey_alpha_and_deep_pictures_become_bgr(tmp_path: Path) -> None:
    colour = draw_frame([Blob(50, 50, 20)], (100, 100))
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    pictures = {
        "grey": grey,
        "alpha": cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA),
        "deep": colour.astype(np.uint16) * 257,
    }
    for name, picture in pictures.items():
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), picture)
        image = read_image(path)
        assert image.dtype == np.uint8
        expected = grey[..., None].repeat(3, axis=2) if name == "grey" else colour
        np.testing.assert_allclose(image.astype(int), expected, atol=1)


def test_a_phone_picture_is_turned_upright_by_its_exif(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", draw_frame([Blob(40, 60, 30)], (120, 200)))[1].tobytes()
    # One EXIF entry, big endian: orientation (0x0112), a short, one of them, a quarter clockwise.
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "phone.jpg").write_bytes(jpeg[:2] + marker + jpeg[2:])
    image = read_image(tmp_path / "phone.jpg")
    assert image.shape == (200, 120, 3)
    blob = np.argwhere(image.max(axis=2).astype(int) - image.min(axis=2) > 60).mean(axis=0)
    np.testing.assert_allclose(blob, (40, 59), atol=2)


def test_a_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").touch()
    for name in ("x.png", "empty.png", "none.png"):
        with pytest.raises(VideoError, match=name):
            read_image(tmp_path / name)
