"""Writes small videos of any codec, container, timing, shape and interlacing with PyAV."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

INTERLACED = {"flags": "+ildct+ilme", "x264-params": "tff=1"}


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    rate: int = 25,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    container: str | None = None,
    setup: Callable[[Any], None] = lambda stream: None,
    **options: str,
) -> Path:
    """Encode BGR pictures.

    Args:
        path: the file; its ending names the container unless ``container`` does.
        pictures: (H, W, 3) uint8 BGR, all of one size.
        codec: an encoder of FFmpeg.
        rate: frames a second, and the ticks of ``times``.
        pixels: the encoder's pixel format.
        times: when each is shown; None is one after the other.
        container: FFmpeg's name of it.
        setup: changes the stream before it is opened.
        options: of the encoder; those named ``mux_...`` of the container.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    of_file = {k.removeprefix("mux_"): v for k, v in options.items() if k.startswith("mux_")}
    of_codec = {k: v for k, v in options.items() if not k.startswith("mux_")}
    with av.open(str(path), "w", format=container, options=of_file) as file:
        stream = file.add_stream(codec, rate=rate, options={"threads": "1", **of_codec})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        setup(stream)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=pixels)
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def numbered(count: int, size: tuple[int, int] = (96, 128), colour: Any = (160, 90, 40)) -> list:
    """Pictures of one colour with their number as bits: black and white squares at the top."""
    pictures = []
    for index in range(count):
        picture = np.full((*size, 3), colour, np.uint8)
        for bit in range(8):
            picture[:16, 16 * bit : 16 * bit + 16] = 255 * (index >> bit & 1)
        pictures.append(picture)
    return pictures


def number_of(image: np.ndarray) -> int:
    """The number that :func:`numbered` wrote, from a picture of the same width."""
    squares = (image[4:12, 16 * bit + 4 : 16 * bit + 12].mean() for bit in range(8))
    return sum(int(shade > 127) << bit for bit, shade in enumerate(squares))


def with_192_byte_packets(data: bytes) -> bytes:
    """A transport stream as Blu-ray and AVCHD keep it: four bytes of time before each packet."""
    packets = (data[i : i + 188] for i in range(0, len(data), 188))
    return b"".join(n.to_bytes(4, "big") + packet for n, packet in enumerate(packets))
