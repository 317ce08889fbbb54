"""No file's frames ever hold another's pixels, whatever is read before, beside or after it."""

import colorsys
import os
import threading
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import INTERLACED, numbered, write

from mlx_faceau.errors import VideoError
from mlx_faceau.video.reader import Video

# A colour for each file: ten hues, so that no shade between one and black or white is another's.
COLOURS = [
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue / 10, 0.8, 0.85))
    for hue in range(10)
]
_NEAR = 24  # a coded colour stays this close to its own in every channel
_SIZES = [(96, 128), (96, 128), (64, 128), (128, 176)]
_PATCH = 64  # pixels of another's colour that count: less is ringing at an edge


def plain(path: Path, colour: Any, size: Any, **options: str) -> Path:
    return write(path, numbered(12, size, colour), "libx264", g="6", **options)


def interlaced(path: Path, colour: Any, size: Any) -> Path:
    return plain(path, colour, size, **INTERLACED)


def interlaced_mpeg(path: Path, colour: Any, size: Any) -> Path:
    pictures = numbered(12, size, colour)
    return write(path, pictures, "mpeg2video", flags="+ildct+ilme", b="6M", g="6")


def cut(path: Path, colour: Any, size: Any) -> Path:
    os.truncate(plain(path, colour, size), path.stat().st_size * 9 // 10)
    return path


def broken(path: Path, colour: Any, size: Any) -> Path:
    data = bytearray(interlaced(path, colour, size).read_bytes())
    rng = np.random.default_rng(sum(colour))
    for start in rng.integers(len(data) // 4, len(data) - 60, 3):
        data[start : start + 60] = rng.bytes(60)
    path.write_bytes(data)
    return path


def broken_intra(path: Path, colour: Any, size: Any) -> Path:
    """Half-decoded JPEGs are the classic of old pixels in new buffers."""
    data = bytearray(
        write(path, numbered(12, size, colour), "mjpeg", pixels="yuvj420p").read_bytes()
    )
    for start in range(len(data) // 4, len(data) - 400, len(data) // 6):
        data[start : start + 300] = bytes(300)
    path.write_bytes(data)
    return path


def without_pictures(path: Path, colour: Any, size: Any) -> Path:
    data = bytearray(plain(path, colour, size).read_bytes())
    data[600:] = bytes(len(data) - 600)
    path.write_bytes(data)
    return path


def empty(path: Path, colour: Any, size: Any) -> Path:
    path.touch()
    return path


MAKERS = [plain, interlaced, interlaced_mpeg, cut, broken, broken_intra, without_pictures, empty]
ENDINGS = {interlaced_mpeg: ".mpg", cut: ".mkv", broken: ".ts", broken_intra: ".avi"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("signed")
    made = []
    for number, colour in enumerate(COLOURS):
        make = MAKERS[number % len(MAKERS)]
        path = folder / f"{number}_{make.__name__}{ENDINGS.get(make, '.mkv')}"
        made.append((make(path, colour, _SIZES[number % len(_SIZES)]), colour))
    return made


def images(path: Path) -> Iterator[np.ndarray]:
    try:
        for frame in Video(path).frames():
            yield frame.image
    except VideoError:
        return


def check_own(image: np.ndarray, own: Any) -> None:
    others = np.array([colour for colour in COLOURS if colour != own], np.int16)
    far = np.abs(image.astype(np.int16)[:, :, None] - others).max(axis=3)
    assert ((far <= _NEAR).sum(axis=(0, 1)) < _PATCH).all(), f"foreign pixels in the file of {own}"


MANNERS = ("batch", "in turn", "threads")


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(len(COLOURS))), manner=st.sampled_from(MANNERS))
def test_frames_hold_only_their_own_file_s_pixels(
    files: list[tuple[Path, Any]], order: list[int], manner: str
) -> None:
    batch = [files[number] for number in order]
    kept: list[tuple[np.ndarray, Any]] = []  # checked once all is decoded: buffers may be reused

    def read(some: list[tuple[Path, Any]]) -> None:
        for path, colour in some:
            kept.extend((image, colour) for image in images(path))

    if manner == "batch":
        read(batch)
    elif manner == "in turn":
        for together in zip_longest(*(images(path) for path, _ in batch)):
            for image, (_, colour) in zip(together, batch, strict=True):
                if image is not None:
                    kept.append((image, colour))
    else:
        threads = [threading.Thread(target=read, args=(batch[part::2],)) for part in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({colour for _, colour in kept}) >= 7  # all but the empty ones gave frames
    for image, colour in kept:
        check_own(image, colour)


def test_the_check_sees_a_foreign_patch() -> None:
    image = np.full((96, 128, 3), COLOURS[0], np.uint8)
    check_own(image, COLOURS[0])
    image[40:50, 40:50] = COLOURS[1]
    with pytest.raises(AssertionError, match="foreign pixels"):
        check_own(image, COLOURS[0])


def test_sound_files_show_their_colour(files: list[tuple[Path, Any]]) -> None:
    for path, colour in files:
        if "broken" not in path.name:
            for image in images(path):
                middle = image[24:, :].reshape(-1, 3).astype(int)
                assert np.abs(middle - colour).max() <= _NEAR
