"""The width and height that a picture file claims, from its header alone.

OpenCV takes memory for the whole picture before it reads a pixel; a header of a few bytes may
claim gigabytes.

Reference:
    PNG (ISO/IEC 15948), JPEG (ITU-T T.81), TIFF 6.0, BMP (Microsoft), WebP (RFC 9649).
"""

import struct

_SCANS = b"\xff\xda"  # JPEG's marker; inside compressed data it cannot occur
_MAX_SCANS = 200  # real progressive files have about ten; each is a pass over all pixels
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # JPEG markers among SOF0 to SOF15 that begin no frame
_TIFF_FORMATS = {3: "H", 4: "I"}  # of a value, by its type
_TIFF_SIZES = (256, 257)  # tags ImageWidth and ImageLength


def picture_size(data: bytes) -> tuple[int, int] | None:
    """What a PNG, JPEG, BMP, TIFF or WebP file says about its size.

    Args:
        data: the whole file.

    Returns:
        Width and height in pixels; None where it is none of these, cut short, a PNG with a chunk
        longer than the file, or a JPEG of more scans than a picture has.
    """
    try:
        for magic, read in _READERS.items():
            if data.startswith(magic):
                width, height = read(data)
                return (width, height) if width > 0 and height > 0 else None
    except (struct.error, ValueError, KeyError):
        pass
    return None


def _png(data: bytes) -> tuple[int, int]:
    """The first chunk; OpenCV takes memory for each chunk's length before it reads one."""
    position = 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        position += 12 + length
    if position > len(data):
        raise ValueError("a chunk longer than the file")
    return struct.unpack_from(">II", data, 16)


def _jpeg(data: bytes) -> tuple[int, int]:
    """Walk the segments up to the frame's header."""
    if data.count(_SCANS) > _MAX_SCANS:
        raise ValueError("too many scans")
    position = 2
    while True:
        mark, kind = struct.unpack_from(">BB", data, position)
        if mark != 0xFF:
            raise ValueError("no marker")
        if kind == 0xFF:  # a filling byte
            position += 1
        elif 0xC0 <= kind <= 0xCF and kind not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            position += 2 + length


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # negative: the first row comes first


def _tiff(data: bytes) -> tuple[int, int]:
    """The first directory's two entries."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    found = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in _TIFF_SIZES:
            (found[tag],) = struct.unpack_from(order + _TIFF_FORMATS[kind], data, entry + 8)
    return found[256], found[257]


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        raise ValueError("another RIFF file")
    if kind == b"VP8X":
        low, high, more, most = struct.unpack_from("<HBHB", data, 24)
        return 1 + low + (high << 16), 1 + more + (most << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


_READERS = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8": _jpeg,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"RIFF": _webp,
}
