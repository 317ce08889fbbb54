"""Decoding a video file with PyAV (FFmpeg): frames in display order, and what is missing.

packets -> decoder -> deinterlacer (where a frame is interlaced) -> BGR as displayed
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.reformatter import Interpolation, VideoReformatter

from mlx_faceau.errors import VideoError

from .sample_depth import bits_in_use

logger = logging.getLogger(__name__)

Packet = Any  # PyAV has one class for each kind of stream

# Demuxers of containers and raw streams. Playlists and manifests (HLS, DASH, concat, SDP, IMF) are
# not among them: they make FFmpeg open whatever files and addresses they name.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,asf_o,flv,live_flv,mpeg,mpegts,mpegvideo,m4v,"
    "h261,h263,h264,hevc,vvc,evc,av1,obu,ivf,ogg,gif,mxf,gxf,lxf,dv,nut,rm,mjpeg,yuv4mpegpipe,"
    "dirac,vc1,vc1test,cavsvideo,avs2,avs3,dnxhd,wtv,swf,nsv,dhav,kux,ivr,pva,ty"
)
# Containers whose header tells the duration, rounded at most; other durations are estimates.
_WITH_DURATION = {"matroska,webm", "flv", "asf"}
_UNTIMED = ("avi", "asf", "mxf")  # which have times of decoding alone; of MXF some files
_BROADCAST = ("mpegts", "mpeg")  # transport and program streams
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_MAX_PIXELS = 1 << 26  # of a frame; 8K has half of it
_MAX_ASPECT = 16  # pixels wider or narrower than this are a mistake in the file
_SQUARE = 0.01  # how far a pixel aspect may be from 1 and count as square
_WAIT_FOR_KEY = 600  # packets at the start that are passed over in search of a key frame
_ENDS_EARLY = 0.5  # seconds that may lack before a file counts as cut short
_MOST_OVERHEAD = 512  # bytes of Matroska's own between two packets; 17 were seen
_USUAL_RATE = 30.0  # frames a second, where a file does not say


class DecoderError(Exception):
    """The decoder complained while several threads worked: they report late and keep frames."""


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame."""

    index: int  # from 0, counted in the file's frames that can be decoded and are displayed
    pts: int | None  # time of display in the stream's time base; None: the file gives no times
    frame: av.VideoFrame
    matrix: np.ndarray | None = None  # (9,) int32 16.16 display matrix; None: the file has none
    pixel_aspect: float = 1.0  # see Decoder


@dataclass(frozen=True)
class KeyFrame:
    """Where decoding can begin: index of a key frame, its times in the stream's time base, and its
    first byte, since times may come again in recordings that were joined."""

    index: int
    pts: int
    dts: int
    pos: int | None


class Decoder:
    """One pass over a file's frames, from a key frame where one is given.

    ``threaded`` decodes several frames at once; then complaints raise :class:`DecoderError`.
    ``name`` is the path as errors show it, where that is another.

    Attributes:
        damaged: frames that could not be decoded so far.
        missing: frames behind an early end of the file, known when all are read.

    Raises:
        VideoError: if the file is no video that FFmpeg decodes, or its frames are too large.
    """

    def __init__(
        self,
        path: Path,
        threaded: bool,
        start: KeyFrame | None = None,
        name: Path | None = None,
    ) -> None:
        self.path = path.absolute()  # the current folder may change before the file is read again
        self.name = name or path
        self._threaded, self._start = threaded, start
        self.damaged = self.missing = 0
        self._container = container = _open(path, self.name)
        try:
            self.stream = stream = _video_stream(container, self.name)
        except VideoError:
            container.close()
            raise
        options = {"max_pixels": str(_MAX_PIXELS)}
        if threaded:  # a complaint comes before the frames that follow the damaged one
            stream.thread_type, options["err_detect"] = "AUTO", "explode"
        else:  # threads for slices give damaged frames as good ones
            stream.codec_context.thread_count = 1
        stream.codec_context.options = options
        self.time_base = stream.time_base
        rates = (stream.average_rate, stream.guessed_rate)
        self.rate = next((float(r) for r in rates if r and 0 < r <= 1000), _USUAL_RATE)
        self._tells_duration = container.format.name in _WITH_DURATION
        seconds = 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            # Headers that tell a duration tell when the last frame ends, wherever the first begins.
            begin = (container.start_time or 0) if self._tells_duration else 0
            seconds = float(container.duration - begin) / av.time_base
        self.count = max(1, round(seconds * self.rate)) if seconds else None
        self._end = 0.0  # seconds, of the last packet of any stream
        self._bits = 0  # in use in grey samples of 16, so far
        self._converter = VideoReformatter()

    def close(self) -> None:
        self._container.close()

    def frames(self) -> Iterator[DecodedFrame]:
        """All frames that the decoder gives without complaint, in display order."""
        index = 0 if self._start is None else self._start.index
        newest = shown = None  # times of the packets so far, and of the frames
        step = 0  # the least between two of these
        begun, untimed = False, self._container.format.name in _UNTIMED
        turn = matrix = None  # degrees, and the display matrix that says so
        aspect = 1.0  # of a pixel
        for packet in self._packets():
            if packet is not None and packet.is_corrupt:
                self.damaged += 1  # half a frame may decode to a whole one, in part invented
                continue
            if packet is not None and packet.pts is not None and not packet.is_discard:
                newest = packet.pts if newest is None else max(newest, packet.pts)
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                self._complain()
                continue
            for frame in frames:
                time = frame.pts
                if time is None and untimed:
                    # Times of decoding are as far apart as those of display. The last frames lack
                    # them, and the file's rate may be that of fields.
                    time = frame.dts if shown is None or frame.dts is not None else shown + step
                if time is not None and shown is not None and time > shown:
                    step = min(step or time - shown, time - shown)
                shown = time
                begin = None if self._start is None else self._start.pts
                begun |= begin is None or (shown is not None and shown >= begin)
                if not begun:
                    continue  # displayed before the key frame that decoding began at
                if frame.is_corrupt:
                    self._complain()
                else:
                    if turn is None or frame.key_frame:
                        aspect = self.pixel_aspect
                    # Side data keeps its frame, picture and all, until the garbage collector
                    # comes, hundreds of frames later: so it is read where it changes. Some
                    # streams have it in one frame for all that follow.
                    if turn is None or frame.rotation not in (0, turn):
                        turn, data = frame.rotation, frame.side_data.get("DISPLAYMATRIX")
                        matrix = None if data is None else np.frombuffer(bytes(data), np.int32)
                    yield DecodedFrame(index, shown, frame, matrix, aspect)
                    index += 1
        if self._threaded and shown is not None and newest is not None and newest > shown:
            raise DecoderError  # PyAV drops what is behind a complaint at the end
        self.missing = self._count_missing()

    def _complain(self) -> None:
        if self._threaded:
            raise DecoderError
        self.damaged += 1

    def _packets(self) -> Iterator[Packet]:
        """The stream's packets from the first key frame on; None at the end flushes."""
        start, begun, passed = self._start, False, 0
        if start is not None:
            self._container.seek(start.dts, stream=self.stream)
        newest: int | None = None
        # Matroska's demuxer skips clusters that it cannot read without a word. Between packets lie
        # a few bytes of the container's own. Other data may follow a packet (an alpha channel), so
        # a hole counts only where frames are missing in time as well.
        matroska = self._container.format.name.startswith("matroska")
        hole, read_to = False, -1  # bytes without a packet before this one; end of the last packet
        for packet in _demux(self._container):
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.time_base:
                end = float((time + (packet.duration or 0)) * packet.time_base)
                self._end = max(self._end, end)
            if matroska and packet.pos is not None:
                hole |= 0 <= read_to < packet.pos - _MOST_OVERHEAD
                read_to = packet.pos + packet.size
            if packet.stream_index != self.stream.index or _is_empty(packet):
                continue
            if not begun:
                key = packet.is_keyframe
                begun = (
                    key or passed >= _WAIT_FOR_KEY
                    if start is None
                    else key and (packet.pts, packet.pos) == (start.pts, start.pos)
                )
                passed += 1
                if not begun:
                    continue
            if packet.pts is not None:
                if hole and newest is not None:
                    gap = float((packet.pts - newest) * (packet.time_base or self.time_base))
                    self.damaged += max(0, round(gap * self.rate) - 1)
                newest = packet.pts if newest is None else max(newest, packet.pts)
            hole = False
            yield packet
        if start is not None and not begun:
            raise DecoderError  # it was not found again
        yield None

    def _count_missing(self) -> int:
        """Frames that the file promises behind its own end."""
        size = self._container.size  # of the open file, which may have been moved since
        entries = self.stream.index_entries
        if len(entries) and entries[-1].pos + entries[-1].size > size:
            beyond = [entry for entry in entries if entry.pos + entry.size > size]
            return max(0, len(beyond) - self.damaged)
        duration = self._container.duration
        if self._tells_duration and duration:
            lacking = duration / av.time_base - self._end
            return round(lacking * self.rate) if lacking > _ENDS_EARLY else 0
        return 0

    @property
    def pixel_aspect(self) -> float:
        """Width of the newest frame's coded pixels by their height; 1 where they count as square.

        In broadcasts it may change: they have it in the stream alone.
        """
        aspects = [self.stream.sample_aspect_ratio, self.stream.codec_context.sample_aspect_ratio]
        if self._container.format.name in _BROADCAST:
            aspects.reverse()
        ratio = float(aspects[0] or aspects[1] or 1)
        square = abs(ratio - 1) <= _SQUARE or not 1 / _MAX_ASPECT <= ratio <= _MAX_ASPECT
        return 1.0 if square else ratio

    def image(self, decoded: DecodedFrame) -> np.ndarray:
        """(H, W, 3) uint8 BGR as displayed: square pixels, upright. The array is the caller's."""
        frame = decoded.frame
        width = max(1, round(frame.width * decoded.pixel_aspect))
        if width * frame.height > _MAX_PIXELS:
            raise VideoError(
                f"{self.name}: frames of {width} x {frame.height} pixels are too large"
            )
        if frame.format.name.startswith("gray16"):
            frame = self._stretched(frame)
        # Another format than the frame's own: else the decoder's buffer would be handed out.
        target = "rgb24" if frame.format.name == "bgr24" else "bgr24"
        mode = Interpolation.BILINEAR if width == frame.width else Interpolation.BICUBIC
        converted = self._converter.reformat(
            frame,
            width=width,
            format=target,
            interpolation=mode,
            dst_color_range="JPEG",
            threads=1,  # more cost more CPU time than they save
        )
        plane: Any = converted.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        image = rows[:, : 3 * width].reshape(frame.height, width, 3)
        if target == "rgb24":
            image = image[..., ::-1]
        return _upright(np.ascontiguousarray(image), decoded.matrix)

    def _stretched(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Grey of 16 bits by the most bits in use so far, as cameras store 10 to 14."""
        samples = frame.to_ndarray(format="gray16le")
        if (bits := bits_in_use(samples.max())) > self._bits:
            self._bits = bits
            if bits < 16:
                logger.warning("%s: read as %d bits a sample", self.name, bits)
        most = (1 << self._bits) - 1
        scaled = np.minimum(samples, most) * (65535 / most)
        stretched = av.VideoFrame.from_ndarray(scaled.astype(np.uint16), "gray16le")
        stretched.color_range = frame.color_range
        return stretched


def find_key_frame(decoder: Decoder, first: DecodedFrame, seconds: float) -> KeyFrame | None:
    """The last key frame at most so many seconds after the first displayed frame.

    Found by a walk over the packets in a second container, nothing decoded; None where decoding
    from the start is as good, or frames cannot be told from packets.
    """
    # The fields of an interlaced frame may be packets of their own, VP8 hides frames, and after a
    # seek in MPEG times are guesses.
    kinds = decoder.stream.codec_context.name, decoder._container.format.name
    if {"vp8", "libvpx", "mpeg"} & set(kinds) or first.pts is None or first.frame.interlaced_frame:
        return None
    wanted = first.pts + int(seconds / decoder.time_base)
    times: list[int] = []
    key: KeyFrame | None = None
    last: float = -np.inf
    with _open(decoder.path, decoder.name) as container:
        for packet in _demux(container):
            if packet.stream_index != decoder.stream.index or _is_empty(packet):
                continue
            if packet.pts is None:
                return None
            if packet.dts is not None:
                if packet.dts < last:  # recordings were joined, each with a clock of its own
                    return None
                if packet.dts > wanted:
                    break
                last = packet.dts
            if packet.is_discard or packet.is_corrupt or packet.pts < first.pts:
                continue
            times.append(packet.pts)
            if packet.is_keyframe and packet.pts <= wanted:
                dts = packet.pts if packet.dts is None else packet.dts
                key = KeyFrame(0, packet.pts, dts, packet.pos)
    if key is None or key.pts == first.pts or len(set(times)) < len(times):
        return None
    return replace(key, index=sum(time < key.pts for time in times))


def deinterlaced(frames: Iterable[DecodedFrame]) -> Iterator[DecodedFrame]:
    """One frame for each given one; those of two fields (and all after the first of them) pass
    through a filter that rebuilds the second field's lines, progressive ones unchanged."""
    graph: Any = None
    kind: Any = None
    waiting: deque[DecodedFrame] = deque()

    def filtered(frame: av.VideoFrame | None) -> Iterator[DecodedFrame]:
        graph.vpush(frame)
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                pulled = graph.vpull()
                yield replace(waiting.popleft(), frame=pulled)

    for decoded in frames:
        frame = decoded.frame
        form = (frame.width, frame.height, frame.format.name)
        if graph is not None and form != kind:
            yield from filtered(None)
            graph = None
        if graph is None and frame.interlaced_frame:
            kind, graph = form, _deinterlacer(frame)
        if graph is None:
            yield decoded
        else:
            waiting.append(decoded)
            yield from filtered(frame)
    if graph is not None:
        yield from filtered(None)


def _deinterlacer(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    # A frame for a frame, not for a field; progressive frames pass untouched.
    bob = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, bob, graph.add("buffersink")).configure()
    return graph


def _open(path: Path, name: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:  # it was moved since it was first opened, or its disk is gone
        raise VideoError(f"{name}: {error.strerror}") from None
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise VideoError(f"{name}: an image, not a video; name it .avif or .heic to read it")
    try:
        # FFmpeg takes such a stream for a pipe of images, which are not read here.
        jpegs = head.startswith(b"\xff\xd8") and path.suffix.lower() in (".mjpg", ".mjpeg")
        return av.open(
            f"file:{path.absolute()}",  # with its protocol: a name may look like an address
            format="mjpeg" if jpegs else None,
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, ValueError):
        raise VideoError(
            f"{name}: cannot be read as a video; it is cut short (an MP4 without its index), "
            "damaged, or of no known kind"
        ) from None


def _video_stream(container: Any, name: Path) -> Any:
    stream = container.streams.best("video")
    if stream is None or av.stream.Disposition.attached_pic in stream.disposition:
        raise VideoError(f"{name}: there is no video stream in it")
    context = stream.codec_context
    if context is None or context.codec is None:
        raise VideoError(f"{name}: FFmpeg has no decoder for its video stream")
    if (context.width or 0) * (context.height or 0) > _MAX_PIXELS:
        raise VideoError(
            f"{name}: frames of {context.width} x {context.height} pixels are too large"
        )
    return stream


def _demux(container: Any) -> Iterator[Packet]:
    """All packets; an error of the file ends them, as its end does."""
    untimed, parsed = (container.format.name in kinds for kinds in (_UNTIMED, _BROADCAST))
    damaged: dict[int, bool] = {}  # by stream
    with suppress(av.error.FFmpegError):
        for packet in container.demux():
            if parsed:  # where the next packet's begin tells a frame's end it brings its own mark
                mark = packet.is_corrupt
                packet.is_corrupt = damaged.get(packet.stream_index, False)
                damaged[packet.stream_index] = mark
            # There are no times of display, and of these PyAV makes up wrong ones.
            if untimed and packet.stream.type == "video" and packet.stream.name in ("h264", "hevc"):
                reorders = packet.stream.codec_context.has_b_frames
                # An MXF that has them shows the first frame later than it is decoded.
                untimed = container.format.name != "mxf" or packet.pts == packet.dts
                if untimed:
                    packet.pts = None if reorders else packet.dts
            yield packet


def _is_empty(packet: Packet) -> bool:
    """Whether a packet is only PyAV's own mark of the end."""
    return packet.size == 0 and packet.dts is None


def _upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turned and mirrored as players show it, to the nearest quarter; a stored point (x, y)
    is shown at (x, y) times the upper left (2, 2) of the matrix, written as (3, 3)."""
    if matrix is None:
        return image
    x_to_x, x_to_y, _, y_to_x, y_to_y = matrix.tolist()[:5]
    if abs(x_to_y) > abs(x_to_x):
        image, mirrored, upended = cv2.transpose(image), y_to_x < 0, x_to_y < 0
    else:
        mirrored, upended = x_to_x < 0, y_to_y < 0
    if mirrored or upended:
        image = cv2.flip(image, -1 if mirrored and upended else int(mirrored))
    return image
