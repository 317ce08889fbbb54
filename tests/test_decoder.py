"""Videos as the field writes them: interlaced, anamorphic, turned, trimmed, late, damaged, cut."""

import gc
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from videos import INTERLACED, number_of, numbered, with_192_byte_packets, write

from mlx_faceau.errors import UsageError, VideoError
from mlx_faceau.video.reader import WHOLE, Span, Video


def read(path: Path, span: Span = WHOLE) -> list[Any]:
    return list(Video(path).frames(span))


def check_all_there(path: Path, count: int, rate: float = 25.0) -> None:
    """Every frame once, in order, at its time; nothing reported."""
    video = Video(path)
    frames = list(video.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(count))
    assert [frame.index for frame in frames] == list(range(count))
    times = [frame.timestamp for frame in frames]
    coarse = path.suffix == ".vob"  # FFmpeg's own file; its packets there carry few times
    np.testing.assert_allclose(times, np.arange(count) / rate, atol=0.041 if coarse else 1.1e-3)
    assert video.damaged == 0


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """Fails a test after which anything was logged."""
    yield
    assert caplog.records == []


KINDS = [
    ("a.mp4", "libx264", "yuv420p", {}),
    ("a.mov", "prores_ks", "yuv422p10le", {}),
    ("a.mkv", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
    ("a.webm", "libvpx-vp9", "yuva420p", {}),
    ("a.webm", "libvpx", "yuv420p", {}),
    ("a.mov", "qtrle", "argb", {}),
    ("a.mov", "png", "rgba64be", {}),
    ("a.avi", "rawvideo", "bgr24", {}),
    ("a.avi", "mpeg4", "yuv420p", {"b": "4M"}),
    ("a.avi", "mjpeg", "yuvj420p", {}),
    ("a.mkv", "ffv1", "gray", {}),
    ("a.mkv", "ffv1", "gray16le", {}),
    ("a.mpg", "mpeg2video", "yuv420p", {"b": "4M", "bf": "2"}),
    ("a.vob", "mpeg2video", "yuv420p", {"b": "4M"}),
    ("a.flv", "libx264", "yuv420p", {}),
    ("a.3gp", "libx264", "yuv420p", {}),
    ("a.ts", "libx264", "yuv420p", {}),
    ("a.wmv", "wmv2", "yuv420p", {"b": "4M"}),
    ("a.mxf", "mpeg2video", "yuv420p", {"b": "4M"}),
    ("a.gif", "gif", "rgb8", {}),
    ("a.h264", "libx264", "yuv420p", {}),
    ("a.hevc", "libx265", "yuv420p", {"x265-params": "log-level=none"}),
    ("a.y4m", "rawvideo", "yuv420p", {}),
    ("a.mjpg", "mjpeg", "yuvj420p", {}),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("name", "codec", "pixels", "options"), KINDS)
def test_containers_and_codecs_are_read(
    tmp_path: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    container = "yuv4mpegpipe" if name.endswith("y4m") else None
    codec = "wrapped_avframe" if container else codec
    path = tmp_path / name
    write(path, numbered(30), codec, pixels=pixels, container=container, **options)
    check_all_there(path, 30)
    if name == "a.mp4":
        assert (Video(path).rate, Video(path).count) == (25.0, 30)
    if "gray" not in pixels and "gif" not in codec:
        colour = read(path)[7].image[40:, :].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(colour, (160, 90, 40), atol=6)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "ffv1"), ("a.mov", "png")])
def test_grey_of_16_bits_is_stretched_by_the_bits_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, bits: int
) -> None:
    import av

    pixels = "gray16le" if codec == "ffv1" else "gray16be"
    shades = np.linspace(0, 1, 128)[None].repeat(96, axis=0)
    with av.open(str(tmp_path / name), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        samples = (shades * ((1 << bits) - 1)).round().astype(np.uint16)
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(samples, "gray16le").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    frames = read(tmp_path / name)
    assert len(frames) == 3
    for frame in frames:
        np.testing.assert_allclose(frame.image[..., 1], shades * 255, atol=2)
    assert [f"read as {bits} bits" in text for text in caplog.messages] == [True] * (bits < 16)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["a.m2ts", "a.mts"])
def test_a_transport_stream_of_192_byte_packets_is_read(tmp_path: Path, name: str) -> None:
    plain = write(tmp_path / "a.ts", numbered(30))
    (tmp_path / name).write_bytes(with_192_byte_packets(plain.read_bytes()))
    check_all_there(tmp_path / name, 30)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.flv"])
def test_a_file_that_starts_late_counts_from_its_first_frame(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, numbered(30), times=range(2500, 2530))
    check_all_there(tmp_path / name, 30)


@pytest.mark.usefixtures("quiet")
def test_a_recording_that_begins_between_key_frames_is_read_from_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.ts", numbered(60), g="20")
    data = (tmp_path / "a.ts").read_bytes()
    tables, rest = data[: 3 * 188], data[3 * 188 :]
    (tmp_path / "a.ts").write_bytes(tables + rest[len(rest) // 188 // 6 * 188 :])
    numbers = [number_of(frame.image) for frame in read(tmp_path / "a.ts")]
    assert numbers in (list(range(20, 60)), list(range(40, 60)))


@pytest.mark.usefixtures("quiet")
def test_what_an_edit_list_hides_is_neither_read_nor_missed(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", numbered(40), g="10", bf="0")
    trim(tmp_path / "a.mp4", first=13, count=17)
    frames = read(tmp_path / "a.mp4")
    assert [number_of(frame.image) for frame in frames] == list(range(13, 30))
    assert [frames[0].index, frames[0].timestamp] == [0, 0]


def trim(path: Path, first: int, count: int) -> None:
    """Change the one entry of an MP4's edit list, as lossless cutters do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4
    assert struct.unpack_from(">I", data, start + 4) == (1,)
    (ticks,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)
    (film,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 4 + 12)
    struct.pack_into(">Ii", data, start + 8, count * film // 25, first * ticks // 25)
    path.write_bytes(data)


@pytest.mark.usefixtures("quiet")
def test_times_of_a_varying_rate_are_the_file_s_own(tmp_path: Path) -> None:
    times = np.cumsum([0, 1, 1, 5, 1, 2, 9, 1, 1, 30])
    write(tmp_path / "a.mkv", numbered(10), times=times.tolist())
    frames = read(tmp_path / "a.mkv")
    np.testing.assert_allclose([f.timestamp for f in frames], times / 25, atol=1e-3)


# Interlaced pictures


def fields(count: int, size: tuple[int, int] = (96, 128)) -> tuple[list, list]:
    """A bar that moves at 50 fields a second: woven frames, and what each field showed."""
    shown = []
    for time in range(2 * count):
        picture = np.full((*size, 3), (70, 70, 70), np.uint8)
        left = 8 + 2 * time
        picture[:, left : left + 30] = 220
        shown.append(picture)
    woven = []
    for frame in range(count):
        picture = shown[2 * frame].copy()
        picture[1::2] = shown[2 * frame + 1][1::2]
        woven.append(picture)
    return woven, [shown[2 * frame : 2 * frame + 2] for frame in range(count)]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", INTERLACED),
        ("a.ts", "libx264", INTERLACED),
        ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "6M"}),
        ("a.mp4", "mpeg4", {"flags": "+ildct+ilme", "b": "6M"}),
    ],
)
def test_interlaced_pictures_lose_their_comb_and_none_is_doubled(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    woven, shown = fields(25)
    frames = read(write(tmp_path / name, woven, codec, **options))
    assert [frame.index for frame in frames] == list(range(25))
    np.testing.assert_allclose([f.timestamp for f in frames], np.arange(25) / 25, atol=1e-3)

    def comb(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=0)).mean())

    for frame, raw, truths in zip(frames[2:-2], woven[2:-2], shown[2:-2], strict=True):
        assert comb(frame.image) < 0.35 * comb(raw)
        # The field that is shown first, the lower one in these files; the bar moves by 2 a field.
        errors = [np.abs(frame.image.astype(int) - truth).mean() for truth in truths]
        assert min(errors) < 4 < max(errors)


def test_progressive_frames_pass_the_deinterlacer_untouched(tmp_path: Path) -> None:
    """A stream may change its mind: what is not flagged stays as the decoder gave it."""
    from mlx_faceau.video.decoder import DecodedFrame, deinterlaced

    woven, _ = fields(6)
    write(tmp_path / "i.mkv", woven, **INTERLACED)
    write(tmp_path / "p.mkv", numbered(6))
    interlaced, progressive = (
        [DecodedFrame(i, f.pts, f) for i, f in enumerate(decoded(tmp_path / name))]
        for name in ("i.mkv", "p.mkv")
    )
    mixed = [*progressive, *interlaced, *progressive]
    out = list(deinterlaced(mixed))
    assert [p.index for p in out] == [p.index for p in mixed]
    for given, got in zip(progressive, [*out[:6], *out[12:]][:6], strict=True):
        np.testing.assert_array_equal(given.frame.to_ndarray(), got.frame.to_ndarray())
    for given, got in zip(progressive, out[12:], strict=True):
        np.testing.assert_array_equal(given.frame.to_ndarray(), got.frame.to_ndarray())


def decoded(path: Path) -> list[Any]:
    import av

    with av.open(str(path)) as file:
        return list(file.decode(video=0))


# Shape and turn


@pytest.mark.parametrize(
    ("aspect", "width"),
    [((2, 1), 256), ((64, 45), 182), ((8, 9), 114), ((1, 1), 128), ((1009, 1000), 128)],
)
def test_pixels_are_square_as_displayed(
    tmp_path: Path, aspect: tuple[int, int], width: int
) -> None:
    def stretch(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)

    picture = np.zeros((96, 128, 3), np.uint8)
    centre = (80, 48)
    cv2.circle(picture, centre, 12, (255, 255, 255), -1)
    image = read(write(tmp_path / "a.mkv", [picture] * 3, setup=stretch))[0].image
    assert image.shape == (96, width, 3)
    y, x = np.argwhere(image[..., 0] > 127).mean(axis=0)
    np.testing.assert_allclose(
        [x + 0.5, y + 0.5], [(centre[0] + 0.5) * width / 128, centre[1] + 0.5], atol=0.6
    )


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_pixel_aspect_that_changes_in_a_broadcast_is_followed(
    tmp_path: Path, codec: str, bf: str
) -> None:
    data = b""
    for number, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):

        def stretch(stream: Any, aspect: Fraction = aspect) -> None:
            stream.codec_context.sample_aspect_ratio = aspect

        size, times = (576, 720), range(10 * number, 10 * number + 10)
        write(tmp_path / "a.ts", numbered(10, size), codec, setup=stretch, times=times, bf=bf)
        data += (tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(data)
    widths = [frame.image.shape[1] for frame in read(tmp_path / "a.ts")]
    assert widths == [768] * 9 + [1024] * 10


TURNS: list[tuple[float, bool, bool]] = [
    (angle, h, v) for angle in (0, 90, 180, -90) for h, v in ((False, False), (True, False))
]


@pytest.mark.parametrize(("angle", "hflip", "vflip"), TURNS)
def test_a_turned_or_mirrored_picture_is_shown_upright(
    tmp_path: Path, angle: float, hflip: bool, vflip: bool
) -> None:
    """Against the display matrix itself, applied to one point."""
    import av

    picture = np.zeros((96, 128, 3), np.uint8)
    cv2.circle(picture, (30, 20), 8, (255, 255, 255), -1)

    def turn(stream: Any) -> None:
        stream.set_display_rotation(angle, hflip=hflip, vflip=vflip)

    path = write(tmp_path / "a.mov", [picture] * 3, setup=turn)
    with av.open(str(path)) as file:
        data = next(file.decode(video=0)).side_data.get("DISPLAYMATRIX")
    matrix = np.eye(3, dtype=int) if data is None else np.frombuffer(bytes(data), np.int32)
    turned = np.sign(np.round(matrix.reshape(3, 3)[:2, :2] / (1 << 16)))
    if data is None:
        turned = np.eye(2)
    corners = np.array([[0, 0], [128, 96]]) @ turned
    expected = np.array([30.5, 20.5]) @ turned - corners.min(axis=0)
    image = read(path)[0].image
    assert image.shape[1::-1] == tuple(np.ptp(corners, axis=0).astype(int))
    y, x = np.argwhere(image[..., 0] > 127).mean(axis=0) + 0.5
    np.testing.assert_allclose([x, y], expected, atol=0.6)


@pytest.mark.parametrize("angle", [90, 180])
def test_a_turn_that_one_frame_has_holds_for_all_that_follow(tmp_path: Path, angle: int) -> None:
    """H.264's message of display orientation."""
    import av
    from av.bitstream import BitStreamFilterContext

    insert = f"h264_metadata=display_orientation=insert:rotate={angle}"
    plain = read(write(tmp_path / "a.mkv", numbered(8), g="5", bf="0"))
    with av.open(str(tmp_path / "a.mkv")) as given, av.open(str(tmp_path / "b.mkv"), "w") as made:
        source = given.streams.video[0]
        stream = made.add_stream_from_template(source)
        turning = BitStreamFilterContext(insert, source, stream)
        for packet in given.demux(source):
            for turned in turning.filter(packet if packet.size else None):
                turned.stream = stream
                made.mux(turned)
    for got, upright in zip(read(tmp_path / "b.mkv"), plain, strict=True):
        np.testing.assert_array_equal(got.image, np.rot90(upright.image, angle // 90))


def test_decoded_pictures_are_freed_as_soon_as_they_are_shown(tmp_path: Path) -> None:
    """Without the garbage collector, which would come hundreds of pictures later."""
    import av

    def video_frames() -> int:  # of the exact type: torch's objects warn of looks at their class
        return sum(type(found) is av.VideoFrame for found in gc.get_objects())

    path = write(tmp_path / "a.mov", numbered(60), setup=lambda s: s.set_display_rotation(90))
    gc.disable()
    try:
        before = video_frames()
        shapes = [frame.image.shape for frame in Video(path).frames()]
        kept = video_frames() - before
    finally:
        gc.enable()
    assert shapes == [(128, 96, 3)] * 60
    assert kept <= 2


def test_full_range_pictures_keep_their_brightness(tmp_path: Path) -> None:
    picture = np.full((96, 128, 3), (30, 30, 30), np.uint8)
    picture[:, 64:] = 230
    image = read(write(tmp_path / "a.avi", [picture] * 2, "mjpeg", pixels="yuvj420p"))[0].image
    assert abs(float(image[:, :50].mean()) - 30) < 2
    assert abs(float(image[:, 80:].mean()) - 230) < 2


# Arrays


@pytest.mark.parametrize(("codec", "pixels"), [("rawvideo", "bgr24"), ("qtrle", "rgb24")])
def test_writing_into_a_frame_changes_no_other(tmp_path: Path, codec: str, pixels: str) -> None:
    path = write(tmp_path / "a.mov", [*numbered(1)] * 5, codec, pixels=pixels)
    seen = []
    for frame in Video(path).frames():
        seen.append(frame.image.copy())
        frame.image[:] = 7
    for image in seen[1:]:
        np.testing.assert_array_equal(image, seen[0])


def test_frames_that_are_kept_stay_as_they_are(tmp_path: Path) -> None:
    frames = read(write(tmp_path / "a.mp4", numbered(100)))
    assert [number_of(frame.image) for frame in frames] == list(range(100))
    assert all(f.image.flags.writeable and f.image.flags.c_contiguous for f in frames)


# Damage


def test_a_file_that_is_cut_gives_all_whole_frames_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.mp4", numbered(60), mux_movflags="faststart", bf="0")
    sizes = sample_ends(path)
    with path.open("r+b") as file:
        file.truncate(sizes[40] + 5)
    video = Video(path)
    frames = list(video.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(41))
    assert video.damaged == 60 - 41
    assert "cut short after 1.60 s; about 1" in caplog.text


def sample_ends(path: Path) -> list[int]:
    import av

    with av.open(str(path)) as file:
        return [entry.pos + entry.size for entry in file.streams.video[0].index_entries]


@pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.webm"])
def test_an_early_end_is_said_where_the_header_tells_the_duration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write(tmp_path / name, numbered(80), codec, g="10", bf="0")
    os.truncate(path, path.stat().st_size // 2)
    video = Video(path)
    frames = list(video.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert len(frames) > 20
    assert abs(len(frames) + video.damaged - 80) <= 3
    assert "cut short" in caplog.text


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mkv", "libx264")])
def test_clusters_that_cannot_be_read_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str
) -> None:
    """Matroska's demuxer skips to the next cluster without a word."""
    pictures = np.random.default_rng(0).integers(0, 255, (90, 48, 64, 3), np.uint8)
    path = write(
        tmp_path / name, list(pictures), codec, g="15", bf="0", mux_cluster_time_limit="500"
    )
    data = bytearray(path.read_bytes())
    middle, length = len(data) // 2, len(data) // 50
    data[middle : middle + length] = np.random.default_rng(1).bytes(length)
    path.write_bytes(data)
    video = Video(path)
    frames = list(video.frames())
    assert len(frames) < 90
    assert abs(len(frames) + video.damaged - 90) <= 1
    assert "could not be decoded" in caplog.text


@pytest.mark.parametrize("damaged", [False, True])
def test_a_relative_path_is_read_on_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """A later start opens the file again; so does a damaged one, without threads."""
    path = write(tmp_path / "a.mp4", numbered(40), g="1" if damaged else "10", bf="0")
    if damaged:
        data, ends = bytearray(path.read_bytes()), sample_ends(path)
        data[ends[19] + 4 : ends[20]] = b"\xff" * (ends[20] - ends[19] - 4)
        path.write_bytes(data)
    span = Span(start=0.0 if damaged else 1.0)
    whole = [frame.index for frame in Video(path).frames(span)]
    monkeypatch.chdir(tmp_path)
    video = Video("a.mp4")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert [frame.index for frame in video.frames(span)] == whole
    assert video.damaged == damaged


def test_a_video_is_read_anew_by_each_call(tmp_path: Path) -> None:
    video = Video(write(tmp_path / "a.mp4", numbered(36), g="12"))
    for span, count in ((WHOLE, 36), (Span(start=1.0), 11), (WHOLE, 36)):
        frames = list(video.frames(span))
        assert [number_of(frame.image) for frame in frames] == list(range(36 - count, 36))
    unfinished = video.frames()
    next(unfinished)
    with pytest.raises(UsageError, match="is being read; open another Video"):
        next(video.frames())
    unfinished.close()
    assert len(list(video.frames())) == 36


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_frames_that_grow_too_large_are_an_error_by_the_name_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    write(tmp_path / "a.mp4", numbered(36), g="12")
    monkeypatch.chdir(tmp_path)
    frames = Video("a.mp4").frames(Span(start=start))
    next(frames)
    monkeypatch.setattr("mlx_faceau.video.decoder._MAX_PIXELS", 1)
    with pytest.raises(
        VideoError, match=r"^a\.mp4: frames of [0-9]+ x [0-9]+ pixels are too large"
    ):
        next(frames)


def test_damaged_packets_cost_their_own_frames_and_shift_no_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All intra: what is lost is exactly what was overwritten."""
    path = write(tmp_path / "a.mp4", numbered(60), g="1", bf="0")
    data, ends = bytearray(path.read_bytes()), sample_ends(path)
    for number in (20, 21, 40):
        data[ends[number - 1] + 4 : ends[number]] = b"\xff" * (ends[number] - ends[number - 1] - 4)
    path.write_bytes(data)
    video = Video(path)
    frames = list(video.frames())
    kept = [n for n in range(60) if n not in (20, 21, 40)]
    assert [frame.index for frame in frames] == list(range(57))
    assert [number_of(frame.image) for frame in frames] == kept
    np.testing.assert_allclose([f.timestamp for f in frames], np.array(kept) / 25, atol=1e-3)
    assert video.damaged == 3
    assert "3 frames could not be decoded" in caplog.text


def test_a_lost_packet_of_a_transport_stream_costs_no_frame_but_its_own(tmp_path: Path) -> None:
    pictures = numbered(40)
    for picture in pictures:  # so that each takes several packets
        picture[16:] = np.random.default_rng(0).integers(0, 256, (80, 128, 1), np.uint8)
    data = write(tmp_path / "a.ts", pictures, g="1").read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    own = [i for i, p in enumerate(packets) if int.from_bytes(p[1:3], "big") & 0x1FFF == 256]
    begins = [i for i in own if packets[i][1] & 0x40]
    lost = begins[25] + 1
    assert own[own.index(lost)] < begins[26]
    (tmp_path / "a.ts").write_bytes(b"".join(p for i, p in enumerate(packets) if i != lost))
    video = Video(tmp_path / "a.ts")
    shown = [number_of(frame.image) for frame in video.frames()]
    assert shown == [n for n in range(40) if n != 25]
    assert video.damaged == 1


def test_damage_is_seen_as_one_thread_sees_it(tmp_path: Path) -> None:
    """Threads race over damaged frames: some pass for good, with other pixels each time."""
    import av

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    waves = [60 * (np.sin((x + 3 * i) / 9) + np.cos((y - 2 * i) / 7)) + 128 for i in range(60)]
    pictures = [rng.normal(wave[..., None], 6, (240, 320, 3)).clip(0, 255) for wave in waves]
    path = write(tmp_path / "a.mp4", [p.astype(np.uint8) for p in pictures], g="60", bf="2")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov")
    for place in rng.integers(start + (end - start) // 4, end, 12):
        data[place] ^= 0x55
    path.write_bytes(data)
    good = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            good += [frame.time for frame in frames if not frame.is_corrupt]
    assert 20 < len(good) < 58
    video = Video(path)
    times = [frame.timestamp for frame in video.frames()]
    np.testing.assert_allclose(times, good, atol=1e-6)
    assert 0 < video.damaged <= 60 - len(good)


def test_damage_before_and_in_a_part_loses_no_good_frame_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(80), g="1", bf="0")
    data, ends = bytearray(path.read_bytes()), sample_ends(path)
    for number in (20, 60):
        data[ends[number - 1] + 4 : ends[number]] = b"\xff" * (ends[number] - ends[number - 1] - 4)
    path.write_bytes(data)
    part = read(path, Span(start=1.6))
    assert [number_of(f.image) for f in part] == [n for n in range(40, 80) if n != 60]
    assert [f.index for f in part] == list(range(40, 79))


def test_damage_before_the_last_frames_loses_none_of_them(tmp_path: Path) -> None:
    """Decoders with several threads keep frames back, and drop them after a complaint."""
    path = write(tmp_path / "a.mp4", numbered(30), g="1", bf="0")
    data, ends = bytearray(path.read_bytes()), sample_ends(path)
    data[ends[26] + 4 : ends[27]] = b"\xff" * (ends[27] - ends[26] - 4)
    path.write_bytes(data)
    kept = [n for n in range(30) if n != 27]
    assert [number_of(frame.image) for frame in read(path)] == kept


def test_a_video_without_one_good_frame_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(20))
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.mp4: not one frame can be decoded"):
        Video(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        Video(tmp_path / "a.mp4")


def test_a_still_picture_is_not_read_as_a_video(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (32, 32)).save(tmp_path / "a.avif")
    with pytest.raises(VideoError, match="an image, not a video"):
        Video(tmp_path / "a.avif")


def test_ffmpeg_keeps_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.mkv", numbered(40))
    capfd.readouterr()  # encoders talk
    data = bytearray(path.read_bytes())
    data[-600:-500] = b"\xff" * 100
    path.write_bytes(data)
    read(path)
    assert capfd.readouterr() == ("", "")


def test_a_name_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4", numbered(3)).rename(tmp_path / "concat:b.mp4")
    assert len(read(Path("concat:b.mp4"))) == 3


# Parts

SEEKABLE = [
    ("a.mp4", "libx264", {"g": "12", "bf": "3"}, False),
    ("a.mkv", "libx264", {"g": "15", "bf": "3", "x264-params": "open-gop=1"}, True),
    ("a.ts", "libx264", {"g": "12"}, False),
    ("a.webm", "libvpx-vp9", {"g": "12"}, False),
    ("a.webm", "libvpx", {"g": "12"}, False),
    ("a.avi", "mpeg4", {"g": "12", "b": "4M"}, False),
    ("a.mpg", "mpeg2video", {"g": "12", "bf": "2", "b": "4M"}, False),
    ("a.h264", "libx264", {"g": "12"}, False),
    ("a.mkv", "libx264", {"g": "12", **INTERLACED}, False),
]


@pytest.mark.parametrize(("name", "codec", "options", "varying"), SEEKABLE)
def test_a_part_is_the_same_as_that_part_of_the_whole(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], varying: bool
) -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([1, 1, 2, 5], 80)).tolist() if varying else None
    path = write(tmp_path / name, numbered(80), codec, times=times, **options)
    whole = read(path)
    assert len(whole) == 80
    for _ in range(3):
        start = rng.uniform(0.01, whole[-1].timestamp - 0.3)
        end = None if rng.random() < 0.5 else start + 0.7
        span = Span(start, end, int(rng.integers(1, 3)))
        wanted = [
            f for f in whole if span.takes(f.index, f.timestamp) and not span.ends(f.timestamp)
        ]
        part = read(path, span)
        assert [f.index for f in part] == [f.index for f in wanted]
        np.testing.assert_allclose(
            [f.timestamp for f in part], [f.timestamp for f in wanted], atol=1e-9
        )
        for got, expected in zip(part, wanted, strict=True):
            np.testing.assert_array_equal(got.image, expected.image)


VARYING = [*range(20), *range(21, 80, 3)]  # in 25ths of a second


def test_recordings_that_were_joined_keep_their_own_spacing(tmp_path: Path) -> None:
    """Each with a clock of its own; the demuxer takes the join for damage of one frame."""
    path = write(tmp_path / "a.ts", numbered(40), times=VARYING, g="10", bf="0")
    path.write_bytes(path.read_bytes() * 3)
    whole = read(path)
    assert [number_of(f.image) for f in whole] == [*range(39), *range(39), *range(40)]
    steps = np.diff([f.timestamp for f in whole])
    for first in (0, 39, 78):
        np.testing.assert_allclose(steps[first:][:38], np.diff(VARYING)[:38] / 25, atol=1e-4)
    for start, end in ((0.5, None), (2.0, 5.0), (4.1, None), (7.0, 8.5)):
        part = read(path, Span(start, end))
        wanted = [f for f in whole if start <= f.timestamp < (end or 99)]
        assert [(f.index, f.timestamp) for f in part] == [(f.index, f.timestamp) for f in wanted]
        for got, expected in zip(part, wanted, strict=True):
            np.testing.assert_array_equal(got.image, expected.image)


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("name", ["a.avi", "a.asf"])
def test_frames_of_containers_without_times_of_display_have_their_own(
    tmp_path: Path, name: str, bf: str
) -> None:
    path = write(tmp_path / name, numbered(40), times=VARYING, bf=bf, g="12")
    video = Video(path)
    frames = list(video.frames())
    assert video.damaged == 0
    assert [number_of(f.image) for f in frames] == list(range(40))
    last = [VARYING[-3] + 1, VARYING[-3] + 2] if bf == "2" else VARYING[-2:]  # by the rate
    own = np.array([*VARYING[:-2], *last]) / 25
    np.testing.assert_allclose([f.timestamp for f in frames], own, atol=1e-9)
    assert [f.index for f in read(path, Span(start=0.9))] == list(range(21, 40))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("name", "step"), [("a.avi", 2), ("a.mxf", 1)])
def test_reordered_frames_without_times_of_display_are_evenly_spaced(
    tmp_path: Path, name: str, step: int
) -> None:
    """An AVI whose rate is that of fields, and an MXF whose index tells no order of display."""
    times = range(0, 40 * step, step)
    path = write(tmp_path / name, numbered(40), rate=25 * step, times=times, bf="2", g="12")
    check_all_there(path, 40)


def test_a_late_part_is_reached_without_decoding_what_is_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_faceau.video import decoder

    path = write(tmp_path / "a.mp4", numbered(200), g="10")
    seen = []
    real = decoder.Decoder.frames

    def counted(self: Any) -> Any:
        for picture in real(self):
            seen.append(picture.index)
            yield picture

    monkeypatch.setattr(decoder.Decoder, "frames", counted)
    frames = read(path, Span(start=7.0, end=7.4))
    assert [f.index for f in frames] == list(range(175, 185))
    assert len(seen) < 40


def test_a_part_behind_the_end_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered(25))
    with pytest.raises(VideoError, match=r"no frame from 3 s on; the last one is at 0\.96 s"):
        read(path, Span(start=3))


# The field's own small files


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("name", "count", "shape"),
    [
        ("interlaced_tff.mkv", 25, (240, 320, 3)),
        ("av1.mp4", 25, (240, 320, 3)),
        ("anamorphic_sar2.mp4", 25, (240, 640, 3)),
        ("trimmed_editlist.mp4", None, (240, 320, 3)),
    ],
)
def test_cases_from_the_field(
    shared_folder: Path, name: str, count: int | None, shape: tuple[int, ...]
) -> None:
    path = shared_folder / "cases" / name
    if not path.is_file():
        pytest.skip("not here")
    video = Video(path)
    frames = list(video.frames())
    assert video.damaged == 0
    assert {frame.image.shape for frame in frames} == {shape}
    assert count is None or len(frames) == count
    assert len({frame.image.tobytes() for frame in frames}) == len(frames)


def test_memory_stays_flat(tmp_path: Path) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("measured on Linux")
    path = write(tmp_path / "a.mp4", numbered(100) * 12, preset="ultrafast")

    def resident() -> int:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = [resident() for frame in Video(path).frames() if frame.index % 100 == 0]
    assert max(sizes[3:]) - sizes[3] < 100 * 96 * 128 * 3  # of the 900 later frames' 33 MB


# One clip in four forms


def four_forms(folder: Path, pictures: list[np.ndarray]) -> dict[str, Path]:
    """Progressive, interlaced, squeezed with pixels twice as wide as high, and 100 s late."""

    def widen(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    height, width = pictures[0].shape[:2]
    narrow = [cv2.resize(p, (width // 2, height), interpolation=cv2.INTER_AREA) for p in pictures]
    late = range(2500, 2500 + len(pictures))
    return {
        "progressive": write(folder / "a.mp4", pictures, crf="16"),
        "interlaced": write(folder / "b.mkv", pictures, crf="16", **INTERLACED),
        "anamorphic": write(folder / "c.mp4", narrow, crf="16", setup=widen),
        "late": write(folder / "d.mkv", pictures, crf="16", times=late),
    }


def check_same_landmarks(pipeline: Any, paths: dict[str, Path], count: int) -> None:
    found = {
        form: np.stack([result.faces[0].landmarks for result in pipeline.video(path)])
        for form, path in paths.items()
    }
    for landmarks in found.values():
        assert landmarks.shape == (count, 68, 2)
        distance = np.linalg.norm(landmarks - found["progressive"], axis=2)
        assert distance.mean() < 2.5


@pytest.mark.usefixtures("quiet")
def test_a_drawn_clip_in_four_forms_has_the_same_landmarks(tmp_path: Path) -> None:
    from blobs import Blob, BlobDetector, BlobLandmarks, draw_frame

    from mlx_faceau import FacePipeline

    pictures = [draw_frame([Blob(90 + 4 * i, 110, 40)]) for i in range(12)]
    pipeline = FacePipeline(BlobLandmarks(), None, BlobDetector())
    check_same_landmarks(pipeline, four_forms(tmp_path, pictures), 12)


@pytest.mark.usefixtures("quiet")
def test_a_real_clip_in_four_forms_has_the_same_landmarks(
    tmp_path: Path, shared_folder: Path
) -> None:
    """Measured over its first two seconds: 0.63 px interlaced, 0.65 anamorphic, 0 late."""
    pytest.importorskip("torch")
    from mlx_faceau import FacePipeline

    models = shared_folder / "models"
    if not models.is_dir():
        pytest.skip("not here")
    video = Video(shared_folder / "data" / "video" / "expressive_d10.mp4")
    pictures = [frame.image for frame in video.frames(Span(end=0.33))]
    pipeline = FacePipeline(
        models / "prototype_landmark_pose.pt", None, models / "yunet_n_640_640.onnx"
    )
    check_same_landmarks(pipeline, four_forms(tmp_path, pictures), len(pictures))


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_file_that_is_removed_while_it_is_read_gives_all_its_frames(
    tmp_path: Path, quiet: None
) -> None:
    path = write(tmp_path / "a.mp4", numbered(12))
    frames = Video(path).frames()
    next(frames)
    path.unlink()
    assert [number_of(frame.image) for frame in frames] == list(range(1, 12))
    with pytest.raises(VideoError, match="no such file"):
        Video(path)
