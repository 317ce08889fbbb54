"""Pictures and videos that claim too much or lead elsewhere."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlx_faceau.errors import VideoError
from mlx_faceau.video.images import read_image
from mlx_faceau.video.reader import Video


def a_picture(ending: str, width: int, height: int) -> bytes:
    shades = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(ending, shades)[1].tobytes()


def test_a_few_bytes_that_claim_gigabytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(a_picture(".png", 8, 8))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.png: it claims too many pixels"):
        read_image(tmp_path / "a.png")


def test_a_png_whose_chunk_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    data = bytearray(a_picture(".png", 8, 8))
    start = data.index(b"IDAT") - 4
    data[start : start + 4] = (0x7FFFFFFF).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(VideoError, match="not a readable image"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    data = a_picture(".jpg", 16, 16)
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == (16, 16, 3)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 1000)
    with pytest.raises(VideoError, match="not a readable image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_no_playlist_leads_to_other_files(text: str, tmp_path: Path) -> None:
    from blobs import write_video

    write_video(tmp_path / "real.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (tmp_path / "clip.mp4").write_text(text)
    with pytest.raises(VideoError, match=r"clip\.mp4: cannot be read as a video"):
        Video(tmp_path / "clip.mp4")
