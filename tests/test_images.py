"""Pictures of every kind: formats, bits, colours, frames, orientation."""

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlx_faceau.errors import MissingDependency, VideoError
from mlx_faceau.video.images import is_image, read_image

Image = pytest.importorskip("PIL.Image")


def drawn() -> np.ndarray:
    """(60, 80, 3) BGR: one colour left of the middle, another right of it."""
    picture = np.full((60, 80, 3), (40, 90, 200), np.uint8)
    picture[:, 40:] = (150, 160, 30)
    return picture


def check_drawn(image: np.ndarray, tolerance: float) -> None:
    """Away from the edge, where compression mixes the two colours."""
    difference = np.abs(image.astype(int) - drawn())
    assert image.shape == drawn().shape
    assert max(difference[:, :34].max(), difference[:, 46:].max()) <= tolerance


def pil(mode: str = "RGB") -> "Image.Image":
    return Image.fromarray(drawn()[..., ::-1]).convert(mode)


@pytest.mark.parametrize("suffix", [".avif", ".jp2", ".ppm", ".tga", ".webp", ".tif", ".gif"])
def test_formats_beyond_opencv_s_are_read(tmp_path: Path, suffix: str) -> None:
    pil().save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    check_drawn(image, 12)
    assert image.flags.writeable


def test_heic_is_read_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    try:
        heif.from_pillow(pil()).save(path, quality=90)
    except RuntimeError:
        pytest.skip("this libheif cannot write")
    check_drawn(read_image(path), 14)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDependency, match=r'pip install "mlx-faceau\[heif\]"'):
        read_image(path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".webp", {"lossless": True}), (".tif", {}), (".avif", {})],
)
def test_further_frames_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, options: dict
) -> None:
    path = tmp_path / f"a{suffix}"
    others = [pil().rotate(angle) for angle in (90, 180)]
    pil().save(path, save_all=True, append_images=others, **options)
    check_drawn(read_image(path), 12)
    assert caplog.messages == [f"{path}: the first of 3 pictures in it is read"]


def test_of_a_damaged_animation_no_unwritten_memory_is_given(tmp_path: Path) -> None:
    """OpenCV gave a picture that it had not written."""
    path = tmp_path / "a.png"
    others = [pil().rotate(angle) for angle in (90, 180)]
    pil().save(path, save_all=True, append_images=others)
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT")
    data[start + 12 : start + 40] = b"\xff" * 28
    path.write_bytes(data)
    with pytest.raises(VideoError, match="not a readable image"):
        read_image(path)


def tiff(samples: np.ndarray, white: int, planes: int) -> bytes:
    """An uncompressed little-endian TIFF of (H, W) or (planes, H, W) 16-bit samples."""
    count = 1 if samples.ndim == 2 else len(samples)
    height, width = samples.shape[-2:]
    size, first = 2 * height * width, 8 + 2 + 12 * 9 + 4
    lists = struct.pack("<3H", 16, 16, 16) + struct.pack("<6I", *(
        value for value in (*(first + 30 + i * size for i in range(3)), size, size, size)
    ))  # fmt: skip
    own = (16, first + 30, size) if count == 1 else (first, first + 6, first + 18)
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, count, own[0]), (259, 3, 1, 1),
        (262, 3, 1, white), (273, 4, count, own[1]), (277, 3, 1, count),
        (279, 4, count, own[2]), (284, 3, 1, planes),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return head + lists + samples.astype("<u2").tobytes()


def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path: Path) -> None:
    grey = np.arange(0, 60 * 80, dtype=np.uint16).reshape(60, 80) * 13
    images = []
    for white, samples in ((1, grey), (0, 65535 - grey)):
        (tmp_path / "a.tif").write_bytes(tiff(samples, white, 1))
        images.append(read_image(tmp_path / "a.tif"))
    np.testing.assert_array_equal(images[1], images[0])
    assert images[0][..., 0].max() == round(grey.max() / 257)


def test_a_deep_tiff_with_planes_is_refused(tmp_path: Path) -> None:
    """OpenCV gives memory of other images for it."""
    planes = np.moveaxis(drawn(), -1, 0).astype(np.uint16) * 257
    (tmp_path / "a.tif").write_bytes(tiff(planes, 2, 2))
    with pytest.raises(VideoError, match="a plane for each colour; convert it to PNG"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_a_single_picture_gives_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    pil().save(tmp_path / f"a{suffix}")
    read_image(tmp_path / f"a{suffix}")
    assert caplog.messages == []


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_samples_are_stretched_by_the_bits_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, bits: int
) -> None:
    most = (1 << bits) - 1
    deep = np.linspace(0, most, 80).round().astype(np.uint16)[None].repeat(60, axis=0)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep)
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(image[..., 0], deep * (255 / most), atol=0.51)
    assert (image[..., 0] == image[..., 2]).all()
    assert (f"read as {bits} bits" in caplog.text) == (bits < 16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_deep_colour_keeps_its_colours(tmp_path: Path, suffix: str) -> None:
    """Twelve bits in samples of sixteen."""
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), drawn().astype(np.uint16) * 16)
    image = read_image(path).astype(float)
    np.testing.assert_allclose(image, drawn() * 16.0 * 255 / 4095, atol=0.51)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("bits", [10, 12])
def test_jpeg_2000_is_stretched_by_the_bits_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: int, colours: int
) -> None:
    """Lossy compression may put samples a little beyond these bits."""
    pytest.importorskip("PIL.Image")
    shades = np.linspace(0, 1.0, 80)[None, :, None].repeat(60, axis=0)
    most = (1 << bits) - 1
    deep = (shades * most).round().astype(np.uint16).repeat(colours, axis=2)
    deep[20:40, 20:40] = most
    cv2.imwrite(str(tmp_path / "a.jp2"), deep, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 200])
    image = read_image(tmp_path / "a.jp2").astype(int)
    np.testing.assert_allclose(image, deep.repeat(3 // colours, axis=2) * (255 / most), atol=5)
    assert f"read as {bits} bits" in caplog.text


def test_samples_of_32_bits_are_refused_without_opencv_s_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(drawn()[..., 0].astype(np.int32) * 257).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match=r"a\.tif: not a readable image"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_floating_point_pictures_are_read_from_0_to_1(tmp_path: Path) -> None:
    exact = [cv2.IMWRITE_TIFF_COMPRESSION, 1]  # none: OpenCV 4 rounds them by default
    cv2.imwrite(str(tmp_path / "a.tif"), drawn().astype(np.float32) / 255, exact)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), drawn(), atol=1)
    cv2.imwrite(str(tmp_path / "b.tif"), drawn().astype(np.float32), exact)
    with pytest.raises(VideoError, match=r"b\.tif: samples of type float32 up to 200"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("CMYK", ".jpg"), ("CMYK", ".tif"), ("P", ".gif"), ("RGBA", ".png"), ("RGBA", ".avif")],
)
def test_colours_of_other_models_are_the_same(tmp_path: Path, mode: str, suffix: str) -> None:
    picture = pil().quantize(4) if mode == "P" else pil(mode)
    picture.save(tmp_path / f"a{suffix}")
    check_drawn(read_image(tmp_path / f"a{suffix}"), 12)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_by_their_exif(tmp_path: Path, suffix: str, orientation: int) -> None:
    """Against the standard's table: which side of the stored picture is shown as top and left."""
    rows, columns = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[4:16, 5:25] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif)
    shown = stored if rows in ("top", "bottom") else stored.transpose(1, 0, 2)
    # Row 0 of the file is the side `rows` of what is shown, column 0 the side `columns`.
    if "bottom" in (rows, columns):
        shown = shown[::-1]
    if "right" in (rows, columns):
        shown = shown[:, ::-1]
    image = read_image(tmp_path / f"a{suffix}")
    assert image.shape == shown.shape
    assert np.abs(image.astype(int) - shown).mean() < 8


def test_a_picture_of_floating_point_numbers_is_stretched_and_not_black(tmp_path: Path) -> None:
    path, levels = tmp_path / "a.pfm", np.linspace(0, 1, 16, dtype="<f4")
    path.write_bytes(b"Pf\n16 2\n-1.0\n" + np.tile(levels, 2).tobytes())
    expected = np.repeat(np.tile(np.arange(0, 256, 17), (2, 1))[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_file_is_a_picture_by_its_bytes_where_its_ending_tells_nothing(tmp_path: Path) -> None:
    for form in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        pil().save(tmp_path / form, format=form)
        assert is_image(tmp_path / form)
    (tmp_path / "text").write_text("no picture at all")
    assert not is_image(tmp_path / "text")
    assert not is_image(tmp_path / "missing.mp4")


def test_common_pictures_need_no_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pil().save(tmp_path / "a.png")
    pil().save(tmp_path / "a.avif")
    monkeypatch.setitem(sys.modules, "PIL", None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), drawn())
    with pytest.raises(VideoError, match="pip install pillow"):
        read_image(tmp_path / "a.avif")


def test_a_picture_for_pillow_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 30000 30000 255\n" + bytes(100))
    with pytest.raises(VideoError, match="claims too many pixels"):
        read_image(tmp_path / "a.ppm")
    (tmp_path / "b.ppm").write_bytes(b"P6 9000 9000 255\n" + bytes(100))
    with pytest.raises(VideoError, match="claims 9000 x 9000 pixels"):
        read_image(tmp_path / "b.ppm")


def test_postscript_never_reaches_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(VideoError, match="not a readable image"):
        read_image(tmp_path / "a.eps")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("photo.avif", (120, 160, 3), None),
        ("grey12in16.png", (120, 160, 3), "read as 12 bits"),
        ("animated4.webp", (60, 80, 3), "the first of 4 pictures"),
    ],
)
def test_cases_from_the_field(
    shared_folder: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    shape: tuple[int, ...],
    message: str | None,
) -> None:
    path = shared_folder / "cases" / name
    if not path.is_file():
        pytest.skip("not here")
    image = read_image(path)
    assert image.shape == shape
    assert (caplog.text == "") if message is None else (message in caplog.text)


def test_threads_that_read_images_leave_opencv_its_messages(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), drawn())
    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read_image, [tmp_path / "a.png"] * 200))
    assert log.getLogLevel() == before


def test_an_older_opencv_reads_images_and_turns_webp_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.webp"):
        pil().resize((60, 40)).save(tmp_path / name, exif=exif)
    code = """
import sys, cv2
if log := cv2.utils.__dict__.pop("logging", None):  # as before OpenCV 4.13
    cv2.getLogLevel, cv2.setLogLevel = log.getLogLevel, log.setLogLevel
    del sys.modules["cv2.utils.logging"]
    decode, cv2.__version__ = cv2.imdecode, "4.12.0"
    as_stored = {b"RI": cv2.IMREAD_IGNORE_ORIENTATION}
    cv2.imdecode = lambda data, flags: decode(data, flags | as_stored.get(bytes(data[:2]), 0))
from mlx_faceau.video.images import read_image
print(*[read_image(path).shape for path in sys.argv[1:]])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.png"), str(tmp_path / "a.webp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "(60, 40, 3) (60, 40, 3)\n", done.stderr


def test_a_tiff_whose_second_page_has_no_size_is_no_internal_error(tmp_path: Path) -> None:
    pages = [Image.fromarray(drawn()[..., ::-1]) for _ in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    whole, width = (tmp_path / "a.tif").read_bytes(), b"\x00\x01\x04\x00\x01\x00\x00\x00"
    before, found, after = whole.rpartition(width)
    assert found
    assert width in before  # the first page keeps its own
    (tmp_path / "b.tif").write_bytes(before + b"\xfd\x00" + width[2:] + after)
    check_drawn(read_image(tmp_path / "b.tif"), 0)
