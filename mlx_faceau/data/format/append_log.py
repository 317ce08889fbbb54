"""An append-only log of blocks of samples: whatever ends the program, whole records stay readable.

A record is a 16-byte head (marker, CRC-32 and length of what follows) and the block in safetensors'
format, texts as JSON. Reading stops at the first record that is cut short or fails its checksum;
what comes after it is dropped when the log is opened again.
"""

import json
import logging
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from mlx_faceau.errors import DatasetError

from . import schema
from .columns import COLUMNS, Block, check_block, rows_of

_LOG = logging.getLogger(__name__)
_HEAD = struct.Struct("<4sIQ")
_MARK = b"MXFJ"
_KINDS = {"|u1": "U8", "<i4": "I32", "<f4": "F32"}  # NumPy's names -> safetensors'
JOURNAL_ATTRIBUTE = "journal"  # of a training file: the log that went into it last


class Journal:
    """The log of one writer.

    Attributes:
        id: unique; the file that the log goes into carries it.
        once: the log of a file that is made in one go; it need not be kept.
        rows: samples in it.
        columns: names of the first block's columns; empty if there is none.

    Args:
        path: made if it is not there; opened to be continued otherwise.
        once: of a new log.

    Raises:
        DatasetError: if it cannot be created, or is no such log.
    """

    def __init__(self, path: Path, once: bool = False) -> None:
        self.path = path
        self.id, self.once = uuid.uuid4().hex, once
        self.rows = 0
        self.columns: frozenset[str] = frozenset()
        try:
            mode = "r+b" if path.exists() else "w+b"
            self._file: IO[bytes] = open(path, mode, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DatasetError(f"{path}: cannot be created ({error.strerror})") from error
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def _recover(self) -> None:
        """Find the end of what is whole, drop the rest, and write the log's name if it is new."""
        if not _MARK.startswith(self._file.read(len(_MARK))):
            raise DatasetError(f"{self.path}: not the log of a training file; move it away")
        records = self._records()
        first = next(records, None)
        end = 0
        if first is not None:
            self._take_name(first[1])
            end = first[0]
        for position, payload in records:
            self._count(self._block(payload))
            end = position
        dropped = self._file.seek(0, os.SEEK_END) - end
        if dropped and self.rows:
            _LOG.warning("%s: the last write was cut short; %d bytes dropped", self.path, dropped)
        self._file.truncate(end)
        self._file.seek(end)
        if first is None:
            self._write([json.dumps({"id": self.id, "once": self.once}).encode()])

    def _take_name(self, payload: bytes) -> None:
        try:
            name = json.loads(payload)
            self.id, self.once = str(name["id"]), bool(name["once"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DatasetError(
                f"{self.path}: not the log of a training file; move it away"
            ) from None

    def append(self, block: Block) -> None:
        """Add a block; when this returns its samples outlive the program and the machine's power.

        Raises:
            OSError: if the disk refuses; the log still ends with a whole record.
        """
        self._write(_payload(block))
        self._count(block)

    def _write(self, payload: Sequence[bytes | memoryview]) -> None:
        """Write a record, given in pieces."""
        start, checksum = self._file.tell(), 0
        for piece in payload:
            checksum = zlib.crc32(piece, checksum)
        head = _HEAD.pack(_MARK, checksum, sum(map(len, payload)))
        try:
            for piece in (head, *payload):
                data = memoryview(piece)
                while data:
                    data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def _count(self, block: Block) -> None:
        if not self.columns:
            self.columns = frozenset(block)
        self.rows += rows_of(block)

    def blocks(self) -> Iterator[Block]:
        """All blocks in order. Nothing may be appended meanwhile."""
        records = self._records()
        next(records)
        for _, payload in records:
            yield self._block(payload)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Where each whole record ends, and what it holds."""
        self._file.seek(0)
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            mark, checksum, length = _HEAD.unpack(head)
            if mark != _MARK or not 0 < length < os.fstat(self._file.fileno()).st_size:
                return
            payload = self._file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                return
            yield self._file.tell(), payload

    def _block(self, payload: bytes) -> Block:
        try:
            block = _read_block(payload)
            check_block(block)
        except (SafetensorError, RecursionError, LookupError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.path}: a record is whole but no samples of ours ({error}); move it away"
            ) from None
        return block

    def close(self) -> None:
        """Close the log; it stays."""
        self._file.close()

    def delete(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)


def _payload(block: Block) -> list[bytes | memoryview]:
    """The block as safetensors has it, in pieces: its own writer would copy every picture twice."""
    header, pieces, end = {}, [], 0
    for name, values in block.items():
        text = COLUMNS[name].dtype is None
        array = np.frombuffer(json.dumps(values).encode(), np.uint8) if text else values
        start, end = end, end + array.nbytes
        kind, shape = _KINDS[array.dtype.str], list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        pieces.append(np.ascontiguousarray(array).data.cast("B"))
    text_of_header = json.dumps(header).encode()
    text_of_header += b" " * (-len(text_of_header) % 8)
    return [len(text_of_header).to_bytes(8, "little"), text_of_header, *pieces]


def _read_block(payload: bytes) -> Block:
    arrays: dict[str, Any] = load(payload)
    return {
        name: json.loads(values.tobytes()) if COLUMNS[name].dtype is None else values
        for name, values in arrays.items()
    }


def open_journal(path: Path, append: bool) -> Journal:
    """The log of the file at ``path``: a new one, or the one that an interrupted writer left.

    Args:
        path: of the file, not the log.
        append: continue what is there; else only the log of a file made in one go may be replaced.

    Raises:
        DatasetError: if there is a log that must not be replaced.
    """
    place = path.with_name(path.name + schema.PARTIAL)
    left_behind = place.exists()
    journal = Journal(place, once=not append)
    needless = journal.rows == 0 or _went_into(path, journal) or (journal.once and not append)
    if left_behind and needless:
        journal.delete()
        journal = Journal(place, once=not append)
    if journal.rows and not append:
        journal.close()
        raise DatasetError(
            f"{path}: {place.name} beside it holds {journal.rows} samples of an interrupted "
            "writer; finish that one, or remove it"
        )
    if journal.rows:
        _LOG.warning("%s: %d samples of an interrupted writer are kept", path, journal.rows)
    return journal


def _went_into(path: Path, journal: Journal) -> bool:
    """Whether the program was killed between making the file and removing the log."""
    if not path.exists():
        return False
    with schema.opened(path) as file:
        return bool(file.attrs.get(JOURNAL_ATTRIBUTE) == journal.id)
