"""Images from files: OpenCV reads the common formats, Pillow the others and all headers."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.errors import MissingDependency, VideoError

from .opencv_log import NOTHING, opencv_log_level
from .reader import VIDEO_SUFFIXES
from .sample_depth import bits_in_use

logger = logging.getLogger(__name__)

# What is looked for in folders; a file that is named itself may have any ending. GIF is a video.
IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", ".avif", ".heic", ".heif", ".hif", ".jp2", ".ppm", ".pgm", ".pnm", ".tga",
)  # fmt: skip

# First bytes of what OpenCV reads; WebP it turns upright from 4.13 on, Pillow always.
_PNG, _JPEG, _TIFF, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"II*\0", b"MM\0*"), b"RIFF"
_TURNS_WEBP = tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 13)
_OPENCV = (_PNG, _JPEG, b"BM", *_TIFF, *([_WEBP] if _TURNS_WEBP else []))
_WHITE, _SAMPLES, _PLANES = 262, 277, 284  # tags of TIFF: which number is white, how colours lie
# Read by Pillow where OpenCV does not. Never EPS or PDF: other programs would run on them.
_PILLOW_FORMATS = ("AVIF", "GIF", "HEIF", "JPEG2000", "PPM", "TGA", "WEBP")
_OPENCV_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # their headers and frames
_MAX_PIXELS = 1 << 28
_FREE_PIXELS, _PIXELS_A_BYTE = 1 << 24, 10_000  # what a small file may claim; deflate's limit
_MAX_SCANS = 200  # of a JPEG: real progressive files have about ten, each a pass over all pixels
# What Pillow raises on files that it cannot read; TypeError where a TIFF's page has no size.
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, TypeError, struct.error)


def read_image(path: Path | str) -> np.ndarray:
    """An image as (H, W, 3) uint8 BGR: turned upright by its EXIF, grey repeated, alpha dropped.

    Samples of 16 bits are reduced by the bits in use: the least of 8, 10, 12, 14 and 16 that holds
    the largest. Of several frames or pages the first is read and a warning counts the others.

    Raises:
        VideoError: if it is missing, no readable image, or too large.
        MissingDependency: if its format needs Pillow or pillow-heif, which are not installed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from None
    if not data.startswith(_OPENCV):
        return _read_with_pillow(path, data)
    _check_header(path, data)
    image = _decoded(_still(path, data) if data.startswith(_PNG) else data)
    if image is None:
        raise VideoError(f"{path}: not a readable image")
    if image.dtype != np.uint8 and data.startswith(_TIFF):
        # OpenCV leaves most of these unwritten, memory of other images; negatives it does not turn.
        if _tiff_tag(data, _PLANES) == 2 and _tiff_tag(data, _SAMPLES) != 1:
            raise VideoError(f"{path}: a TIFF with a plane for each colour; convert it to PNG")
        if image.dtype == np.uint16 and _tiff_tag(data, _WHITE) == 0:
            image = cv2.bitwise_not(image)
    return _as_bytes(path, image)


def _decoded(data: bytes) -> np.ndarray | None:
    """OpenCV's BGR image in the file's own depth; None if it cannot read it."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    with suppress(cv2.error), opencv_log_level(NOTHING):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its ending; by its first bytes where that is unknown."""
    suffix = path.suffix.lower()
    if suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        return suffix in IMAGE_SUFFIXES
    with path.open("rb") as file:
        head = file.read(12)
    starts = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
    brands = (b"ftypavi", b"ftyphei", b"ftypmif1")
    return head.startswith(starts) or head[8:] == b"WEBP" or head[4:].startswith(brands)


def _check_header(path: Path, data: bytes) -> None:
    """Check a file for OpenCV, which takes memory for all that the header claims.

    Without Pillow the size is not known, and OpenCV's own limit of a gigapixel holds.
    """
    if data.startswith(_JPEG) and data.count(b"\xff\xda") > _MAX_SCANS:
        raise VideoError(f"{path}: not a readable image: too many scans")
    # There may be no Pillow, or the file a kind of TIFF that it does not know.
    with suppress(ModuleNotFoundError, *_PILLOW_ERRORS), _opened(path, data, _OPENCV_FORMATS):
        pass


def _still(path: Path, data: bytes) -> bytes:
    """A PNG without the chunks of an animation: of a damaged one OpenCV gives unwritten memory."""
    kept, position = [_PNG], len(_PNG)
    while position + 4 <= len(data):
        end = position + 12 + struct.unpack_from(">I", data, position)[0]
        if data[position + 4 : position + 8] not in (b"acTL", b"fcTL", b"fdAT"):
            kept.append(data[position:end])
        position = end
    if position > len(data):  # OpenCV takes memory for each chunk before it reads one
        raise VideoError(f"{path}: not a readable image: it is cut short")
    return b"".join(kept)


def _tiff_tag(data: bytes, wanted: int) -> int | None:
    """The value of a tag with one short number in a TIFF's first page."""
    order = "<" if data.startswith(b"II") else ">"
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", data, position)
            if tag == wanted:
                return int(value)
    return None


@contextmanager
def _opened(path: Path, data: bytes, formats: tuple[str, ...]) -> Iterator[Any]:
    """Pillow's image of a file that is not too large; a warning counts its further frames."""
    from PIL import Image

    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes: ours are checked here
            with Image.open(io.BytesIO(data), formats=known) as picture:
                width, height = picture.size
                if width * height > min(_MAX_PIXELS, _FREE_PIXELS + _PIXELS_A_BYTE * len(data)):
                    raise VideoError(
                        f"{path}: it claims {width} x {height} pixels, too many for its bytes"
                    )
                if (frames := getattr(picture, "n_frames", 1)) > 1:
                    logger.warning("%s: the first of %d pictures in it is read", path, frames)
                yield picture
    except Image.DecompressionBombError:
        raise VideoError(f"{path}: it claims too many pixels") from None


def _as_bytes(path: object, image: np.ndarray) -> np.ndarray:
    """Samples reduced to 8 bits: integers by the bits in use, floats from [0, 1]."""
    if image.dtype == np.uint8:
        return image
    most = float(image.max())
    if image.dtype == np.uint16:
        bits = bits_in_use(most)
        if bits < 16:
            logger.warning("%s: read as %d bits a sample, its largest is %.0f", path, bits, most)
        return cv2.convertScaleAbs(image, alpha=255 / ((1 << bits) - 1))
    if np.issubdtype(image.dtype, np.floating) and float(image.min()) >= 0 and most <= 1:
        return cv2.convertScaleAbs(image, alpha=255)
    raise VideoError(
        f"{path}: samples of type {image.dtype} up to {most:g}; expected 8 or 16 bits, or "
        "floating-point numbers in [0, 1]; convert it to PNG"
    )


def _read_with_pillow(path: Path, data: bytes) -> np.ndarray:
    try:
        from PIL import ImageOps
    except ModuleNotFoundError:
        raise VideoError(
            f"{path}: not a readable PNG, JPEG, BMP, TIFF or WebP; other pictures need Pillow "
            "(pip install pillow)"
        ) from None
    if data[4:12].startswith((b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")):
        try:  # a library under another licence
            import pillow_heif
        except ModuleNotFoundError:
            raise MissingDependency("pillow_heif", extra="heif") from None
        pillow_heif.register_heif_opener()
    try:
        with _opened(path, data, _PILLOW_FORMATS) as picture:
            # Pillow reduces deep colours by the largest that the header allows.
            colours = picture.mode[0] not in "IF" and picture.format in ("PPM", "JPEG2000")
            deep = _decoded(data) if colours else None
            if deep is not None and deep.dtype == np.uint16:
                return _as_bytes(path, deep)
            return pixels_of(ImageOps.exif_transpose(picture), path)
    except _PILLOW_ERRORS:
        raise VideoError(f"{path}: not a readable image") from None


def pixels_of(picture: Any, name: object) -> np.ndarray:
    """Pillow's image, which is upright, as :func:`read_image` gives it; the name is for errors."""
    if picture.mode[0] not in "IF":
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
    samples = np.asarray(picture)  # grey, of which Pillow would keep what lies under 256
    if picture.mode != "F":
        samples = samples.clip(0, 65535).astype(np.uint16)
    return cv2.cvtColor(_as_bytes(name, samples), cv2.COLOR_GRAY2BGR)
