"""Changes a small MP4 file: how it is turned, how long each frame lasts."""

import struct
from collections.abc import Sequence
from pathlib import Path

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_ONE = 1 << 16


def turn_quarter(path: Path) -> None:
    """Mark the video as filmed sideways: players show it turned clockwise."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: matrix after 40 bytes
    data[start : start + 36] = struct.pack(">9i", 0, _ONE, 0, -_ONE, 0, 0, 0, 0, _ONE << 14)
    path.write_bytes(data)


def set_durations(path: Path, runs: Sequence[tuple[int, int]]) -> None:
    """Frames' durations as (count, ticks) runs; the file's index must lie behind its pictures."""
    data = path.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)
    path.write_bytes(_rewritten(data, table))


def _rewritten(data: bytes, table: bytes) -> bytes:
    out, position = b"", 0
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", data[position + 8 : position + 16])[0], 16
        body = data[position + header : position + size]
        if kind in _CONTAINERS:
            body = _rewritten(body, table)
        elif kind == b"stts":
            body = table
        changed = kind in _CONTAINERS or kind == b"stts"
        out += (
            struct.pack(">I4s", len(body) + 8, kind) + body
            if changed
            else data[position : position + size]
        )
        position += size
    return out
